"""DreamOn's corruption: what is merged, what is deleted, how often; and its loss."""

import itertools
import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Vocab
from anyorder.models.config import SIZES
from anyorder.models.transformer import Transformer
from anyorder.processes.dreamon import DreamOn, Resized, length_states
from anyorder.processes.masked import MaskedDiffusion
from anyorder.testing.laws import chi_square_p

NOISE = Noise.of(12)
VOCAB = Vocab(size=8, mask_id=8, pad_id=9, eos_id=5)  # 6 is [expand], 7 [delete]
EXPAND, DELETE = 6, 7


def batch_of(row: list[int], *, rows: int = 1, prompt: int = 0) -> Batch:
    tokens = torch.tensor(row).expand(rows, -1).contiguous()
    target = (torch.arange(len(row)) >= prompt).expand(rows, -1).contiguous()
    return Batch(tokens, target, None, torch.arange(rows))


def labels(resized: Resized) -> list[list[int]]:
    """Each row with what stands behind its masks, masked ids being negative."""
    shown = torch.where(resized.masked, -resized.label, resized.label)
    return [row[keep].tolist() for row, keep in zip(shown, resized.canvas.valid)]


def undone(row: list[int], text: list[int]) -> list[list[int]]:
    """The texts that a row may come from: deletions taken out, [expand] any run of the text of two tokens or more."""
    runs = [text[i:j] for i in range(len(text)) for j in range(i + 2, len(text) + 1)]
    parts = [runs if t == -EXPAND else [[abs(t)]] for t in row if t != -DELETE]
    return [list(itertools.chain(*choice)) for choice in itertools.product(*parts)]


def test_every_row_comes_from_its_text() -> None:
    text = [1, 2, 3, 4, 1, 2]
    resized = DreamOn(deletions=3).corrupt(batch_of(text, rows=500, prompt=1), vocab=VOCAB, noise=NOISE)
    for row, x in zip(labels(resized), resized.canvas.x.tolist()):
        assert text in undone(row, text)
        assert row[0] == 1  # prompt
        assert not {EXPAND, DELETE} & set(row)  # they are always masked
        ends = row.count(-DELETE)
        assert row[len(row) - ends :] == [-DELETE] * ends
        assert x[: len(row)] == [t if t > 0 else VOCAB.mask_id for t in row]
        assert set(x[len(row) :]) <= {VOCAB.pad_id}
    assert not resized.canvas.fixed[resized.masked].any()


@pytest.mark.parametrize(("fade", "chance"), [(0.0, 0.3), (1.0, 0.0)])
def test_masks_merge_into_the_one_before(fade: float, chance: float) -> None:
    """Of three masks in a row the second and the third each merge with the chance, which fades where all is masked."""
    process = DreamOn(merge=0.3, fade=fade, deletions=0, draw="independent")
    resized = process.corrupt(batch_of([1, 2, 3], rows=60_000), vocab=VOCAB, noise=NOISE)
    seen = [row for row in labels(resized) if max(row) < 0]
    law = {
        (-1, -2, -3): (1 - chance) ** 2,
        (-EXPAND, -3): chance * (1 - chance),
        (-1, -EXPAND): chance * (1 - chance),
        (-EXPAND,): chance**2,
    }
    found = [tuple(row) for row in seen]
    counts = torch.tensor([found.count(row) for row in law])
    assert int(counts.sum()) == len(seen) > 10_000
    assert chi_square_p(counts, torch.tensor(list(law.values()), dtype=torch.float64)) > 1e-4


def test_how_many_are_masked_is_uniform() -> None:
    """t uniform and each target masked with chance t: the number of masks is uniform on 0..L."""
    process = DreamOn(merge=0.0, deletions=0, draw="independent")
    resized = process.corrupt(batch_of([1, 2, 3], rows=20_000), vocab=VOCAB, noise=NOISE)
    counts = resized.masked.sum(-1).bincount(minlength=4)
    assert chi_square_p(counts, torch.full((4,), 0.25, dtype=torch.float64)) > 1e-4


def test_deletions_are_uniform() -> None:
    resized = DreamOn(deletions=3).corrupt(batch_of([1, 2, 3], rows=20_000), vocab=VOCAB, noise=NOISE)
    counts = resized.deleted.sum(-1).bincount(minlength=4)
    assert chi_square_p(counts, torch.full((4,), 0.25, dtype=torch.float64)) > 1e-4


def test_documents_of_a_row_do_not_merge() -> None:
    tokens = torch.tensor([[1, 2, 3, 4, 9]])
    segment = torch.tensor([[1, 1, 2, 2, 0]])
    for i in range(50):
        batch = Batch(tokens, segment > 0, segment, torch.tensor([i]))
        resized = DreamOn(merge=1.0, fade=0.0, deletions=2).corrupt(batch, vocab=VOCAB, noise=NOISE)
        row, own = labels(resized)[0], resized.canvas.segment
        assert own is not None
        for t, s in zip(row, own[0].tolist()):
            assert s == (1 if abs(t) in (1, 2) else 2) or t in (-EXPAND, -DELETE)
        if max(row) < 0:
            assert [t for t in row if t != -DELETE] == [-EXPAND, -EXPAND]


def test_uniform_logits_cost_log_v() -> None:
    model = Transformer(SIZES["tiny"].model_copy(update={"max_length": 32}), VOCAB)
    model.init_weights(NOISE)
    with torch.no_grad():
        assert model.head is not None
        model.head.weight.zero_()
    batch = batch_of([1, 2, 3, 4], rows=16)
    process = DreamOn(deletions=2, group=16)
    loss = process.loss(model, batch, noise=NOISE)
    resized = process.corrupt(batch, vocab=VOCAB, noise=NOISE)
    text = (resized.masked & ~resized.deleted).sum(-1)
    want = (1 - resized.t) * (text + resized.deleted.any(-1)) * math.log(8)
    assert torch.allclose(loss.nelbo, want.float(), atol=1e-4)
    assert loss.num_tokens == 64
    loss.total.backward()  # type: ignore[no-untyped-call]


def test_without_merging_and_deleting_it_is_masked_diffusion_with_another_weight() -> None:
    model = Transformer(SIZES["tiny"].model_copy(update={"max_length": 32}), VOCAB).requires_grad_(False)
    model.init_weights(NOISE)
    batch = batch_of([1, 2, 3, 4, 5], rows=8, prompt=1)
    plain = MaskedDiffusion(form="time").loss(model, batch, noise=NOISE)
    same = DreamOn(merge=0.0, deletions=0).loss(model, batch, noise=NOISE)
    t = MaskedDiffusion().levels(batch.sample_id, noise=NOISE).float()
    assert torch.allclose(plain.nelbo * t * (1 - t), same.nelbo, atol=1e-4)


def test_refusals() -> None:
    assert length_states(VOCAB) == (6, 7)
    with pytest.raises(ValueError, match="two ids more"):
        length_states(Vocab(size=6, mask_id=6, pad_id=7, eos_id=5))
    with pytest.raises(ValueError, match="no text"):
        DreamOn().corrupt(batch_of([1, 6]), vocab=VOCAB, noise=NOISE)
    with pytest.raises(ValueError, match="merge=2"):
        DreamOn(merge=2.0)
    with pytest.raises(ValueError, match="deletions=-1"):
        DreamOn(deletions=-1)
