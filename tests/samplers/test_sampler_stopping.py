"""Writing until an end: the rest is filled at once, the row leaves, nothing else changes."""

import itertools

import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.samplers.base import generate, steps
from anyorder.samplers.presets import make_sampler
from anyorder.samplers.stopping import Stopping
from anyorder.testing.contracts import CountingDenoiser
from anyorder.testing.oracle import RandomTable

MODEL = RandomTable(3, Noise.of(4))
NOISE = Noise.of(9)
FILL = 2


def canvas(rows=6, prompt=(2, 2), length=12):
    x = torch.full((rows, length), MODEL.vocab.mask_id)
    x[:, : len(prompt)] = torch.tensor(prompt)
    return Canvas.of(x, vocab=MODEL.vocab)


def two_zeros(tokens):
    return any(a == b == 0 for a, b in itertools.pairwise(tokens))


def first_end(tokens):
    """Tokens up to the first end, inclusive; all if there is none."""
    ends = [i for i in range(1, len(tokens)) if tokens[i - 1] == tokens[i] == 0]
    return tokens[: ends[0] + 1] if ends else tokens


def test_from_left_to_right_it_is_the_whole_text_cut_at_its_first_end():
    for name in ("causal", "left-to-right"):
        inner = make_sampler(name)
        whole = generate(inner, MODEL, canvas(), noise=NOISE)
        made = generate(Stopping(inner, two_zeros, FILL), MODEL, canvas(), noise=NOISE)
        ended = 0
        for full, got, nfe in zip(whole.canvas.x[:, 2:].tolist(), made.canvas.x[:, 2:].tolist(), made.nfe.tolist()):
            kept = first_end(full)
            assert got == kept + [FILL] * (10 - len(kept))
            assert nfe == len(kept)
            ended += len(kept) < 10
        assert 0 < ended < 6


def test_in_blocks_it_stops_between_blocks_and_saves_passes():
    inner = make_sampler("top-prob", block=3)
    plain, model = CountingDenoiser(MODEL), CountingDenoiser(MODEL)
    whole = generate(inner, plain, canvas(), noise=NOISE)
    made = generate(Stopping(inner, two_zeros, FILL), model, canvas(), noise=NOISE)
    assert int(made.nfe.sum()) < int(whole.nfe.sum())
    for full, got in zip(whole.canvas.x[:, 2:].tolist(), made.canvas.x[:, 2:].tolist()):
        kept = first_end(full)
        assert got[: len(kept)] == kept
        if len(kept) == 10:
            assert got == full


def test_the_prompt_does_not_end_a_row_and_a_gap_hides_what_follows():
    asked = []

    def never(tokens):
        asked.append(list(tokens))
        return False

    prompt = (0, 0)
    for step in steps(Stopping(make_sampler("first-hitting"), never, FILL), MODEL, canvas(1, prompt), noise=NOISE):
        x = step.canvas.x[0, 2:].tolist()
        gap = x.index(MODEL.vocab.mask_id) if MODEL.vocab.mask_id in x else len(x)
        assert asked[-1] == x[:gap]
    made = generate(Stopping(make_sampler("causal"), two_zeros, FILL), MODEL, canvas(6, prompt), noise=NOISE)
    plain = generate(make_sampler("causal"), MODEL, canvas(6, prompt), noise=NOISE)
    assert [first_end(r) for r in made.canvas.x[:, 2:].tolist()] == [
        first_end(r) for r in plain.canvas.x[:, 2:].tolist()
    ]
    assert (made.nfe > 0).all()


def test_a_sampler_that_may_go_back_does_not_after_the_end():
    sampler = Stopping(make_sampler("llada-edit"), lambda tokens: len(tokens) >= 4, FILL)
    ended = torch.zeros(6, dtype=torch.bool)
    for step in steps(sampler, MODEL, canvas(), noise=NOISE):
        assert not (step.nfe > 0)[ended].any()
        assert not step.wrote[ended].any()
        ended = ended | ~step.canvas.open(MODEL.vocab).any(-1)
    assert ended.all()
    assert not sampler.exact
