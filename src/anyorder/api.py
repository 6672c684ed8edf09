"""The Python API: `load` a trained model; it writes (`sample`), fills gaps (`infill`) and measures text (`score`)."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.core.config import nearest
from anyorder.core.noise import Noise
from anyorder.core.protocols import Sampler
from anyorder.core.types import Canvas, Sample
from anyorder.data.tokenizer import PLACEHOLDER, SymbolTokenizer, Tokenizer
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model
from anyorder.likelihood.bound import Estimate, count_form
from anyorder.likelihood.chain import exact_causal
from anyorder.models.transformer import Transformer
from anyorder.samplers.base import generate
from anyorder.samplers.presets import PRESETS, make_sampler

DEFAULT_SAMPLER = {"mdm": "first-hitting", "arm": "causal"}
FOR_CAUSAL = ("causal", "left-to-right")  # orders in which a causal model never reads a mask
REPLICATES = 4  # independent groups of draws behind a standard error
LOGITS_AT_ONCE = 1 << 26  # numbers; bounds the memory of one pass
ROWS_AT_ONCE = 64
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass(frozen=True)
class GAP:
    """A gap of `num_tokens` tokens in `LanguageModel.infill`.

    Raises:
        ValueError: num_tokens < 1.
    """

    num_tokens: int

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise ValueError(f"GAP({self.num_tokens}): a gap has at least 1 token; leave it out for none")


@dataclass(frozen=True)
class Generation:
    """One written row. Lists have one entry per position of the row, prompt included.

    Args:
        text: the row as text. `sample` cuts it before the first end-of-document token that a text model wrote (what
            follows would be another document); `infill` and puzzles keep the whole row, in which that token is nothing.
        tokens: ids.
        pieces: text of each position; bytes that are no character by themselves read U+FFFD.
        order: step (from 0) at which each position was written, -1 for what was given.
        token_logp: log-probability of each written token given what was visible, under the law it was drawn from
            (after temperature and truncation); nats, 0 for what was given.
        logp: their sum, float64.
        num_tokens: tokens written.
        nfe: network passes this row took part in.
        seconds: wall time of the batch that this row was written in.
        sampler: what wrote it.
    """

    text: str
    tokens: list[int]
    pieces: list[str]
    order: list[int]
    token_logp: list[float]
    logp: float
    num_tokens: int
    nfe: int
    seconds: float
    sampler: str

    def at(self, step: int) -> str:
        """The row as it stood after `step` steps: ░ where nothing was written yet."""
        return "".join(p if when < step else PLACEHOLDER for p, when in zip(self.pieces, self.order, strict=True))


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text: its negative log-likelihood (ARM), or an upper bound on it (MDM).

    Args:
        nats: of the whole text.
        stderr: Monte-Carlo standard error of `nats`; 0 for an ARM, whose value is exact.
        num_tokens, num_bytes: of the text; no end-of-document token is added.
        estimator: the function of `anyorder.likelihood` that made it.
        draws: masked copies of each window; 1 for an ARM.
        nfe: rows sent through the network.
        windows: pieces of at most the model's length; each is scored on its own, without the text before it.
    """

    nats: float
    stderr: float
    num_tokens: int
    num_bytes: int
    estimator: str
    draws: int
    nfe: int
    windows: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.num_tokens

    @property
    def nats_per_token_stderr(self) -> float:
        return self.stderr / self.num_tokens

    @property
    def bits_per_byte(self) -> float:
        return self.nats / self.num_bytes / math.log(2)

    @property
    def bits_per_byte_stderr(self) -> float:
        return self.stderr / self.num_bytes / math.log(2)


@dataclass(frozen=True)
class LanguageModel:
    """A trained network with its tokenizer; made by `load`.

    A result depends on the seed and the number of its row, not on how many rows are asked for at once.

    Args:
        kind: "mdm" (masked diffusion: any order, sees both sides) or "arm" (autoregressive: left to right).
        folder: the model folder it came from.
    """

    kind: str
    model: Transformer
    tokenizer: Tokenizer
    folder: Path

    @property
    def max_length(self) -> int:
        """The longest row the model reads; a model of a named size was trained on rows of this length."""
        return self.model.config.max_length

    def sample(
        self,
        prompt: str = "",
        *,
        n: int = 1,
        length: int | None = None,
        sampler: str | None = None,
        num_steps: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        block: int | None = None,
        seed: int = 0,
    ) -> list[Generation]:
        """Write `n` rows that begin with the prompt.

        Args:
            length: tokens of a row, prompt included; None: `max_length`.
            sampler: a name that `anyorder methods` lists; None: "first-hitting" for an MDM, "causal" for an ARM.
            num_steps, temperature, top_k, top_p, block: as in `make_sampler`.
        Raises:
            ValueError: a value outside its range, an unknown sampler, a prompt that leaves nothing to write, or a
                character that the tokenizer of a puzzle does not have.
        """
        name = self._name(sampler)
        rule = make_sampler(name, num_steps=num_steps, temperature=temperature, top_k=top_k, top_p=top_p, block=block)
        row = self.tokenizer.encode(prompt)
        size = self.max_length if length is None else length
        if not 1 <= size <= self.max_length:
            raise ValueError(f"length={size}: must be between 1 and the {self.max_length} tokens the model reads")
        if len(row) >= size:
            what = "length" if length is not None and length < self.max_length else "the model's length"
            raise ValueError(f"prompt: its {len(row)} tokens leave nothing to write in {what}={size}; shorten it")
        masks = [self.model.vocab.mask_id] * (size - len(row))
        end_at_eos = not isinstance(self.tokenizer, SymbolTokenizer)
        return self._write(row + masks, rule, n=n, seed=seed, name=name, end_at_eos=end_at_eos)

    def infill(
        self,
        parts: Sequence[str | GAP],
        *,
        n: int = 1,
        sampler: str | None = None,
        num_steps: int | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        block: int | None = None,
        seed: int = 0,
    ) -> list[Generation]:
        """Write what belongs into the gaps: `infill(["def add(a, b):\\n    return ", GAP(4)])`.

        Every piece of text is turned into tokens by itself; the row is as long as pieces and gaps together.

        Args:
            sampler, num_steps, temperature, top_k, top_p, block: as in `sample`.
        Raises:
            ValueError: no gap, a row longer than the model, a value outside its range, or text after a gap for an
                autoregressive model, which cannot see it.
        """
        if isinstance(parts, str):
            raise ValueError('parts: must be a list of texts and gaps, as in ["text ", GAP(4), " more"]')
        name = self._name(sampler)
        rule = make_sampler(name, num_steps=num_steps, temperature=temperature, top_k=top_k, top_p=top_p, block=block)
        row = [i for part in parts for i in self._ids(part)]
        mask = self.model.vocab.mask_id
        if mask not in row:
            raise ValueError('parts: hold no gap, so there is nothing to write; add one, as in ["text ", GAP(4)]')
        if self.kind == "arm" and any(i != mask for i in row[row.index(mask) :]):
            raise ValueError(
                "parts: an autoregressive model cannot see the text after a gap; use a masked diffusion model, "
                "or end with the gap"
            )
        return self._write(row, rule, n=n, seed=seed, name=name, end_at_eos=False)

    def score(self, texts: Sequence[str], *, draws: int = 32, seed: int = 0) -> list[Score]:
        """How well each text is predicted: exactly by an ARM, an unbiased estimate of the bound for an MDM.

        A text longer than the model is scored in consecutive windows of `max_length` tokens, each on its own.

        Args:
            draws: masked copies of each window, a multiple of 4 (MDM); the error falls with their number.
        Raises:
            ValueError: an empty text, or draws that are no positive multiple of 4.
        """
        if isinstance(texts, str):
            raise ValueError("texts: must be a list of texts, as in score([text])")
        if draws < REPLICATES or draws % REPLICATES:
            raise ValueError(f"draws={draws}: must be a positive multiple of {REPLICATES}, which gives the error")
        noise = Noise.of(seed).at("score")
        return [self._score(text, index, draws=draws, noise=noise.at(index)) for index, text in enumerate(texts)]

    def _name(self, sampler: str | None) -> str:
        name = sampler or DEFAULT_SAMPLER[self.kind]
        if self.kind == "arm" and name in PRESETS and name not in FOR_CAUSAL:
            raise ValueError(f"sampler={name!r}: an autoregressive model writes from left to right; use 'causal'")
        return name

    def _ids(self, part: str | GAP) -> list[int]:
        return [self.model.vocab.mask_id] * part.num_tokens if isinstance(part, GAP) else self.tokenizer.encode(part)

    def _rows_at_once(self, length: int) -> int:
        return max(1, min(ROWS_AT_ONCE, LOGITS_AT_ONCE // (length * self.model.vocab.size)))

    def _write(
        self, row: list[int], rule: Sampler, *, n: int, seed: int, name: str, end_at_eos: bool
    ) -> list[Generation]:
        if n < 1:
            raise ValueError(f"n={n}: must be >= 1 sample")
        if len(row) > self.max_length:
            raise ValueError(f"the row has {len(row)} tokens, the model reads {self.max_length}; shorten text or gaps")
        device = self.model.rope_cos.device
        x = torch.tensor([row], device=device)
        written: list[Generation] = []
        for ids in torch.split(torch.arange(n, device=device), self._rows_at_once(len(row))):
            began = time.perf_counter()
            canvas = Canvas.of(x.repeat(len(ids), 1), vocab=self.model.vocab, row_id=ids)
            made = generate(rule, self.model, canvas, noise=Noise.of(seed).at("sample"))
            seconds = time.perf_counter() - began
            written += [
                self._generation(made, i, seconds=seconds, name=name, end_at_eos=end_at_eos) for i in range(len(ids))
            ]
        return written

    def _generation(self, made: Sample, row: int, *, seconds: float, name: str, end_at_eos: bool) -> Generation:
        tokens, order = made.canvas.x[row].tolist(), made.order[row].tolist()
        ends = [i for i, token in enumerate(tokens) if token == self.model.vocab.eos_id]  # no prompt can spell it
        return Generation(
            text=self.tokenizer.decode(tokens[: ends[0]] if end_at_eos and ends else tokens),
            tokens=tokens,
            pieces=[self.tokenizer.decode([i]) for i in tokens],
            order=order,
            token_logp=made.token_logp[row].tolist(),
            logp=float(made.logp[row]),
            num_tokens=sum(when >= 0 for when in order),
            nfe=int(made.nfe[row]),
            seconds=seconds,
            sampler=name,
        )

    def _score(self, text: str, index: int, *, draws: int, noise: Noise) -> Score:
        ids = self.tokenizer.encode(text)
        if not ids:
            raise ValueError(f"texts[{index}]: is empty; there is nothing to score")
        estimates: list[Estimate] = []
        num_rows = 0
        for rows in self._windows(ids):
            row_id = torch.arange(num_rows, num_rows + len(rows))
            estimates.append(self._estimate(rows, row_id.to(rows.device), draws=draws, noise=noise))
            num_rows += len(rows)
        return Score(
            nats=sum(float(e.nats.sum()) for e in estimates),
            stderr=math.sqrt(sum(float(e.stderr.square().sum()) for e in estimates)),
            num_tokens=len(ids),
            num_bytes=len(text.encode()),
            estimator=estimates[0].estimator,
            draws=1 if self.kind == "arm" else draws,
            nfe=sum(e.nfe * len(e.nats) for e in estimates),
            windows=num_rows,
        )

    def _windows(self, ids: list[int]) -> Iterator[Int[Tensor, "B L"]]:
        """Rows of `max_length` tokens, a few at a time, and what is left as a last, shorter row."""
        whole = len(ids) // self.max_length * self.max_length
        device = self.model.rope_cos.device
        if whole:
            rows = torch.tensor(ids[:whole], device=device).view(-1, self.max_length)
            yield from torch.split(rows, self._rows_at_once(self.max_length))
        if whole < len(ids):
            yield torch.tensor([ids[whole:]], device=device)

    def _estimate(self, tokens: Int[Tensor, "B L"], row_id: Int[Tensor, " B"], *, draws: int, noise: Noise) -> Estimate:
        target = torch.ones_like(tokens, dtype=torch.bool)
        if self.kind == "arm":
            return exact_causal(self.model, tokens, target=target, row_id=row_id)
        return count_form(
            self.model,
            tokens,
            target=target,
            row_id=row_id,
            draws=draws,
            noise=noise,
            replicates=REPLICATES,
            rows_per_pass=self._rows_at_once(tokens.shape[1]),
        )


def load(path: str | Path, *, dtype: str = "float32", device: str = "cpu") -> LanguageModel:
    """The model in a model folder, in the folder of a finished run, or the main one of a quickstart folder.

    Args:
        dtype: of the activations: float32, bfloat16 or float64; weights stay float32.
        device: as PyTorch names it, such as "cpu" or "cuda".
    Raises:
        ValueError: no finished model there (the message says what is there), an altered or truncated file, an unknown
            dtype, or a GPU that is not there.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: unknown; {nearest(dtype, DTYPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}: PyTorch sees no CUDA device here; use 'cpu'")
    folder = model_folder(Path(path).expanduser())
    loaded = load_model(folder, dtype=DTYPES[dtype])
    return LanguageModel(kind=loaded.kind, model=loaded.model.to(device), tokenizer=loaded.tokenizer, folder=folder)
