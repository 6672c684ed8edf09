"""A causal language model of the `transformers` library as a judge: a folder, or a name on the hub. Extra `eval`."""

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.evaluation.gen_ppl import LOGITS_AT_ONCE, ROWS_AT_ONCE, Judged

LONGEST = 1024  # of a text, where the model names no length of its own
SAME = 1e-4  # how far logits may differ by rounding, as a share of their range


@dataclass(frozen=True)
class HubJudge:
    """A causal checkpoint. The first token of a text is not scored, as in published figures; nothing is put before it.

    Args:
        name: what tables call it.
        model, tokenizer: of `transformers`.
        max_length: tokens of a text that are read.
    """

    name: str
    model: Any
    tokenizer: Any
    max_length: int
    device: str = "cpu"

    @property
    def first_token(self) -> str:
        return "not scored"

    @torch.no_grad()
    def nll(self, texts: Sequence[str]) -> Judged:
        ids = self._encoded(texts)
        nats = [torch.zeros(0, dtype=torch.float64)]
        for rows in self._batches([row[: self.max_length] for row in ids]):
            x, held = self._rows(rows)
            logits = self.model(input_ids=x, attention_mask=held.long()).logits[:, :-1]
            asked = held[:, 1:]
            found = torch.zeros(len(x), dtype=torch.float64, device=x.device)
            nll = -log_prob_of(logits[asked], x[:, 1:][asked])
            nats.append(found.index_add(0, asked.nonzero()[:, 0], nll).cpu())
        read = [min(len(row), self.max_length) for row in ids]
        return Judged(
            nats=torch.cat(nats),
            scored=torch.tensor([max(n - 1, 0) for n in read], dtype=torch.int64),
            cut=torch.tensor([len(row) - n for row, n in zip(ids, read)], dtype=torch.int64),
        )

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """The last layer's state at each text's last token."""
        found = []
        for rows in self._batches([row[: self.max_length] for row in self._encoded(texts)]):
            x, held = self._rows(rows)
            states = self.model(input_ids=x, attention_mask=held.long(), output_hidden_states=True).hidden_states[-1]
            last = held.sum(-1) - 1
            found.append(states[torch.arange(len(x), device=x.device), last].double().cpu())
        return torch.cat(found)

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        ids = [list(self.tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        unknown = self.tokenizer.unk_token_id
        for text, row in zip(texts, ids):
            spelt = unknown is None or any(i != unknown for i in row)
            if text.strip() and not (row and spelt):
                raise ValueError(
                    f"judge {self.name}: cannot read the text {text[:20]!r}; name a judge whose tokenizer holds it"
                )
        return ids

    def _batches(self, ids: Sequence[list[int]]) -> Iterator[Sequence[list[int]]]:
        longest = max([1, *map(len, ids)])
        size = max(1, min(ROWS_AT_ONCE, LOGITS_AT_ONCE // (longest * self.model.config.vocab_size)))
        return (ids[at : at + size] for at in range(0, len(ids), size))

    def _rows(self, ids: Sequence[list[int]]) -> tuple[Int[Tensor, "B L"], Tensor]:
        """Token ids filled up with 0 on the right, and what is no filling."""
        size = torch.tensor([len(row) for row in ids])
        x = torch.zeros(len(ids), max(1, int(size.max())), dtype=torch.int64)
        for number, row in enumerate(ids):
            x[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
        held = torch.arange(x.shape[1]) < size[:, None]
        return x.to(self.device), held.to(self.device)


def is_transformers_folder(path: Path) -> bool:
    """Whether a folder holds a checkpoint of `transformers`: a config.json with a model_type."""
    config = path / "config.json"
    return config.is_file() and '"model_type"' in config.read_text(encoding="utf-8", errors="replace")


def hub_judge(where: str, *, device: str = "cpu") -> HubJudge:
    """The judge in a folder, or of a name on the hub (downloaded once, then found without network); float32.

    Raises:
        ValueError: `transformers` is not installed, nothing can be loaded from there, or the model is not causal.
    """
    try:
        library = importlib.import_module("transformers")
    except ImportError:
        raise ValueError(
            f"judge {where}: needs the transformers library; install it with: pip install 'anyorder[eval]'"
        ) from None
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(where)
        model = library.AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        said = str(error).strip().split("\n")[0].rstrip(".")
        raise ValueError(f"judge {where}: no causal language model could be loaded ({said}); name another") from None
    length = getattr(model.config, "max_position_embeddings", None) or LONGEST
    judge = HubJudge(where, model.to(device).eval(), tokenizer, min(int(length), LONGEST), device)
    if not is_causal(judge):
        raise ValueError(f"judge {where}: is not causal: a later token changed an earlier prediction; name another")
    return judge


@torch.no_grad()
def is_causal(judge: HubJudge) -> bool:
    """Whether predictions stay when the last token changes, on one made row of four tokens."""
    size = judge.model.config.vocab_size
    x = torch.tensor([[1, 2, 3, last] for last in (4, 5)], device=judge.device) % size
    logits = judge.model(input_ids=x).logits[:, :-1].double()
    apart = float((logits[0] - logits[1]).abs().max())
    return math.isfinite(apart) and apart <= SAME * float(logits.max() - logits.min())
