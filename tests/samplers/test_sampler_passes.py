"""What a generation pays: equal canvases are evaluated once, and the price does not depend on the batch."""

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.samplers.base import generate, steps
from anyorder.samplers.passes import Passes
from anyorder.samplers.presets import make_sampler
from anyorder.testing.contracts import CountingDenoiser, blank
from anyorder.testing.oracle import RandomTable

NOISE = Noise.of(1)
MODEL = RandomTable(3, Noise.of(2))
M = MODEL.vocab.mask_id


class Watched:
    """A denoiser that notes every canvas row it evaluates."""

    nfe = 1
    vocab = MODEL.vocab

    def __init__(self):
        self.seen = []

    def __call__(self, canvas, at):
        self.seen.append([tuple(x) for x in canvas.x.tolist()])
        return MODEL(canvas, at)


def canvas_of(*rows, ids=None):
    x = torch.tensor(rows)
    return Canvas.of(x, vocab=MODEL.vocab, row_id=None if ids is None else torch.tensor(ids))


def test_equal_rows_share_one_row_of_the_pass_and_get_their_own_positions():
    model = Watched()
    passes = Passes(model)
    canvas = canvas_of([0, M, M], [1, M, M], [0, M, M], [0, M, M])
    at = torch.tensor([[0, 1, 0], [0, 1, 1], [0, 0, 1], [0, 1, 1]]).bool()
    assert torch.equal(passes(canvas, at), MODEL(canvas, at))
    assert sorted(model.seen[0]) == [(0, M, M), (1, M, M)]
    assert passes.settle(canvas.row_id, changed=torch.ones(4).bool()).tolist() == [1, 1, 1, 1]
    assert passes.settle(canvas.row_id, changed=torch.ones(4).bool()).tolist() == [0, 0, 0, 0]


def test_a_prompt_that_spells_a_written_token_is_another_canvas():
    model = Watched()
    canvas = canvas_of([0, M, M], [0, M, M])
    fixed = canvas.fixed.clone()
    fixed[0, 0] = False
    Passes(model)(Canvas(canvas.x, fixed, canvas.window, None, canvas.row_id), canvas.x == M)
    assert len(model.seen[0]) == 2


def test_what_has_not_changed_is_remembered_row_by_row():
    model = Watched()
    passes = Passes(model)
    canvas = canvas_of([0, M, M], [1, M, M], [2, M, M], ids=[70, 10, 40])
    at = canvas.x == M
    first = passes(canvas, at)
    assert passes.settle(canvas.row_id, changed=torch.tensor([False, True, False])).tolist() == [1, 1, 1]
    fewer = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 1, 1]]).bool()
    assert torch.equal(passes(canvas, fewer), first[fewer[at]])
    assert model.seen[1:] == [[(1, M, M)]], "only the row that changed is asked again"
    assert passes.settle(canvas.row_id, changed=torch.zeros(3).bool()).tolist() == [0, 1, 0]
    assert torch.equal(passes(canvas, at), first)  # rows remembered from different passes, in one answer
    assert len(model.seen) == 2


def test_rows_are_charged_by_name_in_any_order_and_company():
    passes = Passes(MODEL)
    canvas = canvas_of([0, M, M], [1, M, M], [2, M, M], ids=[70, 10, 40])
    at = canvas.x == M
    passes(canvas, at)
    passes(canvas_of([1, 1, M], [2, 2, M], ids=[10, 40]), at[:2])
    passes(canvas_of([2, 2, 2], ids=[40]), at[:1])
    ids = torch.tensor([40, 99, 10, 70])
    assert passes.settle(ids, changed=torch.zeros(4).bool()).tolist() == [3, 0, 2, 1]


def test_a_row_that_changed_within_a_step_is_asked_again():
    passes = Passes(MODEL)
    before, after = canvas_of([0, M, M]), canvas_of([1, M, M])
    at = before.x == M
    passes(before, at)
    assert torch.equal(passes(after, at), MODEL(after, at))


def test_more_positions_than_remembered_need_a_pass():
    model = Watched()
    passes = Passes(model)
    canvas = canvas_of([0, M, M])
    passes(canvas, torch.tensor([[False, True, False]]))
    at = canvas.x == M
    assert torch.equal(passes(canvas, at), MODEL(canvas, at))
    assert len(model.seen) == 2


def test_rows_of_which_nothing_is_asked_stay_out():
    model = Watched()
    passes = Passes(model)
    canvas = canvas_of([0, M, M], [1, M, M])
    at = torch.tensor([[False, False, False], [False, True, False]])
    assert torch.equal(passes(canvas, at), MODEL(canvas, at))
    assert model.seen == [[(1, M, M)]]
    assert passes(canvas, torch.zeros_like(at)).shape == (0, 3)
    assert passes.settle(canvas.row_id, changed=torch.zeros(2).bool()).tolist() == [0, 1]


@pytest.mark.parametrize("name", ["p2", "ancestral", "remdm-cap", "margin"])
def test_a_canvas_that_did_not_change_is_not_evaluated_again(name):
    idle = 0
    for row in range(8):
        model = Watched()
        canvas = Canvas.of(torch.full((1, 4), M), vocab=MODEL.vocab, row_id=torch.tensor([row]))
        asked = None
        for step in steps(make_sampler(name, num_steps=40), model, canvas, noise=NOISE):
            assert int(step.nfe) == (len(model.seen) > 0)
            if model.seen:
                assert model.seen != asked
                asked = list(model.seen)
                model.seen.clear()
            if not torch.equal(step.canvas.x, canvas.x):
                asked = None
            idle += torch.equal(step.canvas.x, canvas.x)
            canvas = step.canvas
    assert name == "margin" or idle, "every step changed its row, so nothing was tested"


def test_identical_greedy_rows_cost_the_network_one_row_a_pass():
    model = CountingDenoiser(MODEL)
    sample = generate(make_sampler("top-prob", temperature=0.0), model, blank(MODEL.vocab, 16, 5), noise=NOISE)
    assert sum(model.passes.values()) == model.calls == 5
    assert sample.nfe.tolist() == [5] * 16
