"""Names, bad values, and the two samplers that stand around or beside Unmask."""

from dataclasses import replace

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.schedule import Linear
from anyorder.core.types import Canvas, Vocab, take_rows
from anyorder.samplers.adaptive import Threshold
from anyorder.samplers.base import generate
from anyorder.samplers.blockwise import Blockwise
from anyorder.samplers.causal import Causal
from anyorder.samplers.count import Binomial, One, PerStep, expected_passes
from anyorder.samplers.position import Confidence, LeftToRight
from anyorder.samplers.presets import PRESETS, make_sampler
from anyorder.samplers.remasking import Cap, During, Plateau
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask
from anyorder.testing.contracts import CountingDenoiser, blank, same
from anyorder.testing.oracle import CausalView, MarkovOracle, RandomTable

NOISE = Noise.of(7)
MODEL = RandomTable(3, Noise.of(2))
M = MODEL.vocab.mask_id


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "ancestrall"}, "sampler='ancestrall': unknown; did you mean 'ancestral'"),
        ({"name": "zzz"}, "sampler='zzz': unknown; did you mean"),
        ({"name": "threshold:tau=1.5"}, r"sampler.tau=1.5: must be in \[0, 1\]"),
        ({"name": "threshold:tou=0.5"}, "sampler='threshold:tou=0.5': unknown setting 'tou'; known: tau"),
        ({"name": "threshold:tau=high"}, "tau='high' is no number; give one"),
        ({"name": "ancestral:tau=1"}, "unknown setting 'tau'; it has none"),
        ({"name": "ancestral", "num_steps": -3}, "sampler.num_steps=-3: must be >= 1"),
        ({"name": "ancestral", "num_steps": 0}, "sampler.num_steps=0: must be >= 1"),
        ({"name": "first-hitting", "num_steps": -3}, "sampler.num_steps=-3: must be >= 1"),
        ({"name": "left-to-right", "num_steps": 8}, "left-to-right writes one token per step"),
        ({"name": "causal", "temperature": -1.0}, "sampler.temperature=-1.0: must be >= 0"),
        ({"name": "causal", "temperature": float("nan")}, "sampler.temperature=nan: must be >= 0"),
        ({"name": "causal", "top_k": -1}, "sampler.top_k=-1: must be >= 0"),
        ({"name": "causal", "top_p": 0.0}, r"sampler.top_p=0.0: must be in \(0, 1\]"),
        ({"name": "causal", "top_p": 1.5}, r"sampler.top_p=1.5: must be in \(0, 1\]"),
        ({"name": "ancestral", "block": 0}, "sampler.block=0: must be >= 1"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        make_sampler(**values)


def test_bad_rules_are_named():
    with pytest.raises(ValueError, match=r"sampler.k=0: must be >= 1"):
        PerStep(0)
    with pytest.raises(ValueError, match=r"sampler\.score='surest': must be one of prob"):
        Confidence("surest")


def test_names_build_what_they_say():
    assert make_sampler("first-hitting") == Unmask()
    assert make_sampler("ancestral", num_steps=9) == Unmask(Binomial(9))
    assert make_sampler("top-prob") == Unmask(One(), Confidence())
    assert make_sampler("top-prob", num_steps=9) == Unmask(Binomial(9), Confidence())
    assert make_sampler("causal", temperature=0.5, top_k=3) == Causal(TokenRule(0.5, 3))
    assert make_sampler("left-to-right", top_p=0.9, block=4) == Blockwise(
        Unmask(One(), LeftToRight(), TokenRule(top_p=0.9)), 4
    )


FLAGS = ("crossing", "logits_eos_inf", "confidence_eos_eot_inf")  # settings that are 0 (no) or 1 (yes)


def test_settings_in_a_name_take_the_place_of_the_published_ones():
    assert make_sampler("threshold:tau=0.8") == Unmask(Threshold(0.8), Confidence())
    assert make_sampler("threshold") == make_sampler("threshold:tau=0.9")
    assert make_sampler("dream-entropy:alg_temp=0.3", num_steps=4).position == Confidence(
        "entropy", 0.3, linear=True, shaped=True
    )
    loop = make_sampler("remdm-loop:eta=0.1,level=0.8")
    assert loop.revise.path.sigma == During(Cap(0.1), 0.55, 0.05)
    assert loop.revise.path.schedule == Plateau(0.55, 0.05, 0.8)
    for name, preset in PRESETS.items():  # every setting is used
        for key, value in preset.settings.items():
            other = 1 - value if key in FLAGS else value + 1 if key == "eot" else value * 0.95 + 0.013
            base = f"{name}:confidence_eos_eot_inf=1" if key == "eot" else name  # which alone reads it
            changed = f"{base}{',' if ':' in base else ':'}{key}={other:g}"
            assert make_sampler(changed) != make_sampler(base), changed


def test_exactness_is_derived_from_the_rules():
    assert {name for name, preset in PRESETS.items() if preset.exact} == {
        "first-hitting",
        "llada-random",
        "top-prob",
        "margin",
        "entropy",
        "highest-entropy",
        "dream-margin",
        "dream-entropy",
        "left-to-right",
        "causal",
        "bd3-lm",
    }
    assert not make_sampler("first-hitting", temperature=0.9).exact
    assert not make_sampler("causal", top_p=0.9).exact
    assert not Unmask(PerStep(2)).exact
    assert Unmask(PerStep(1)).exact
    assert Blockwise(Unmask(), 3).exact
    assert not Causal(stop_at_eos=True).exact


def test_blocks_follow_the_row_not_the_columns():
    x = torch.full((60, 8), M)
    x[20:40, :3] = 0  # a prompt at the left
    x[40:, 1] = x[40:, 4] = 0  # prompts in between
    order = generate(Blockwise(Unmask(), 3), MODEL, Canvas.of(x, vocab=MODEL.vocab), noise=NOISE).order
    for row in order:
        written = row[row >= 0]
        blocks = [set(part.tolist()) for part in written.split(3)]
        assert blocks == [set(range(i, min(i + 3, len(written)))) for i in range(0, len(written), 3)]
    assert any(part.tolist() != sorted(part.tolist()) for row in order for part in row[row >= 0].split(3))


def test_the_inner_sampler_starts_anew_in_each_block():
    model, rows = CountingDenoiser(MODEL), 2000
    once = generate(Blockwise(Unmask(Binomial(1)), 3), model, blank(MODEL.vocab, 2, 8), noise=NOISE)
    assert once.order.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2]] * 2
    assert once.nfe.tolist() == [3, 3]
    nfe = generate(Blockwise(Unmask(Binomial(4)), 3), MODEL, blank(MODEL.vocab, rows, 6), noise=NOISE).nfe.double()
    assert abs(nfe.mean() - 2 * expected_passes(Linear(), 4, 3)) < 4 * nfe.std() / rows**0.5


def test_a_row_knows_how_much_it_had_to_write():
    x = torch.tensor([[M, 0, M, M], [M, M, M, M]])
    canvas = Canvas.of(x, vocab=MODEL.vocab)
    canvas = replace(canvas, window=torch.tensor([[True, True, True, False], [True] * 4]))
    for sampler in (Unmask(), Causal()):
        assert sampler.init(canvas, vocab=MODEL.vocab).start.tolist() == [2, 4]
    carry = Blockwise(Unmask(), 3).init(canvas, vocab=MODEL.vocab)
    assert (carry.start.tolist(), carry.inner.start.tolist()) == ([2, 4], [2, 3])


class Widths:
    """A left-to-right model that notes how many columns it is given."""

    nfe = 1

    def __init__(self, inner):
        self.inner, self.vocab, self.columns = inner, inner.vocab, []

    def __call__(self, canvas, at):
        self.columns.append(canvas.x.shape[1])
        assert canvas.segment is None, "rows at one position need no padding"
        return self.inner(canvas, at)


def test_causal_reads_the_prefix_only():
    arm = Widths(CausalView(MarkovOracle.random(3, noise=NOISE)))
    x = torch.full((2, 6), M)
    x[:, [0, 3]] = 1
    generate(Causal(), arm, Canvas.of(x, vocab=arm.vocab), noise=NOISE)
    assert arm.columns == [2, 3, 5, 6]


def test_causal_rows_do_not_see_how_far_the_others_are():
    x = torch.full((4, 6), M)
    x[1, :3] = torch.tensor([1, 0, 2])
    x[2, 3:] = 1
    canvas = Canvas.of(x, vocab=MODEL.vocab)
    together = generate(Causal(), MODEL, canvas, noise=NOISE)  # a model that does look right
    for row in range(4):
        alone = generate(Causal(), MODEL, take_rows(canvas, torch.tensor([row])), noise=NOISE)
        assert same(alone, take_rows(together, torch.tensor([row])))


def markov_with_eos():
    model = MarkovOracle.random(3, noise=NOISE)

    class Ending(Widths):
        def __call__(self, canvas, at):
            return self.inner(canvas, at)

    ending = Ending(CausalView(model))
    ending.vocab = replace(model.vocab, eos_id=0)
    return ending


def test_after_the_end_of_a_document_the_row_is_filled_for_free():
    model = markov_with_eos()
    counter = CountingDenoiser(model)
    x = torch.full((64, 10), M)
    x[:, 7] = 2
    plain = generate(Causal(), model, Canvas.of(x, vocab=model.vocab), noise=NOISE)
    sample = generate(Causal(stop_at_eos=True), counter, Canvas.of(x, vocab=model.vocab), noise=NOISE)
    assert int(sample.nfe.sum()) >= sum(counter.passes.values())
    assert int(sample.nfe.max()) == counter.calls
    ended = 0
    for row in range(64):
        ends = ((plain.canvas.x[row] == 0) & (plain.order[row] >= 0)).nonzero()
        end = int(ends[0]) if len(ends) else 9
        ended += end < 9
        assert torch.equal(sample.canvas.x[row, : end + 1], plain.canvas.x[row, : end + 1])
        rest = [j for j in range(end + 1, 10) if j != 7]
        assert (sample.canvas.x[row, rest] == 0).all()
        assert (sample.token_logp[row, rest] == 0).all()
        assert (sample.order[row, rest] == sample.order[row, end]).all()
        assert sample.canvas.x[row, 7] == 2
        assert int(sample.nfe[row]) == int(plain.order[row, end]) + 1
    assert ended > 10


def test_stopping_needs_an_end_token():
    model = CausalView(MarkovOracle.random(3, noise=NOISE))
    assert model.vocab == Vocab(3, 3, 4)
    with pytest.raises(ValueError, match="stop_at_eos=True: the vocabulary has no end-of-document token"):
        generate(Causal(stop_at_eos=True), model, blank(model.vocab, 1, 3), noise=NOISE)
