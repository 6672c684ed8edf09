"""Generative perplexity under judges whose answers are known: hand-made ones, and the law of a chain itself."""

import dataclasses
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.tokenizer import ByteTokenizer, SymbolTokenizer
from anyorder.evaluation.gen_ppl import Judge, Judged, ModelJudge, documents, perplexity
from anyorder.evaluation.judges import find_twin, load_judge
from anyorder.evaluation.quality import Figures, Quality, Sampling, measure
from anyorder.hub.load import load_model
from anyorder.hub.save import save_model
from anyorder.likelihood.chain import exact_causal
from anyorder.models.config import SIZES
from anyorder.models.transformer import Transformer
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler
from anyorder.testing.oracle import CausalView, MarkovOracle

SYMBOLS = SymbolTokenizer("abcd")
EOS = SYMBOLS.vocab.eos_id


@dataclasses.dataclass(frozen=True)
class ByLetter:
    """A judge that charges a fixed number of nats for each letter."""

    nats: dict[str, float]
    name: str = "by letter"
    first_token: str = "scored"

    def nll(self, texts):
        return Judged(
            nats=torch.tensor([sum(self.nats[c] for c in t) for t in texts], dtype=torch.float64),
            scored=torch.tensor([len(t) for t in texts]),
            cut=torch.tensor([t.count("d") for t in texts]),
        )

    def features(self, texts):
        return torch.zeros(len(texts), 1, dtype=torch.float64)


def test_perplexity_is_weighted_by_tokens_and_not_a_mean_of_perplexities():
    nats, scored = torch.tensor([2.0, 12.0], dtype=torch.float64), torch.tensor([2, 4])
    ppl, error = perplexity(nats, scored)
    assert ppl == pytest.approx(math.exp(14 / 6))
    without = [math.exp(12 / 4), math.exp(2 / 2)]
    mean = sum(without) / 2
    assert error == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in without) / 2))


def test_the_jackknife_error_is_that_of_a_mean_for_equal_lengths():
    noise = Noise.of(1)
    nats = 20 + 0.01 * noise.normal(torch.arange(200))
    ppl, error = perplexity(nats, torch.full((200,), 10))
    assert error == pytest.approx(ppl * float(nats.std()) / 10 / math.sqrt(200), rel=1e-2)


def test_an_impossible_text_has_an_infinite_perplexity():
    ppl, error = perplexity(torch.tensor([math.inf, 1.0], dtype=torch.float64), torch.tensor([3, 3]))
    assert ppl == math.inf
    assert math.isnan(error)


def test_documents_of_a_row():
    assert documents([1, 2, EOS, EOS, 3, EOS], eos_id=EOS) == [[1, 2], [3]]
    assert documents([EOS, EOS], eos_id=EOS) == []
    assert documents([0, EOS], eos_id=None) == [[0, EOS]]


def test_measure_scores_document_by_document_and_counts_what_is_empty():
    judge = ByLetter({"a": 1.0, "b": 2.0, "d": 0.0})
    assert isinstance(judge, Judge)
    rows = torch.tensor([[0, 0, EOS, 1], [1, 1, 3, EOS], [EOS] * 4])  # "aa" "b", "bbd", nothing
    got = measure(rows, tokenizer=SYMBOLS, judge=judge)
    assert got.gen_ppl == pytest.approx(math.exp((1 + 1 + 2 + 2 + 2) / 6))
    assert (got.rows, got.length, got.scored, got.cut, got.empty) == (3, 4, 6, 1, 1)
    halves = 0.5 * math.log(2) + 0.5 * math.log(4)
    assert got.entropy == pytest.approx(2 * halves / 3)
    assert got.distinct == pytest.approx((4 / 12, 7 / 9, 5 / 6))


def chain():
    return MarkovOracle.random(4, noise=Noise.of(5).at("chain"))


def oracle_judge(length):
    return ModelJudge("the chain itself", CausalView(chain()), SYMBOLS, length)


def test_exact_samples_under_their_own_law_have_the_perplexity_of_its_entropy():
    oracle, length = chain(), 12
    want = math.exp(oracle.entropy(length) / length)
    masks = torch.full((300, length), oracle.vocab.mask_id)
    canvas = Canvas.of(masks, vocab=oracle.vocab)
    exact = generate(make_sampler("first-hitting"), oracle, canvas, noise=Noise.of(6)).canvas.x
    got = measure(exact, tokenizer=SYMBOLS, judge=oracle_judge(length))
    assert abs(got.gen_ppl - want) < 4 * got.gen_ppl_stderr  # p > 1e-4
    assert 0 < got.gen_ppl_stderr < 0.05 * want
    at_once = generate(make_sampler("first-hitting", num_steps=1), oracle, canvas, noise=Noise.of(6)).canvas.x
    wrong = measure(at_once, tokenizer=SYMBOLS, judge=oracle_judge(length))
    assert wrong.gen_ppl > want + 10 * wrong.gen_ppl_stderr


def test_a_judge_scores_the_chain_rule_and_cuts_at_its_length():
    oracle = chain()
    said = oracle_judge(3).nll(["abca", "d", "ba"])
    want = -torch.stack([oracle.log_prob(torch.tensor([x]))[0] for x in ([0, 1, 2], [3], [1, 0])])
    torch.testing.assert_close(said.nats, want)
    assert said.scored.tolist() == [3, 1, 2]
    assert said.cut.tolist() == [1, 0, 0]


def test_a_network_judges_texts_of_different_lengths_as_each_alone(tiny_runs):
    loaded = load_model(tiny_runs.arm / "model")
    judge = load_judge(str(tiny_runs.arm))
    texts = ["def ada", "x", "return x + y", "é"]
    said = judge.nll(texts)
    for text, nats, scored in zip(texts, said.nats.tolist(), said.scored.tolist()):
        x = torch.tensor([ByteTokenizer().encode(text)])
        alone = exact_causal(loaded.model, x, target=torch.ones_like(x).bool())
        assert nats == pytest.approx(float(alone.nats[0]), rel=1e-5)
        assert scored == x.shape[1]
    assert judge.features(texts).shape == (4, loaded.model.config.d_model)
    torch.testing.assert_close(judge.features(texts)[1:2], judge.features(texts[1:2]), rtol=1e-4, atol=1e-4)
    one, other, cut = judge.features(["ab", "ac", "ab" * 99])
    assert float((one - other).abs().max()) > 1e-3
    x = torch.tensor([[*b"ab", ByteTokenizer().vocab.eos_id]])
    canvas = Canvas.of(x, vocab=loaded.model.vocab)
    logits = loaded.model(canvas, torch.tensor([[False, False, True]]))[0]
    torch.testing.assert_close(loaded.model.head(one.float()), logits, rtol=1e-4, atol=1e-4)
    assert bool(cut.isfinite().all())


def tiny_arm(tokenizer):
    """An untrained autoregressive network of a tokenizer."""
    model = Transformer(SIZES["tiny"].model_copy(update={"causal": True, "max_length": 8}), tokenizer.vocab)
    model.init_weights(Noise.of(0))
    return model


def test_the_twin_is_found_and_an_autoregressive_run_is_its_own(tiny_runs, tmp_path):
    assert find_twin(tiny_runs.mdm) == tiny_runs.arm == find_twin(tiny_runs.arm / "model")
    alone = tmp_path / "alone"
    alone.symlink_to(tiny_runs.mdm)
    save_model(tmp_path / "other-arm" / "model", tiny_arm(SYMBOLS), SYMBOLS)
    assert find_twin(alone) is None
    for name in ("x", "y"):
        (tmp_path / name).symlink_to(tiny_runs.arm)
    with pytest.raises(ValueError, match="several runs beside it"):
        find_twin(alone)
    (tmp_path / "alone-arm").symlink_to(tiny_runs.arm)
    assert find_twin(alone) == tmp_path / "alone-arm"


def test_neither_figure_comes_alone():
    with pytest.raises(TypeError, match="entropy"):
        Figures(gen_ppl=3.0, gen_ppl_stderr=0.1)
    given = {"gen_ppl_stderr": 0.1, "entropy_stderr": 0.1, "distinct": (1.0, 1.0, 1.0), "repetition": 0.0}
    given |= {"rows": 2, "length": 4.0, "scored": 8, "cut": 0, "empty": 0}
    for ppl, entropy in ((math.nan, 1.0), (3.0, math.nan)):
        with pytest.raises(ValueError, match="neither is shown alone"):
            Figures(gen_ppl=ppl, entropy=entropy, **given)
    sampling = Sampling("run", "maskgit", 8, 0.9, 0, 1.0, None, 0, "bfloat16", 8.0)
    said = str(Quality(Figures(gen_ppl=3.0, entropy=1.25, **given), sampling, "twin", "scored"))
    for part in (
        "gen-PPL 3.00 ± 0.10 under twin",
        "entropy 1.250 ± 0.100 nats",
        "maskgit, steps 8, temperature 0.9, 8.0 passes",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[0, 1]], "n=1: quality is measured on at least 2 samples"),
        ([[EOS, EOS], [EOS, EOS]], "the samples hold no text at all"),
        ([[EOS, EOS], [0, 1]], "at least 2 samples with text"),
    ],
)
def test_too_little_text_is_refused(rows, said):
    with pytest.raises(ValueError, match=said):
        measure(torch.tensor(rows), tokenizer=SYMBOLS, judge=ByLetter({"a": 1.0, "b": 1.0}))


def test_a_judge_that_shares_no_text_is_refused():
    rows = torch.tensor([[65, 66], [67, 68]])
    with pytest.raises(ValueError, match=r"judge the chain itself: cannot read the text \(character 'A'"):
        measure(rows, tokenizer=ByteTokenizer(), judge=oracle_judge(4))


def test_a_masked_model_and_a_missing_folder_are_no_judges(tiny_runs):
    with pytest.raises(ValueError, match="does not read from left to right"):
        load_judge(str(tiny_runs.mdm))
    with pytest.raises(ValueError, match=r"no such folder.*hub:NAME"):
        load_judge("nowhere")
    with pytest.raises(ValueError, match="has no hidden states"):
        oracle_judge(4).features(["a"])
