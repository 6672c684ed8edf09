"""Rows side by side: every row of the source once, whole, in a segment of its own; the same loss as one a row."""

import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Vocab
from anyorder.data.loader import Loader, in_order
from anyorder.data.rows import RowSource, TaskRows
from anyorder.data.side_by_side import side_by_side
from anyorder.models.config import SIZES
from anyorder.models.transformer import Transformer
from anyorder.processes.autoregressive import Autoregressive

VOCAB = Vocab(size=6, mask_id=6, pad_id=7, eos_id=5)
SIZES_OF = (3, 8, 1, 5, 2, 4, 8, 3)


def padded():
    rows = [[(i + j) % 5 for j in range(n)] + [VOCAB.pad_id] * (8 - n) for i, n in enumerate(SIZES_OF)]
    tokens = torch.tensor(rows)
    return TaskRows(tokens=tokens, target=torch.arange(8).expand(8, -1) > 0, vocab=VOCAB)


def test_every_row_is_there_once_whole_and_alone_in_its_segment():
    source = padded()
    packed = side_by_side(source)
    assert isinstance(packed, RowSource)
    assert packed.num_rows == 5  # 34 tokens need at least 5 rows of 8
    block = packed.take(torch.arange(packed.num_rows))
    pieces = []
    for row in range(packed.num_rows):
        numbers = block.segment[row]
        assert (numbers.diff()[numbers[1:] > 0] >= 0).all()
        for number in range(1, int(numbers.max()) + 1):
            at = numbers == number
            pieces.append((block.tokens[row, at].tolist(), block.target[row, at].tolist()))
    clean = [(t[:n], m[:n]) for t, m, n in zip(source.tokens.tolist(), source.target.tolist(), SIZES_OF)]
    assert sorted(pieces) == sorted(clean)
    outside = block.segment == 0
    assert (block.tokens[outside] == VOCAB.pad_id).all()
    assert not block.target[outside].any()


def test_rows_that_are_one_whole_piece_need_no_segment():
    packed = side_by_side(padded())
    whole = torch.tensor([r for r, group in enumerate(packed.groups) if SIZES_OF[group[0]] == 8])
    assert len(whole) == 2
    assert not packed.segmented(whole)
    assert packed.take(whole).segment is None
    assert packed.segmented(torch.arange(packed.num_rows))


def test_the_loss_is_that_of_single_rows():
    source = padded()
    model = Transformer(SIZES["tiny"].model_copy(update={"causal": True, "max_length": 8}), VOCAB)
    model.init_weights(Noise.of(1).at("init"))
    (alone,), (packed,) = (list(in_order(s, rows=8)) for s in (source, side_by_side(source)))

    def nats(batch: Batch):
        return Autoregressive().loss(model, batch, noise=Noise.of(0)).total

    torch.testing.assert_close(nats(packed), nats(alone))
    batch = Loader(side_by_side(source), rows=5, noise=Noise.of(3)).batch_at(0)
    torch.testing.assert_close(nats(batch), nats(alone))
