"""A model as evaluations see it: text in, tokens in rows, with what it can read and how it is named."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas, moved
from anyorder.data.tokenizer import Tokenizer
from anyorder.guidance.classifier_free import ClassifierFree


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Args:
        kind: "mdm" or "arm".
        max_length: the longest row the model reads.
        identity: names the weights; what is remembered of one model is not taken for another's.
        rows_per_pass: rows of one network pass; results do not depend on it.
        specials: texts that are one token each, for prompts of a chat template; no other text is searched for them.
        bos_id: what the model reads before every prompt and document and is never asked for; None: nothing.
    Raises:
        ValueError: a `bos_id` for an autoregressive model.
    """

    kind: str
    model: Denoiser
    tokenizer: Tokenizer
    max_length: int
    identity: str
    rows_per_pass: int = 64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    specials: Mapping[str, int] = field(default_factory=dict)
    bos_id: int | None = None

    def __post_init__(self) -> None:
        if self.kind == "arm" and self.bos_id is not None:
            raise ValueError(
                f"bos_id={self.bos_id}: an autoregressive model reads a start token before every row by itself; "
                "load it with that bos instead"
            )

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        if not self.specials:
            return self.tokenizer.encode(text)
        longest_first = sorted(self.specials, key=len, reverse=True)
        parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
        return [
            i for part in parts for i in ([self.specials[part]] if part in self.specials else self._plain(part))
        ]  # fmt: skip

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer.encode(text) if text else []

    def after_bos(self, ids: Sequence[int]) -> list[int]:
        """Ids of a prompt or document behind `bos_id`, which is not put there twice."""
        return list(ids) if self.bos_id is None or self.bos_id in ids[:1] else [self.bos_id, *ids]

    def fitted(self, ids: Sequence[int], *, room: int) -> tuple[list[int], int]:
        """The last ids of a prompt that has too many, behind its `bos_id`; and how many were cut."""
        kept = 1 if self.bos_id is not None and self.bos_id in ids[:1] and room > 0 else 0
        cut = max(0, len(ids) - room)
        return [*ids[:kept], *ids[kept + cut :]], cut

    def guided(self, guidance: float) -> Denoiser:
        """The model under unsupervised guidance of this scale.

        Raises:
            ValueError: a scale below 0, or any for an autoregressive model.
        """
        if guidance == 0.0:
            return self.model
        if self.kind == "arm":
            raise ValueError(f"guidance={guidance:g}: an autoregressive model was never shown a masked prompt; use 0")
        return ClassifierFree(self.model, guidance)


def name_of(prompt: Sequence[int]) -> int:
    """A number made of a prompt's tokens alone, to name its noise."""
    digest = hashlib.blake2b(",".join(map(str, prompt)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def canvas_of(
    subject: Subject, rows: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> tuple[Canvas, Bool[Tensor, "B L"]]:
    """Prompts with what follows each, as rows padded on the right, and where the second part stands.

    Args:
        rows: tokens of prompt and continuation, which may hold the mask.
    """
    vocab, width = subject.model.vocab, max(len(a) + len(b) for a, b in rows)
    x = torch.tensor([[*a, *b, *[vocab.pad_id] * (width - len(a) - len(b))] for a, b in rows])
    place = torch.arange(width)
    begins = torch.tensor([len(a) for a, _ in rows])[:, None]
    ends = begins + torch.tensor([len(b) for _, b in rows])[:, None]
    target = (place >= begins) & (place < ends)
    segment = (place < ends).long() if int(ends.min()) < width else None
    names: Int[Tensor, " B"] = torch.tensor([name_of(a) for a, _ in rows])
    canvas = Canvas(x=x, fixed=~target, window=target, segment=segment, row_id=names)
    return moved(canvas, subject.device), target.to(subject.device)


def stream(seed: int, name: str) -> Noise:
    """The noise of one kind of evaluation."""
    return Noise.of(seed).at("evaluation").at(name)
