"""First-hitting sampling with two predictions for a token."""

import dataclasses
import itertools

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.schedule import Linear, OneMinusCosine
from anyorder.core.types import Canvas
from anyorder.samplers.base import generate, steps
from anyorder.samplers.high_order import Corrected, Extrapolated, group, hits
from anyorder.samplers.look import Look
from anyorder.samplers.presets import make_sampler
from anyorder.samplers.unmask import start
from anyorder.testing.contracts import blank, check_exact
from anyorder.testing.oracle import Oracle, RandomTable

NOISE = Noise.of(3)
TABLE = RandomTable(3, Noise.of(4))


def product(length=3):
    one = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], dtype=torch.float64)
    return Oracle(torch.einsum("i,j,k->ijk", *one).flatten(), 3, length)


@pytest.mark.parametrize("sampler", [Extrapolated(2), Corrected(2), Corrected(3)])
def test_a_product_law_survives(sampler):
    check_exact(sampler, product(), product().table, length=3, generate=generate, noise=NOISE, rows=30_000)


def test_one_at_a_time_nothing_is_extrapolated():
    canvas = blank(TABLE.vocab, 20, 6)
    ours = generate(Extrapolated(6), TABLE, canvas, noise=NOISE)
    plain = generate(make_sampler("first-hitting", num_steps=6), TABLE, canvas, noise=NOISE)
    assert torch.equal(ours.canvas.x, plain.canvas.x)
    torch.testing.assert_close(ours.logp, plain.logp, atol=1e-5, rtol=0)  # its laws are float32


@pytest.mark.parametrize("schedule", [Linear(), OneMinusCosine()])
def test_tokens_follow_the_line_through_two_predictions_at_their_own_time(schedule):
    sampler, canvas = Extrapolated(3, schedule=schedule), blank(TABLE.vocab, 40, 9)
    first, second, *_ = steps(sampler, TABLE, canvas, noise=NOISE)
    a, b = first.carry.past, second.carry.past
    look = Look(TABLE, first.canvas, first.carry, NOISE)
    assert torch.equal(group(look, 3), second.wrote)
    hit, end = hits(look, second.wrote, a.log_gamma)
    t = schedule.inverse(1 - hit.exp())
    p_a, p_b = TABLE(canvas, look.open).exp(), TABLE(first.canvas, look.open).exp()  # Lagrange, by the letter
    row = look.open.nonzero()[:, 0]
    at, ta, tb = t[look.open][:, None], a.time[row][:, None], b.time[row][:, None]
    line = (p_b * (at - ta) / (tb - ta) + p_a * (at - tb) / (ta - tb)).clamp(min=0)
    chance = (line / line.sum(-1, keepdim=True)).gather(-1, second.canvas.x[look.open].clamp(max=2)[:, None])[:, 0]
    here = second.wrote[look.open]
    torch.testing.assert_close(second.logp[second.wrote], chance[here].log(), atol=1e-4, rtol=0)
    assert float((p_b - line)[here].abs().max()) > 0.05, "nothing was extrapolated"
    assert torch.equal(b.log_gamma, end)
    assert (b.time[:, None] + 1e-12 >= t.masked_fill(~second.wrote, -1)).all()
    assert (a.time > b.time).all()


def test_hits_follow_their_law_in_groups_as_one_by_one():
    stats = pytest.importorskip("scipy.stats")
    length, rows = 6, 20_000
    canvas = blank(TABLE.vocab, rows, length)
    carry = start(canvas, vocab=TABLE.vocab)
    log_gamma = torch.zeros(rows, dtype=torch.float64)
    for left in (6, 4, 2):
        look = Look(TABLE, canvas, carry, NOISE)
        chosen = group(look, 3)
        hit, log_gamma = hits(look, chosen, log_gamma)
        late = hit.masked_fill(~chosen, torch.inf).amin(-1)
        torch.testing.assert_close(late, log_gamma)
        k = left - 2  # masks after the group
        assert stats.kstest(log_gamma.exp().numpy(), stats.beta(k + 1, length - k).cdf).pvalue > 1e-4
        x = canvas.x.masked_fill(chosen, 0)
        canvas = Canvas(x, canvas.fixed, canvas.window, None, canvas.row_id)
        carry = dataclasses.replace(carry, step=carry.step + 1)


def test_the_order_of_hits_inside_a_group_is_uniform():
    rows = 6000
    look = Look(TABLE, blank(TABLE.vocab, rows, 3), start(blank(TABLE.vocab, rows, 3), vocab=TABLE.vocab), NOISE)
    hit, _ = hits(look, look.open, torch.zeros(rows, dtype=torch.float64))
    share = (hit.argmax(-1)[:, None] == torch.arange(3)).double().mean(0)
    assert (share - 1 / 3).abs().max() < 4 * (2 / 9 / rows) ** 0.5


def test_a_correction_by_the_same_law_changes_nothing():
    taken = list(steps(Corrected(3), product(), blank(product().vocab, 50, 3), noise=NOISE))
    for before, after in itertools.pairwise(taken):
        seen = before.canvas.x != product().vocab.mask_id
        assert torch.equal(after.canvas.x[seen], before.canvas.x[seen])
    assert taken[1].wrote.sum(-1).tolist() == [2] * 50, "the last group is written again, with a new one"


def test_a_corrected_token_follows_the_mean_of_two_laws():
    canvas = blank(TABLE.vocab, 30, 4)
    first, second = steps(Corrected(2), TABLE, canvas, noise=NOISE)
    again = first.wrote
    old, new = TABLE(canvas, again).exp(), TABLE(first.canvas, again).exp()
    chance = ((old + new) / 2).gather(-1, second.canvas.x[again][:, None])[:, 0]
    torch.testing.assert_close(second.logp[again], chance.log(), atol=1e-5, rtol=0)
    assert not torch.equal(second.canvas.x[again], first.canvas.x[again])
    assert second.nfe.tolist() == [1] * 30


def test_bad_settings_are_named():
    for make in (Extrapolated, Corrected):
        with pytest.raises(ValueError, match=r"sampler\.num_steps=0: must be >= 1"):
            make(0)
