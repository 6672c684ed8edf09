"""The network that insertion language models (ILM) were published with, and what it reads of our rows.

Theirs are `[CLS] [BOS] text`, or `[CLS] prompt [BOS] answer`: the stop is read from CLS, what comes first from BOS. Our
end-of-document, with which a document begins, is their CLS. A document that holds a BOS, where its prompt ends, is read
as it is; into any other one the network puts a BOS just after the beginning.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from anyorder.core.types import Canvas, InsertionOut, Vocab
from anyorder.models.attention import Attention, attention_mask
from anyorder.models.config import ModelConfig
from anyorder.models.inserter import dense
from anyorder.models.linear import Linear
from anyorder.models.norm import LayerNorm
from anyorder.models.rope import rope_tables
from anyorder.models.transformer import begins, bias_of

ROPE_BASE = 10_000.0


class IlmConfig(BaseModel, frozen=True, extra="forbid"):
    """The size of an `Ilm`, and the ids of its special tokens."""

    num_layers: PositiveInt
    num_heads: PositiveInt
    d_model: PositiveInt
    d_ff: PositiveInt
    max_length: PositiveInt = 1024
    activation: Literal["relu", "gelu"] = "relu"  # gelu: its tanh approximation
    rotary_width: PositiveInt = 64  # channels of each head that are rotated, all if a head has no more
    norm_eps: float = 1e-5
    bos_id: NonNegativeInt | None = None  # None: the file does not say, and no network is made
    closed: tuple[NonNegativeInt, ...] = ()  # tokens that are never inserted, beside the beginning

    @model_validator(mode="after")
    def _heads_divide(self) -> "IlmConfig":
        if self.d_model % (2 * self.num_heads):
            raise ValueError(f"num_heads={self.num_heads}: must divide the width {self.d_model} into even parts")
        return self

    @property
    def causal(self) -> bool:
        return False

    @property
    def d_head(self) -> int:
        return self.d_model // self.num_heads

    @property
    def num_layer_weights(self) -> int:
        """Entries of the matrices of one block."""
        return 4 * self.d_model**2 + 2 * self.d_model * self.d_ff

    @property
    def num_block_params(self) -> int:
        """Parameters of the blocks: without embedding, token head and stop head."""
        return self.num_layers * (self.num_layer_weights + self.d_ff + 5 * self.d_model)

    def num_params(self, *, vocab_size: int, num_ids: int) -> int:
        """All parameters; embedding and head have a row for each id of the head, `num_ids` is not used."""
        stop_head = 4 * self.d_model**2 + 7 * self.d_model
        return self.num_block_params + 2 * vocab_size * self.d_model + stop_head


class IlmBlock(nn.Module):
    """x += Attention(LayerNorm(x)); x += W_down act(W_up LayerNorm(x))."""

    def __init__(self, c: IlmConfig) -> None:
        super().__init__()
        self.activation = c.activation
        self.attn_norm = LayerNorm(c.d_model, eps=c.norm_eps, bias=True)
        self.attn = Attention(ModelConfig(num_heads=c.num_heads, d_model=c.d_model))
        self.mlp_norm = LayerNorm(c.d_model, eps=c.norm_eps, bias=True)
        self.up, self.down = Linear(c.d_model, c.d_ff, bias=True), Linear(c.d_ff, c.d_model, bias=True)

    def forward(
        self,
        x_BLD: Float[Tensor, "B L D"],
        rope: tuple[Float[Tensor, "B L R"], Float[Tensor, "B L R"]],
        bias: Float[Tensor, "Bm 1 L L"] | None,
    ) -> Float[Tensor, "B L D"]:
        x_BLD = x_BLD + self.attn(self.attn_norm(x_BLD), rope, bias)
        y_BLF = self.up(self.mlp_norm(x_BLD))
        y_BLF = F.relu(y_BLF) if self.activation == "relu" else F.gelu(y_BLF, approximate="tanh")
        out: Tensor = x_BLD + self.down(y_BLF)
        return out


class StopHead(nn.Module):
    """Log-odds that nothing is missing, from the state h of CLS: the classes of h + W_down tanh(W_up LayerNorm(h))."""

    def __init__(self, c: IlmConfig) -> None:
        super().__init__()
        self.norm = LayerNorm(c.d_model, eps=c.norm_eps, bias=True)
        self.up = Linear(c.d_model, 2 * c.d_model, bias=True)
        self.down = Linear(2 * c.d_model, c.d_model, bias=True)
        self.out = Linear(c.d_model, 2)  # class 0 stops, class 1 goes on

    def forward(self, h_SD: Float[Tensor, "S D"]) -> Float[Tensor, " S"]:
        classes_S2: Tensor = self.out(h_SD + self.down(torch.tanh(self.up(self.norm(h_SD))))).float()
        return classes_S2[:, 0] - classes_S2[:, 1]


@dataclass(frozen=True)
class Read:
    """What the network reads of a canvas whose rows are T wide with every BOS in them.

    Args:
        position: in its document, from 0; the rotation is by these.
        segment: as of `Canvas`.
        begin: where on the flattened rows each document begins, in reading order.
        answer: where on the flattened rows the answer for each position of the canvas stands.
    """

    x: Int[Tensor, "B T"]
    position: Int[Tensor, "B T"]
    segment: Int[Tensor, "B T"]
    begin: Int[Tensor, " S"]
    answer: Int[Tensor, "B L"]


class Ilm(nn.Module):
    """An `Inserting` network. Special tokens are never inserted: they have no mass in its softmax.

    Args:
        config: the size.
        vocab: ids; end-of-document is CLS.
        dtype: of the activations.
    Raises:
        ValueError: a beginning or BOS that nobody names.
    Source:
        arXiv:2505.05755 and its public code. In training there, special tokens do have mass, which the model unlearns;
        sampling leaves them out, and here the likelihood does so too, so that both are of one law.
    """

    nfe = 1
    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: IlmConfig, vocab: Vocab, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        c = config
        if vocab.eos_id is None or c.bos_id is None:
            raise ValueError(f"eos_id={vocab.eos_id}, bos_id={c.bos_id}: an ILM reads both; say which tokens they are")
        self.config, self.vocab, self.dtype, self.bos_id = config, vocab, dtype, c.bos_id
        self.embed = nn.Embedding(vocab.size, c.d_model)
        self.blocks = nn.ModuleList(IlmBlock(c) for _ in range(c.num_layers))
        self.head = Linear(c.d_model, vocab.size)
        self.stop = StopHead(c)
        self.set_rope()

    def set_rope(self, device: torch.device | None = None) -> None:
        """Make the rotary tables; they are no part of a checkpoint."""
        c = self.config
        tables = rope_tables(c.max_length + 1, min(c.rotary_width, c.d_head), base=ROPE_BASE)  # one more for BOS
        for name, table in zip(("rope_cos", "rope_sin"), tables):
            self.register_buffer(name, table.to(device), persistent=False)

    def insertion(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> InsertionOut:
        """As `Inserting`; a last channel of states and head, 1 and -inf, takes special tokens out.

        Raises:
            ValueError: rows longer than `config.max_length`.
        """
        length = canvas.x.shape[1]
        if length > self.config.max_length:
            raise ValueError(
                f"a row of {length} tokens is longer than model.max_length={self.config.max_length}; shorten it"
            )
        read = reading(canvas, bos_id=self.bos_id)
        h_BTD = self.embed(read.x.clamp(max=self.vocab.size - 1)).to(self.dtype)  # padding lies beyond the table
        rope = self.rope_cos[read.position].to(self.dtype), self.rope_sin[read.position].to(self.dtype)
        mask = attention_mask(read.segment, read.x.shape[1], causal=False, device=read.x.device)
        bias = bias_of(mask, self.dtype)
        for block in self.blocks:
            h_BTD = block(h_BTD, rope, bias)
        h_SD = h_BTD.flatten(0, 1)
        states, head = h_SD[read.answer[at]], self.head.weight
        ids = torch.tensor(self.config.closed, dtype=torch.int64, device=head.device)
        closed = torch.zeros_like(head[:, :1]).index_fill(0, ids, -math.inf)
        return InsertionOut(
            states=torch.cat([states, torch.ones_like(states[:, :1])], 1),
            head=torch.cat([head, closed], 1),
            stop=self.stop(h_SD[read.begin]),
        )

    def forward(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """Scores of inserting each token after the named positions, and the stop, as `Inserting`."""
        return dense(self.insertion(canvas, at), canvas, at, self.vocab)


def reading(canvas: Canvas, *, bos_id: int) -> Read:
    """The rows of a canvas with a BOS after the beginning of every document that has none."""
    x_BL, valid_BL = canvas.x, canvas.valid
    rows, length = x_BL.shape
    first_BL = begins(canvas) & valid_BL
    document_BL = first_BL.cumsum(-1)  # number of the document in its row; padding counts to the one before it
    holds = torch.zeros(rows, length + 1, dtype=torch.int64, device=x_BL.device)
    holds = holds.scatter_add(1, document_BL, ((x_BL == bos_id) & valid_BL).long()).gather(1, document_BL)
    lacks_BL = first_BL & (holds == 0)
    to_BL = torch.arange(length, device=x_BL.device) + lacks_BL.cumsum(-1) - lacks_BL.long()
    width = length + int(lacks_BL.sum(-1).max())
    row, at = lacks_BL.nonzero(as_tuple=True)
    bos_at = row, to_BL[row, at] + 1

    def spread(of_BL: Tensor, at_bos: Tensor) -> Tensor:
        return of_BL.new_zeros(rows, width).scatter(1, to_BL, of_BL).index_put(bos_at, at_bos)

    segment_BL = torch.ones_like(x_BL) if canvas.segment is None else canvas.segment
    segment_BT = spread(segment_BL, segment_BL[row, at])
    column_T = torch.arange(width, device=x_BL.device)
    start_BT = (column_T * spread(first_BL.long(), torch.zeros_like(row))).cummax(-1).values
    flat_BL = to_BL + width * torch.arange(rows, device=x_BL.device)[:, None]
    return Read(
        x=spread(x_BL, torch.full_like(row, bos_id)),
        position=(column_T - start_BT) * (segment_BT > 0),
        segment=segment_BT,
        begin=flat_BL[first_BL],
        answer=flat_BL + lacks_BL.long(),
    )
