"""Every entry of the dictionaries keeps its contract; a new entry is checked without a new test."""

from dataclasses import replace

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Canvas, take_rows
from anyorder.likelihood.exact import nelbo_enumerated
from anyorder.models.config import SIZES
from anyorder.models.transformer import Transformer
from anyorder.processes import PROCESSES
from anyorder.samplers.base import generate
from anyorder.samplers.presets import PRESETS, make_sampler
from anyorder.testing.contracts import check_denoiser, check_exact, check_process, check_sampler, same
from anyorder.testing.oracle import CausalView, MarkovOracle, Oracle, RandomTable

NOISE = Noise.of(11)
CHAIN = MarkovOracle.random(3, noise=Noise.of(3).at("chain"))
TABLE = RandomTable(3, Noise.of(4).at("table"))
VOCAB = TABLE.vocab
MODELS = {"causal": [CausalView(CHAIN)]}  # samplers made for one kind of model; all others are tried on both of these
SETTINGS = {
    "plain": {},
    "blocks of 3": {"block": 3},
    "blocks of 1": {"block": 1},
    "cool": {"temperature": 0.7, "top_k": 2},
    "greedy": {"temperature": 0.0},
}


TWO_PREDICTIONS = ("first-hitting-extrapolated", "first-hitting-corrected")  # tokens are not of one prediction's law


def varied_canvas(length=8):
    """Seven rows: empty, prompts left, right and between, padding, a window with a hole, and nothing to write."""
    x = torch.full((7, length), VOCAB.mask_id)
    x[1, :3] = torch.tensor([0, 2, 1])
    x[2, length - 2 :] = 1
    x[3, [1, 3]] = torch.tensor([2, 0])
    x[4, length - 3 :] = VOCAB.pad_id
    x[6] = 2
    canvas = Canvas.of(x, vocab=VOCAB, segment=(x != VOCAB.pad_id).long(), row_id=torch.arange(7) * 10**10 + 5)
    window = canvas.window.clone()
    window[5, 2:5] = False
    return Canvas(canvas.x, canvas.fixed, window, canvas.segment, canvas.row_id)


# One preset of each way to go: by the clock, by counts, by order, with taking back, drawing first, left to right.
KINDS_OF_WAYS = ("first-hitting", "ancestral", "top-prob", "remdm-cap", "p2", "low-confidence", "causal")
COMBINED = [
    pytest.param(name, setting, marks=pytest.mark.slow)
    if setting in ("blocks of 1", "greedy") and name not in KINDS_OF_WAYS
    else (name, setting)
    for name in PRESETS
    for setting in SETTINGS
]


@pytest.mark.parametrize(("name", "setting"), COMBINED)
def test_samplers(name, setting):
    values = SETTINGS[setting]
    paces = {"plain": (1, 3), "blocks of 1": (2,)}.get(setting, (3,))  # of one token the second step has nothing left
    for num_steps in paces if PRESETS[name].paced else (None,):
        token = make_sampler(name, **{k: v for k, v in values.items() if k != "block"}).token
        for model in MODELS.get(name, [TABLE, CHAIN] if setting == "plain" else [TABLE]):
            check_sampler(
                lambda n=num_steps: make_sampler(name, num_steps=n, **values),
                model,
                varied_canvas(),
                generate=generate,
                noise=NOISE,
                law=None if name in TWO_PREDICTIONS else token.law,
            )


@pytest.mark.parametrize("block", [None, 2])
@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.exact])
def test_exact_samplers_are_exact(name, block):
    model = MODELS.get(name, [CHAIN])[0]
    sampler = make_sampler(name, block=block)
    assert sampler.exact
    check_exact(sampler, model, CHAIN.joint(4).table, length=4, generate=generate, noise=NOISE, rows=50_000)


@pytest.mark.parametrize(
    ("model", "pads"),
    [(CHAIN, True), (TABLE, True), (CausalView(CHAIN), True), (Oracle.random(3, 4, noise=NOISE), False)],
)
def test_denoisers(model, pads):
    canvas = varied_canvas(8 if pads else 4)
    check_denoiser(model, canvas, atol=1e-9, pads=pads)


def network(causal):
    """A transformer with random weights."""
    model = Transformer(SIZES["tiny"].model_copy(update={"causal": causal}), replace(VOCAB, eos_id=0))
    model.init_weights(NOISE.at("weights"))
    return model


@pytest.mark.parametrize("causal", [False, True])
def test_networks(causal):
    model, canvas = network(causal), varied_canvas()
    check_denoiser(model, canvas)
    for name in ["causal"] if causal else ["first-hitting", "ancestral", "top-prob"]:
        num_steps = 3 if PRESETS[name].paced else None
        sampler = make_sampler(name, block=5, num_steps=num_steps)
        # rows of nothing but masks: rotary positions are all alike, and rounding orders them (docs/methods.md, Ties)
        rows = torch.tensor([1, 2, 3, 6]) if name == "top-prob" else torch.arange(7)
        check_sampler(lambda s=sampler: s, model, take_rows(canvas, rows), generate=generate, noise=NOISE)


def test_rows_that_begin_alike_come_out_as_alone_where_rounding_orders_positions():
    model, sampler = network(causal=False), make_sampler("top-prob", temperature=0.0)
    canvas = Canvas.of(torch.full((5, 8), VOCAB.mask_id), vocab=VOCAB)
    together = generate(sampler, model, canvas, noise=NOISE)
    alone = generate(sampler, model, take_rows(canvas, torch.tensor([3])), noise=NOISE)
    assert same(alone, take_rows(together, torch.tensor([3])), atol=1e-5)


def varied_batch():
    """Three rows: all targets, a prompt on the left, a prompt in between and padding."""
    tokens = torch.tensor([[0, 2, 1, 1], [2, 0, 0, 1], [1, 0, 2, VOCAB.pad_id]])
    target = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [1, 0, 1, 0]]).bool()
    return Batch(tokens, target, (tokens != VOCAB.pad_id).long(), torch.arange(3) + 100)


def mdm_bound(batch):
    """The masked bound of the inconsistent table, row by row without the padding."""
    rows = zip(batch.tokens, batch.target, batch.segment > 0)
    return torch.cat([nelbo_enumerated(TABLE, x[v][None], target=t[v][None]) for x, t, v in rows])


def chain_bound(batch):
    """-log p of the targets under the Markov chain, token by token."""
    x = batch.tokens.clamp(max=CHAIN.vocab.size - 1)
    logp = torch.cat([CHAIN.initial.log()[x[:, :1]], CHAIN.transition.log()[x[:, :-1], x[:, 1:]]], -1)
    return -(logp * batch.target).sum(-1)


LEFTWARDS = {
    "arm": (CausalView(CHAIN), chain_bound)
}  # objectives for left-to-right models; all others bound as MDM does


INSERTING = ("ilm", "it", "flexmdm", "dreamon")  # of texts of any length, for models of their own: in their own tests


@pytest.mark.parametrize("name", [name for name in PROCESSES if name not in INSERTING])
def test_processes(name):
    model, bound = LEFTWARDS.get(name, (TABLE, mdm_bound))
    batch = varied_batch()
    check_process(PROCESSES[name](), model, batch, nelbo=bound(batch), noise=NOISE, draws=8000)


class Biased:
    """An objective that is right up to a factor."""

    paper = "none"

    def loss(self, model, batch, *, noise):
        loss = PROCESSES["mdm"]().loss(model, batch, noise=noise)
        return replace(loss, total=loss.total * 1.1, nelbo=loss.nelbo * 1.1)


class Greedy(Biased):
    """An objective that trains on the prompt too."""

    def loss(self, model, batch, *, noise):
        loss = PROCESSES["mdm"]().loss(model, batch, noise=noise)
        everything = PROCESSES["mdm"]().loss(model, replace(batch, target=batch.segment > 0), noise=noise)
        return replace(loss, total=everything.total)


@pytest.mark.parametrize(("process", "message"), [(Biased, "biased by"), (Greedy, "that is no target")])
def test_the_process_contract_finds_faults(process, message):
    batch = varied_batch()
    with pytest.raises(AssertionError, match=message):
        check_process(process(), TABLE, batch, nelbo=mdm_bound(batch), noise=NOISE, draws=8000)


def test_presets_describe_themselves():
    for preset in PRESETS.values():
        assert preset.paper
        assert preset.about
        assert preset.nfe


class Edits:
    """A sampler that writes into the canvas it was given."""

    paper, exact = "none", False

    def init(self, canvas, *, vocab):
        canvas.x[0, 0] = 0
        return make_sampler("first-hitting").init(canvas, vocab=vocab)

    def step(self, model, canvas, carry, *, noise):
        return make_sampler("first-hitting").step(model, canvas, carry, noise=noise)


class ByBatch(Edits):
    """A sampler whose noise depends on a row's place in the batch."""

    def init(self, canvas, *, vocab):
        return make_sampler("first-hitting").init(canvas, vocab=vocab)

    def step(self, model, canvas, carry, *, noise):
        return make_sampler("first-hitting").step(model, canvas, carry, noise=noise.at(len(canvas.x)))


@pytest.mark.parametrize(
    ("sampler", "message"),
    [(Edits, "edited its input"), (ByBatch, "on their own")],
)
def test_the_sampler_contract_finds_faults(sampler, message):
    with pytest.raises(AssertionError, match=message):
        check_sampler(sampler, TABLE, varied_canvas(), generate=generate, noise=NOISE)


def test_the_sampler_contract_finds_a_wrong_number_of_passes():
    def flattering(sampler, model, canvas, *, noise):
        sample = generate(sampler, model, canvas, noise=noise)
        return replace(sample, nfe=sample.nfe // 2)

    with pytest.raises(AssertionError, match="is not the counted"):
        check_sampler(lambda: make_sampler("first-hitting"), TABLE, varied_canvas(), generate=flattering, noise=NOISE)


def test_the_sampler_contract_finds_wrong_log_probabilities():
    with pytest.raises(AssertionError, match="are not the law's"):
        check_sampler(
            lambda: make_sampler("first-hitting", temperature=0.5),
            TABLE,
            varied_canvas(),
            generate=generate,
            noise=NOISE,
        )


def test_the_exactness_contract_finds_a_wrong_law():
    with pytest.raises(AssertionError, match="do not follow the law"):
        check_exact(
            make_sampler("ancestral", num_steps=2),
            CHAIN,
            CHAIN.joint(3).table,
            length=3,
            generate=generate,
            noise=NOISE,
        )


class RowMixer:
    """A denoiser whose answer depends on how many rows it is asked about."""

    nfe = 1

    def __init__(self, logits, vocab):
        self.logits, self.vocab = logits, vocab

    def __call__(self, canvas, at):
        return self.logits[: len(at)][at] * len(at)


def test_the_denoiser_contract_finds_faults():
    logits = NOISE.normal(torch.arange(7)[:, None, None], torch.arange(8)[:, None], torch.arange(3))
    with pytest.raises(AssertionError, match="depends on its batch"):
        check_denoiser(RowMixer(logits, VOCAB), varied_canvas())
