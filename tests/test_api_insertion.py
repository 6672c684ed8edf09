"""An insertion model in the Python API: against the network itself, exact values, and what it refuses."""

import math

import pytest
import torch

import anyorder
from anyorder import GAP, LanguageModel
from anyorder.core.categorical import log_probs
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.likelihood.insertion import insertion_exact
from anyorder.samplers.base import generate
from anyorder.samplers.insertion import Insert, Room
from anyorder.samplers.presets import make_sampler
from anyorder.samplers.token import TokenRule
from conftest import TinyRuns
from ilm_demo import make_ilm


@pytest.fixture(scope="module")
def ilm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return make_ilm(tmp_path_factory.mktemp("ilm") / "model")


@pytest.fixture(scope="module")
def mdm(tiny_runs: TinyRuns) -> LanguageModel:
    return anyorder.load(tiny_runs.mdm)


def by_hand(model: LanguageModel, text: str, *, gaps: list[int], length: int, n: int) -> Canvas:
    """Rows with end-of-document before the text and padding behind it."""
    vocab = model.model.vocab
    x = torch.full((n, length + 1), vocab.pad_id)
    x[:, : len(text) + 1] = torch.tensor([vocab.eos_id, *text.encode()])
    valid = x != vocab.pad_id
    window = torch.zeros_like(valid)
    window[:, gaps] = True
    return Canvas(x=x, fixed=valid, window=window, segment=valid.long(), row_id=torch.arange(n))


def test_it_writes_what_the_sampler_writes(ilm: LanguageModel) -> None:
    noise = Noise.of(4).at("sample")
    sample = generate(Insert(), ilm.model, by_hand(ilm, "ab", gaps=[2], length=12, n=9), noise=noise)
    made = ilm.sample("ab", n=9, length=12, seed=4)
    lengths = set()
    for row, g in enumerate(made):
        valid = sample.canvas.valid[row]
        assert g.tokens == sample.canvas.x[row][valid].tolist()[1:]
        assert g.order == sample.order[row][valid].tolist()[1:]
        assert g.token_logp == sample.token_logp[row][valid].tolist()[1:]
        assert g.nfe == int(sample.nfe[row])
        lengths.add(len(g.tokens))
    assert len(lengths) > 3  # it stops where it likes


def test_a_generation_adds_up(ilm: LanguageModel) -> None:
    for g in ilm.sample("ab", n=20, length=12, seed=1):
        assert bytes(g.tokens[:2]) == b"ab"
        assert (g.order[:2], g.token_logp[:2]) == ([-1, -1], [0.0, 0.0])
        assert sorted(g.order[2:]) == list(range(g.num_tokens))
        assert g.nfe == g.num_tokens + (len(g.tokens) < 12)  # the pass that stops, unless there is no room
        assert g.logp == pytest.approx(math.fsum(g.token_logp), abs=1e-9)
        assert ilm.model.vocab.eos_id not in g.tokens
        assert len(g.at(1)) <= len(g.at(2)) <= len(g.text)
        assert g.at(0) == "ab"
        assert g.text == bytes(g.tokens).decode("utf-8", "replace")


def test_log_probabilities_are_what_the_network_said(ilm: LanguageModel) -> None:
    """Of each token: of its position among the open ones and of its value, in one softmax over both."""
    g = max(ilm.sample("ab", n=8, length=12, seed=2), key=lambda g: g.num_tokens)
    assert g.num_tokens > 4
    for step in range(g.num_tokens):
        before = [t for t, when in zip(g.tokens, g.order) if when < step]
        place = g.order.index(step)
        after = sum(when < step for when in g.order[:place])  # tokens before it
        x = torch.tensor([[ilm.model.vocab.eos_id, *before]])
        at = torch.arange(x.shape[1])[None] >= 2
        scores = ilm.model(Canvas.of(x, vocab=ilm.model.vocab), at)
        said = log_probs(scores.flatten()[None])[0].view(scores.shape)[after - 2, g.tokens[place]]
        assert g.token_logp[place] == pytest.approx(float(said), abs=1e-4)


def test_a_row_is_the_same_alone_and_among_others(ilm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seven = [g.tokens for g in ilm.sample("a", n=7, seed=5)]
    assert ilm.sample("a", seed=5)[0].tokens == seven[0]
    assert seven[0] != seven[1]
    monkeypatch.setattr("anyorder.api.scoring.ROWS_AT_ONCE", 2)
    assert [g.tokens for g in ilm.sample("a", n=7, seed=5)] == seven


def split_at(tokens: list[int], given: list[bytes], order: list[int]) -> list[int]:
    """How many tokens stand in each gap between the given pieces; they must all be there, in order."""
    kept = [t for t, when in zip(tokens, order) if when < 0]
    assert bytes(kept) == b"".join(given)
    sizes, ends, seen = [0] * (len(given) - 1), [sum(map(len, given[: i + 1])) for i in range(len(given))], 0
    for when in order:
        if when < 0:
            seen += 1
        else:
            sizes[ends.index(seen)] += 1
    return sizes


def test_gaps_take_what_is_asked_and_text_is_kept(ilm: LanguageModel) -> None:
    found = set()
    for g in ilm.infill(["ab", GAP(), "c", GAP(4), "de", GAP(2, 5)], n=30, seed=3):
        first, second, third = split_at(g.tokens, [b"ab", b"c", b"de", b""], g.order)
        assert second == 4
        assert 2 <= third <= 5
        found.add((first, third))
    assert min(first for first, _ in found) == 0
    assert len({third for _, third in found}) > 1
    assert len({first for first, _ in found}) > 2


def test_gaps_of_any_length_are_the_models_own_law(ilm: LanguageModel) -> None:
    noise = Noise.of(0).at("sample")
    sample = generate(Insert(), ilm.model, by_hand(ilm, "abc", gaps=[0, 2], length=24, n=5), noise=noise)
    made = ilm.infill([GAP(), "ab", GAP(), "c"], n=5)
    assert [g.tokens for g in made] == [x[v].tolist()[1:] for x, v in zip(sample.canvas.x, sample.canvas.valid)]


def test_neighbouring_gaps_are_one(ilm: LanguageModel, mdm: LanguageModel) -> None:
    for model in (ilm, mdm):
        assert model.infill(["a", GAP(1), GAP(2)])[0].tokens == model.infill(["a", GAP(3)])[0].tokens
    assert {len(g.tokens) for g in ilm.infill(["a", GAP(1), "", GAP(0, 2)], n=80)} == {2, 3, 4}


def test_sampling_options_arrive(ilm: LanguageModel) -> None:
    greedy = ilm.sample(n=2, sampler="insertion:position_temperature=0,stop=0.5", temperature=0.0, length=6)
    assert greedy[0].tokens == greedy[1].tokens
    assert greedy[0].logp == 0.0
    three = ilm.sample(sampler="insertion:at_once=3", length=24, seed=1)[0]
    assert three.nfe < three.num_tokens
    assert [make_sampler(name) for name in ("insertion", "ilm")] == [
        Insert(),
        Insert(position=TokenRule(top_k=1, crossing=False), token=TokenRule(crossing=False), stop=0.9),
    ]
    assert make_sampler(
        "insertion:position_top_k=2,position_top_p=0.5,position_temperature=0.3,stop=0.4,at_once=2", top_p=0.9
    ) == Insert(TokenRule(0.3, 2, 0.5), TokenRule(top_p=0.9), stop=0.4, at_once=2)
    assert make_sampler("ilm", gaps=[Room(1, 2)]).gaps == (Room(1, 2),)
    assert make_sampler("insertion").exact
    assert not make_sampler("ilm").exact


def test_a_score_of_one_token_is_exact(ilm: LanguageModel) -> None:
    """One token has one order of insertion, so that the bound is the likelihood, its end included."""
    score = ilm.score(["a"], draws=8)[0]
    exact = float(insertion_exact(ilm.model, torch.tensor([[97]]), row_id=torch.tensor([0])))
    assert score.nats == pytest.approx(exact, abs=1e-4)
    assert score.stderr < 1e-4
    assert (score.estimator, score.draws, score.nfe, score.windows) == ("insertion_bound", 8, 8, 1)


def test_a_score_bounds_the_exact_value(ilm: LanguageModel) -> None:
    score = ilm.score(["abca"], draws=200)[0]
    exact = float(insertion_exact(ilm.model, torch.tensor([list(b"abca")]), row_id=torch.tensor([0])))
    assert exact < score.nats + 4 * score.stderr < 1.5 * exact


def test_long_texts_are_windows_each_with_its_end(ilm: LanguageModel) -> None:
    text = "abcdefgh" * 6  # 48 bytes: two rows of 24
    whole = ilm.score([text], draws=200)[0]
    part = ilm.score([text[:24]], draws=200)[0]
    assert (whole.windows, whole.num_tokens, whole.nfe) == (2, 48, 400)
    assert abs(whole.nats - 2 * part.nats) < 5 * math.hypot(whole.stderr, 2 * part.stderr)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample("x" * 24), "prompt: its 24 tokens leave nothing to write in the model's length=24"),
        (lambda m: m.sample(length=25), "length=25: must be between 1 and the 24 tokens the model reads$"),
        (lambda m: m.sample(n=0), "n=0"),
        (lambda m: m.sample(sampler="top-prob"), "sampler='top-prob': writes masks, and an insertion model has none"),
        (lambda m: m.sample(sampler="insrtion"), "did you mean 'insertion'"),
        (lambda m: m.sample(sampler="insertion:stp=0.9"), "unknown setting 'stp'; did you mean 'stop'"),
        (lambda m: m.sample(sampler="insertion:stop=2"), "sampler.stop=2.0: must be between 0 and 1"),
        (lambda m: m.sample(sampler="insertion:at_once=1.5"), "at_once=1.5: must be a whole number"),
        (lambda m: m.sample(sampler="insertion:position_top_k=-1"), "sampler.position_top_k=-1: must be >= 0"),
        (lambda m: m.sample(num_steps=4), "sampler.num_steps=4: insertion inserts tokens where it likes"),
        (lambda m: m.sample(block=4), "sampler.block=4: insertion inserts tokens"),
        (lambda m: m.sample(length=40, stride=4), "sampler.stride=4: insertion inserts tokens"),
        (lambda m: m.sample(guidance=1.0), "guidance=1.0: an insertion model was never shown a masked prompt"),
        (lambda m: m.sample(cache="exact"), "cache='exact': an insertion moves and changes"),
        (lambda m: m.infill("a [[]]"), "must be a list"),
        (lambda m: m.infill(["text"]), "no gap"),
        (lambda m: m.infill([]), "no gap"),
        (lambda m: m.infill(["x" * 24, GAP()]), "24 tokens of text, the model writes rows of at most 24"),
        (lambda m: m.infill(["x" * 20, GAP(3), "y", GAP(1, 2)]), "21 tokens of text and at least 4 in gaps, the model"),
        (lambda m: GAP(5, 2), "at most 2 contradicts at least 5"),
        (lambda m: GAP(-1, 2), "at least 0 tokens"),
        (lambda m: GAP(0, 0), "leave it out for none"),
        (lambda m: GAP(most=4), r"write GAP\(0, 4\)"),
        (lambda m: m.answer("a", ["b", "c"]), "answers are ranked"),
        (lambda m: m.score([""]), r"texts\[0\]: is empty"),
    ],
)
def test_mistakes_are_named(ilm: LanguageModel, call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(ilm)  # type: ignore[operator]


def test_a_masked_model_is_told_how_many(mdm: LanguageModel) -> None:
    with pytest.raises(ValueError, match=r"only an insertion model fills a gap of any length; name its tokens"):
        mdm.infill(["a", GAP(), "b"])
    with pytest.raises(ValueError, match="sampler='ilm': inserts tokens, as only an insertion model"):
        mdm.sample(sampler="ilm")
    with pytest.raises(ValueError, match="there is nothing by which to choose a gap's length"):
        mdm.infill([GAP(1, 3)])
    with pytest.raises(ValueError, match="100 combinations of gap lengths, at most 64"):
        mdm.infill(["a", GAP(0, 9), "b", GAP(0, 9)])
    with pytest.raises(ValueError, match="the row has 33 tokens"):
        mdm.infill(["a", GAP(2, 32)])
    one, other = (mdm.infill(["def a", GAP(1, 3), "(x", GAP(0, 2), "y):\n"], seed=s)[0] for s in (0, 0))
    assert one.tokens == other.tokens
    assert one.num_tokens in range(1, 6)


def test_a_causal_model_has_nothing_to_choose_by(tiny_runs: TinyRuns) -> None:
    arm = anyorder.load(tiny_runs.arm)
    with pytest.raises(ValueError, match="an autoregressive model reads nothing by which to choose"):
        arm.infill(["a", GAP(1, 3)])
