from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder.core.noise import Noise
from anyorder.data.pack import document_plan, packed_rows, random_pieces, refine, stream_plan
from anyorder.data.rows import RowSource
from anyorder.data.shards import Shards, write_shards
from anyorder.data.tokenizer import ByteTokenizer

BYTES = ByteTokenizer()
PAD, EOS = BYTES.vocab.pad_id, 256


def made(folder, texts, **given):
    documents = [BYTES.encode(t) for t in texts]
    write_shards(folder / "s", documents, tokenizer=BYTES, corpus="made", corpus_sha256="", tokens_per_shard=7, **given)
    return Shards.open(folder / "s")


def rows_of(shards, length, packing, **given):
    return packed_rows(shards, vocab=BYTES.vocab, length=length, packing=packing, **given)


def covered(plan):
    return Counter(i for s, n in zip(plan.start.tolist(), plan.size.tolist()) for i in range(s, s + n))


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=25)


@given(LENGTHS, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_every_token_is_in_exactly_one_row(lengths, length):
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    once = Counter(range(sum(lengths)))
    for plan in (stream_plan(int(starts[-1]), length), document_plan(starts, length)):
        assert covered(plan) == once
        filled = np.add.reduceat(plan.size, plan.row[:-1])
        assert filled.max() <= length
        assert len(filled) == plan.num_rows
    document = np.searchsorted(starts, plan.start, side="right") - 1  # of the document plan: no piece crosses a border
    assert (plan.start + plan.size <= starts[document + 1]).all()


@given(st.lists(st.integers(1, 10), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_best_fit_against_a_plain_search(lengths):
    """The same packing by trying every row for every piece."""
    starts = np.cumsum([0, *lengths])
    room, rows = [], []
    for size, start in sorted(((n, int(s)) for n, s in zip(lengths, starts)), key=lambda p: (-p[0], p[1])):
        fits = [r for r in range(len(room)) if room[r] >= size]
        best = min(fits, key=lambda r: (room[r], r)) if fits else len(room)
        if best == len(room):
            room.append(10)
            rows.append([])
        room[best] -= size
        rows[best].append(start)
    plan = document_plan(starts.astype(np.int64), 10)
    assert [plan.start[a:b].tolist() for a, b in zip(plan.row, plan.row[1:])] == rows


def test_stream_rows_are_the_stream(tmp_path):
    source = rows_of(made(tmp_path, ["abcdef", "gh", "ijklm"]), 4, "stream")
    assert isinstance(source, RowSource)
    stream = [*b"abcdef", EOS, *b"gh", EOS, *b"ijklm", EOS]
    assert source.num_rows == 4
    block = source.take(torch.arange(4))
    assert block.tokens.flatten().tolist() == stream
    assert block.segment is None
    assert bool(block.target.all())
    assert source.take(torch.tensor([2, 0])).tokens.tolist() == [stream[8:12], stream[:4]]


def test_a_last_short_row_is_padded_and_only_it_needs_segments(tmp_path):
    source = rows_of(made(tmp_path, ["abcd", "e"]), 4, "stream")
    block = source.take(torch.tensor([1]))
    assert block.tokens.tolist() == [[*b"e", EOS, PAD, PAD]] or block.tokens.tolist() == [[EOS, *b"e", EOS, PAD]]
    assert block.segment.tolist() == [[1, 1, 1, 0]]
    assert block.target.tolist() == [[True, True, True, False]]
    assert source.take(torch.tensor([0])).segment is None
    assert source.segmented(torch.tensor([0, 1]))
    assert not source.segmented(torch.tensor([0]))


def test_document_rows_number_their_documents(tmp_path):
    source = rows_of(made(tmp_path, ["ab", "c", "0123456789", "d"]), 6, "documents")  # with EOS: 3, 2, 11 -> 6 + 5, 2
    block = source.take(torch.arange(source.num_rows))
    assert block.tokens.tolist() == [
        [*b"012345"],
        [*b"6789", EOS, PAD],
        [*b"ab", EOS, *b"c", EOS, PAD],
        [*b"d", EOS, PAD, PAD, PAD, PAD],
    ]
    assert block.segment.tolist() == [[1] * 6, [1] * 5 + [0], [1, 1, 1, 2, 2, 0], [1, 1, 0, 0, 0, 0]]
    assert torch.equal(block.target, block.segment > 0)
    assert source.take(torch.tensor([0])).segment is None


def test_text_shorter_than_a_row(tmp_path):
    shards = made(tmp_path, ["abc"])
    for packing in ("stream", "documents"):
        with pytest.raises(ValueError) as error:
            rows_of(shards, 5, packing)
        assert str(error.value) == (
            "data.length=5: the text has only 4 tokens; lower data.length to 4 or less, or give more text"
        )
        assert rows_of(shards, 5, packing, may_be_short=True).take(torch.tensor([0])).segment.tolist() == [
            [1, 1, 1, 1, 0]
        ]
        assert rows_of(shards, 4, packing).num_rows == 1


def piece_sizes(segment):
    return [np.bincount(row)[1:].tolist() for row in segment.numpy()]


def test_random_pieces_fill_every_row_and_are_its_own():
    noise, ids = Noise.of(3), torch.tensor([5, 0, 5, 10**12])
    pieces = random_pieces(noise, ids, length=40)
    assert torch.equal(pieces[0], pieces[2])
    assert torch.equal(pieces[1], random_pieces(noise, ids[1:2], length=40)[0])
    assert not torch.equal(pieces[0], pieces[1])
    assert bool((pieces[:, 0] == 1).all())
    assert bool(((pieces.diff(dim=-1) == 0) | (pieces.diff(dim=-1) == 1)).all())
    assert bool((random_pieces(noise, ids, length=1) == 1).all())


def test_random_pieces_have_uniform_lengths_until_the_row_is_full():
    """Against the recursion in plain Python: the first piece is U{1..L}; the second is uniform too, cut at the end."""
    length, n = 6, 6000
    sizes = piece_sizes(random_pieces(Noise.of(0), torch.arange(n), length=length))
    assert all(sum(row) == length for row in sizes)
    first = [row[0] for row in sizes]
    assert scipy.stats.chisquare([first.count(k) for k in range(1, length + 1)]).pvalue > 1e-4
    second = [row[1] for row in sizes if row[0] == 2]  # 4 left: 1, 2, 3 with 1/6 each, 4 with 3/6
    counts, expected = [second.count(k) for k in range(1, 5)], np.array([1, 1, 1, 3]) / 6 * len(second)
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-4


def test_refined_segments_keep_apart_what_either_keeps_apart():
    segment = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
    pieces = torch.tensor([[1, 1, 2, 2, 2, 2], [1, 2, 2, 3, 3, 3]])
    refined = refine(segment, pieces)
    assert refined.tolist() == [[1, 1, 2, 3, 3, 0], [1, 2, 2, 3, 3, 3]]
    assert refine(None, pieces) is pieces
    together = (segment[:, :, None] == segment[:, None]) & (pieces[:, :, None] == pieces[:, None])
    real = (segment > 0)[:, :, None] & (segment > 0)[:, None]
    assert torch.equal((refined[:, :, None] == refined[:, None]) & real, together & real)
