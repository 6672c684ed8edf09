"""Writing by inserting and replacing masks: its law by enumeration, its bookkeeping, its limits."""

import dataclasses
import itertools

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab, take_rows
from anyorder.models.config import SIZES
from anyorder.models.flexmdm import FlexTransformer
from anyorder.samplers.base import generate, steps
from anyorder.samplers.flexmdm import InsertMasks
from anyorder.samplers.token import TokenRule
from anyorder.testing.growth import GrowthOracle, RandomGrowth, growth_law
from anyorder.testing.laws import chi_square_p, total_variation
from anyorder.testing.oracle import RandomTable
from anyorder.testing.strings import Strings, Text

NOISE = Noise.of(9)
FIVE = Strings.of({"a": 0.25, "ab": 0.25, "abc": 0.25, "ba": 0.125, "aabb": 0.125})
TABLE = RandomGrowth(3, NOISE.at("table"))


def blank(rows: int, vocab: Vocab, *, room: int = 6, given: Text = ()) -> Canvas:
    """Rows that hold their beginning and the given tokens, masks among them to be written; all is open."""
    x = torch.full((rows, 1 + len(given) + room), vocab.pad_id)
    x[:, : 1 + len(given)] = torch.tensor([vocab.eos_id, *given])
    valid = x != vocab.pad_id
    return Canvas(
        x=x, fixed=valid & (x != vocab.mask_id), window=valid.clone(), segment=valid.long(), row_id=torch.arange(rows)
    )


def texts(canvas: Canvas) -> list[Text]:
    return [tuple(x[keep].tolist()[1:]) for x, keep in zip(canvas.x, canvas.valid)]


def compared(found: list[Text], law: dict[Text, float]) -> tuple[Tensor, Float[Tensor, " S"]]:
    """Counts and chances of the texts of a law."""
    assert set(found) <= law.keys()
    return torch.tensor([found.count(text) for text in law]), torch.tensor(list(law.values()), dtype=torch.float64)


@pytest.mark.parametrize("sampler", [InsertMasks(), InsertMasks(order="sure")], ids=["uniform", "sure"])
def test_a_perfect_model_writes_the_law_in_any_order(sampler: InsertMasks) -> None:
    assert sampler.exact
    sample = generate(sampler, GrowthOracle(FIVE), blank(20_000, FIVE.vocab), noise=NOISE)
    assert chi_square_p(*compared(texts(sample.canvas), dict(FIVE.chance))) > 1e-4
    size = sample.canvas.valid.sum(-1) - 1
    assert torch.equal(sample.nfe, 2 * size + 1)  # one pass for each event, one to end


def test_any_model_writes_its_enumerated_law() -> None:
    sample = generate(InsertMasks(), TABLE, blank(20_000, TABLE.vocab, room=2), noise=NOISE)
    law = growth_law(TABLE, longest=2)
    assert len(law) == 1 + 3 + 9
    assert chi_square_p(*compared(texts(sample.canvas), law)) > 1e-4


def test_leaps_take_fewer_passes_and_leave_the_law() -> None:
    """One letter, 1 to 8 times: what is inserted in one leap does not know of each other, so texts become too long."""
    law = Strings.of({"a" * size: 1 / 8 for size in range(1, 9)})
    passes, lengths, far = [], [], []
    for leap in (0.0, 1.0, 2.0):
        sampler = InsertMasks(leap=leap)
        assert sampler.exact == (leap == 0.0)
        sample = generate(sampler, GrowthOracle(law), blank(4000, law.vocab, room=12), noise=NOISE)
        size = sample.canvas.valid.sum(-1) - 1
        shares = size.bincount(minlength=13).double() / len(size)
        far.append(total_variation(shares, torch.tensor([0.0, *[1 / 8] * 8, *[0.0] * 4], dtype=torch.float64)))
        passes.append(float(sample.nfe.double().mean()))
        lengths.append(float(size.double().mean()))
    assert [p / passes[0] for p in passes] == pytest.approx([1.0, 0.93, 0.84], abs=0.02)
    assert lengths == pytest.approx([4.5, 4.9, 5.7], abs=0.1)
    assert far == pytest.approx([0.02, 0.07, 0.20], abs=0.02)


def test_rows_are_the_same_in_any_batch() -> None:
    canvas = blank(6, TABLE.vocab, given=(2, TABLE.vocab.mask_id))
    for sampler in (InsertMasks(), InsertMasks(order="sure", leap=2.0)):
        together = generate(sampler, TABLE, canvas, noise=NOISE)
        for i in range(6):
            alone = generate(sampler, TABLE, take_rows(canvas, torch.tensor([i])), noise=NOISE)
            assert torch.equal(alone.canvas.x[0], together.canvas.x[i])
            assert torch.equal(alone.order[0], together.order[i])


def test_given_tokens_stay_and_given_masks_are_written() -> None:
    mask = TABLE.vocab.mask_id
    canvas = blank(200, TABLE.vocab, given=(2, mask, mask, 1), room=4)
    window = canvas.window.clone()
    window[:, :2] = False  # nothing before or just after the first token
    sample = generate(InsertMasks(), TABLE, dataclasses.replace(canvas, window=window), noise=NOISE)
    for text, order in zip(texts(sample.canvas), sample.order.tolist()):
        assert text[0] == 2
        assert mask not in text
        assert order[1] == -1
        assert 1 in [v for v, when in zip(text, order[1:]) if when == -1][1:]
    assert bool((sample.canvas.valid.sum(-1) >= 5).all())
    assert not sample.revised.any()


def test_logp_is_of_the_tokens() -> None:
    """In each step: the token's chance where it is replaced, nothing where a mask comes."""
    canvas = blank(8, TABLE.vocab)
    before = canvas
    for step in steps(InsertMasks(), TABLE, canvas, noise=NOISE):
        for b in range(8):
            grew = int(step.canvas.valid[b].sum()) - int(before.valid[b].sum())
            assert int(step.wrote[b].sum()) + grew <= 1
            if step.wrote[b].any():
                place = int(step.wrote[b].nonzero())
                row = take_rows(before, torch.tensor([b]))
                said = TABLE(row, torch.arange(row.x.shape[1])[None] == place)[0, :4].log_softmax(-1)
                assert float(step.logp[b, place]) == pytest.approx(float(said[step.canvas.x[b, place]]), abs=1e-6)
                assert int(before.x[b, place]) == TABLE.vocab.mask_id
        assert not step.logp[~step.wrote].any()
        before = step.canvas


def test_room_is_the_limit() -> None:
    endless = dataclasses.replace(TABLE, noise=NOISE.at("endless"))
    for sampler in (InsertMasks(), InsertMasks(leap=9.0), InsertMasks(TokenRule(temperature=0.0), "sure", 9.0)):
        sample = generate(sampler, endless, blank(100, endless.vocab, room=3), noise=NOISE)
        assert bool((sample.canvas.valid.sum(-1) <= 4).all())
        assert bool((sample.canvas.valid.sum(-1) == 4).any())
        assert not (sample.canvas.x == endless.vocab.mask_id).any()


def test_finished_rows_do_not_change() -> None:
    many = list(steps(InsertMasks(), GrowthOracle(FIVE), blank(32, FIVE.vocab), noise=NOISE))
    for before, after in itertools.pairwise(many):
        done = (before.carry.more == 0) & ~before.canvas.open(FIVE.vocab).any(-1)
        assert torch.equal(before.canvas.x[done], after.canvas.x[done])
        assert not after.nfe[done].any()


def test_a_network_writes() -> None:
    model = FlexTransformer(SIZES["tiny"].model_copy(update={"max_length": 8}), FIVE.vocab).requires_grad_(False)
    model.init_weights(NOISE)
    canvas = blank(16, FIVE.vocab)
    together = generate(InsertMasks(), model, canvas, noise=NOISE)
    assert not (together.canvas.x == FIVE.vocab.mask_id).any()
    assert len(set(texts(together.canvas))) > 5
    alone = generate(InsertMasks(), model, take_rows(canvas, torch.tensor([3])), noise=NOISE)
    assert torch.equal(alone.canvas.x[0], together.canvas.x[3])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="leap=-1"):
        InsertMasks(leap=-1.0)
    with pytest.raises(ValueError, match="order='left'"):
        InsertMasks(order="left")
    table = RandomTable(3, NOISE)
    with pytest.raises(ValueError, match="rows do not grow"):
        generate(
            InsertMasks(), table, Canvas.of(torch.full((1, 4), table.vocab.mask_id), vocab=table.vocab), noise=NOISE
        )
