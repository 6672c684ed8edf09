"""The published table of sizes, and the parameters a real network has."""

import pytest
import torch

from anyorder.core.types import Vocab
from anyorder.models import SIZES, ModelConfig, Transformer

# name: layers, heads, d, ffn, head width, N in parameters, MDM total in thousands (arXiv:2410.18514 and its code)
TABLE = """
6 6 4 256 1024 64 6294784 22679
19 8 6 384 1536 64 18880896 43457
34 8 8 512 2048 64 33563136 66332
48 9 9 576 2304 64 47786688 84651
66 10 10 640 2560 64 65549440 106510
75 16 8 640 1600 80 75387520 116348
85 13 10 640 2560 64 85214080 126175
113 12 12 768 3072 64 113265408 162418
142 15 12 768 3072 64 141581568 190734
170 18 12 768 3072 64 169897728 219050
180 14 14 896 3584 64 179856768 237202
206 16 14 896 3584 64 205550464 262895
231 18 14 896 3584 64 231244160 288589
268 16 16 1024 4096 64 268469248 334006
302 18 16 1024 4096 64 302027776 367565
336 20 16 1024 4096 64 335586304 401123
472 18 10 1280 5120 128 471906560 553828
551 21 10 1280 5120 128 550557440 632479
571 18 11 1408 5632 128 571001728 661115
629 24 10 1280 5120 128 629208320 711130
666 21 11 1408 5632 128 666168448 756282
717 19 12 1536 6144 128 717285888 815591
761 24 11 1408 5632 128 761335168 851449
831 22 12 1536 6144 128 830541312 928847
944 25 12 1536 6144 128 943796736 1042102
1028 20 14 1792 7168 128 1027677952 1142368
1233 24 14 1792 7168 128 1233213184 1347903
1476 22 16 2048 8192 128 1476487168 1607561
1678 25 16 2048 8192 128 1677826048 1808900
2121 28 17 2176 8704 128 2121393280 2260659
"""
ROWS = [[int(cell) for cell in line.split()] for line in TABLE.split("\n") if line]
SMDM_VOCAB = Vocab(size=32_000, mask_id=32_000, pad_id=0, eos_id=2)  # one extra input row, the mask


def test_all_thirty_sizes_are_there():
    assert [f"{row[0]}M" for row in ROWS] == [name for name in SIZES if name not in ("tiny", "0.3M", "1M", "3M")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}M")
def test_published_sizes(row):
    name, layers, heads, d, ffn, d_head, n, total = row
    config = SIZES[f"{name}M"]
    assert (config.num_layers, config.num_heads, config.d_model, config.d_ff) == (layers, heads, d, ffn)
    assert config.d_head == d_head
    assert config.num_block_params == n
    params = config.num_params(vocab_size=32_000, num_ids=SMDM_VOCAB.num_ids)
    assert params == n + 32_001 * d + 32_000 * d
    assert round(params / 1000) == total


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("causal", [False, True])
def test_a_network_has_the_parameters_its_size_says(name, causal):
    config = SIZES[name].model_copy(update={"causal": causal, "max_length": 8})
    with torch.device("meta"):
        model = Transformer(config, SMDM_VOCAB)
    assert sum(p.numel() for p in model.parameters()) == config.num_params(vocab_size=32_000, num_ids=32_001)
    inside = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(("embed", "head")))
    assert inside == config.num_block_params


def test_head_widths_must_be_even():
    with pytest.raises(ValueError, match=r"model.d_model=30: must be a multiple of 2\*num_heads=8"):
        ModelConfig(num_heads=4, d_model=30)


def test_a_causal_model_needs_an_eos():
    with pytest.raises(ValueError, match=r"vocab.eos_id=None.*give the vocabulary an EOS"):
        Transformer(ModelConfig(causal=True), Vocab(size=3, mask_id=3, pad_id=4))
