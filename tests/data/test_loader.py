from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Vocab
from anyorder.data.loader import Loader, in_order, permutation
from anyorder.data.pack import packed_rows
from anyorder.data.rows import RowSource, TaskRows
from anyorder.data.shards import Shards, write_shards
from anyorder.data.tokenizer import ByteTokenizer

BYTES = ByteTokenizer()
NOISE = Noise.of(7)


def numbered(num_rows, length=3):
    """Row r holds r everywhere."""
    tokens = torch.arange(num_rows)[:, None].expand(-1, length)
    target = torch.arange(length).expand(num_rows, -1) > 0
    return TaskRows(tokens=tokens, target=target, vocab=Vocab(num_rows + 1, num_rows + 1, num_rows + 2, num_rows))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader") / "s"
    documents = [BYTES.encode(f"{i} " * (1 + i % 7)) for i in range(40)]
    write_shards(folder, documents, tokenizer=BYTES, corpus="made", corpus_sha256="", tokens_per_shard=100)
    return Shards.open(folder)


def source_of(text, packing):
    return packed_rows(text, vocab=BYTES.vocab, length=16, packing=packing)


def joined(batches):
    def field(name):
        values = [getattr(b, name) for b in batches]
        assert len({v is None for v in values}) == 1  # all parts of a batch look alike
        return None if values[0] is None else torch.cat(values)

    return tuple(field(name) for name in ("tokens", "target", "segment", "sample_id"))


@pytest.mark.parametrize(("num_rows", "rows"), [(10, 5), (10, 4), (7, 3), (3, 8), (1, 1)])
def test_every_epoch_has_each_row_once(num_rows, rows):
    loader = Loader(numbered(num_rows), rows=rows, noise=NOISE)
    seen = torch.cat([loader.batch_at(step).tokens[:, 0] for step in range(5 * num_rows)])
    for epoch in range(5 * rows):
        assert Counter(seen[epoch * num_rows : (epoch + 1) * num_rows].tolist()) == Counter(range(num_rows))


def test_visits_have_names_of_their_own_and_epochs_orders_of_their_own():
    loader = Loader(numbered(30), rows=6, noise=NOISE)
    batches = [loader.batch_at(step) for step in range(10)]
    assert torch.cat([b.sample_id for b in batches]).tolist() == list(range(60))
    orders = torch.cat([b.tokens[:, 0] for b in batches]).view(2, 30)
    assert not torch.equal(orders[0], orders[1])
    other = Loader(numbered(30), rows=6, noise=Noise.of(8)).batch_at(0)
    assert not torch.equal(other.tokens, batches[0].tokens)
    target = batches[0].target
    assert target[:, 1:].all()
    assert not target[:, 0].any()
    assert batches[0].segment is None


def test_orders_are_uniform():
    counts = Counter(tuple(permutation(NOISE, epoch, 3).tolist()) for epoch in range(3000))
    assert len(counts) == 6
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize("packing", ["stream", "documents"])
@pytest.mark.parametrize("random_length", [0.0, 0.5, 1.0])
def test_a_batch_does_not_depend_on_ranks_micro_batches_or_calls_before(text, packing, random_length):
    source = source_of(text, packing)
    loader = Loader(source, rows=12, noise=NOISE, random_length=random_length)
    for step in (5, 0, 1, 2, 3, 4, 10**6):
        whole = joined([loader.batch_at(step)])
        for world, num_micro in ((1, 3), (4, 1), (2, 2), (3, 4), (5, 2)):
            fresh = Loader(source, rows=12, noise=NOISE, random_length=random_length)
            parts = [
                fresh.batch_at(step, rank=rank, world=world, micro=micro, num_micro=num_micro)
                for rank in range(world)
                for micro in range(num_micro)
            ]
            assert max(len(p.tokens) for p in parts) - min(len(p.tokens) for p in parts) <= 1
            for a, b in zip(whole, joined(parts), strict=True):
                assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("packing", ["stream", "documents"])
@pytest.mark.parametrize("random_length", [0.0, 1.0])
def test_an_epoch_trains_on_every_token_exactly_once(text, packing, random_length):
    source = source_of(text, packing)
    loader = Loader(source, rows=source.num_rows, noise=NOISE, random_length=random_length)
    for epoch in range(2):
        batch = loader.batch_at(epoch)
        expected = np.bincount(text.read(0, length=text.num_tokens), minlength=257)
        assert np.array_equal(np.bincount(batch.tokens[batch.target].numpy(), minlength=257), expected)
        if batch.segment is not None:
            assert torch.equal(batch.segment > 0, batch.target)


def test_random_lengths_come_in_their_share_of_batches(text):
    source = source_of(text, "stream")

    def several(step):
        segment = Loader(source, rows=4, noise=NOISE, random_length=0.25).batch_at(step).segment
        return segment is not None and int(segment.max()) > 1

    cut = sum(several(step) for step in range(400))
    assert scipy.stats.binomtest(cut, 400, 0.25).pvalue > 1e-4
    pieces = Loader(source, rows=4, noise=NOISE, random_length=1.0).batch_at(0).segment
    assert len({tuple(row) for row in pieces.tolist()}) > 1  # rows are cut each for itself


def test_task_rows_with_padding_get_segments():
    vocab = Vocab(size=3, mask_id=3, pad_id=4, eos_id=2)
    rows = TaskRows(
        tokens=torch.tensor([[0, 1, 4], [0, 1, 1]]), target=torch.tensor([[False, True, True]] * 2), vocab=vocab
    )
    assert isinstance(rows, RowSource)
    block = rows.take(torch.tensor([0, 1]))
    assert block.segment.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert block.target.tolist() == [[False, True, False], [False, True, True]]
    assert rows.take(torch.tensor([1])).segment is None


def test_validation_reads_rows_in_order():
    batches = list(in_order(numbered(7), rows=3))
    assert [b.sample_id.tolist() for b in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert torch.equal(torch.cat([b.tokens[:, 0] for b in batches]), torch.arange(7))
    assert [b.sample_id.tolist() for b in in_order(numbered(7), rows=2, limit=3)] == [[0, 2], [4]]
    assert sum(len(b.tokens) for b in in_order(numbered(7), rows=5, limit=100)) == 7


def test_errors():
    loader = Loader(numbered(5), rows=4, noise=NOISE)
    with pytest.raises(ValueError, match=r"^rows=0: a batch must have >= 1 rows$"):
        Loader(numbered(5), rows=0, noise=NOISE)
    with pytest.raises(ValueError, match=r"^data.random_length=1.5: must be a share of batches between 0 and 1$"):
        Loader(numbered(5), rows=1, noise=NOISE, random_length=1.5)
    with pytest.raises(ValueError, match=r"^step=-1: must be >= 0$"):
        loader.batch_at(-1)
    with pytest.raises(ValueError, match=r"^rank=2 micro=0: must be below world=2 and num_micro=1$"):
        loader.batch_at(0, rank=2, world=2)
    with pytest.raises(
        ValueError, match=r"^rows=4: fewer than 5 ranks x 1 micro-batches; raise rows or lower num_micro$"
    ):
        loader.batch_at(0, world=5)
    with pytest.raises(ValueError, match=r"^rows=2 limit=0: both must be >= 1$"):
        list(in_order(numbered(5), rows=2, limit=0))
