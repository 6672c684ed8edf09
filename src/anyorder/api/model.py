"""A trained network with its tokenizer: `load` it, let it write, fill gaps, score."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from anyorder.api.answering import subject_of
from anyorder.api.scoring import rows_at_once, score_texts
from anyorder.api.values import GAP, Generation, Score
from anyorder.core.config import nearest, parse_config
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.hub_tokenizer import piece_of
from anyorder.data.tokenizer import SymbolTokenizer, Tokenizer
from anyorder.evaluation.answers import Answers, Scoring, answer_questions
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model
from anyorder.models.cache_error import CacheError
from anyorder.models.network import Network
from anyorder.samplers.base import generate
from anyorder.samplers.presets import preset_of
from anyorder.trace.record import STREAM, Header, Record, RowEnd, Settings, StepRecord, fold, make_record, merge
from anyorder.trace.replay import model_id
from anyorder.trace.watch import record_steps, row_ends, starts

DEFAULT_SAMPLER = {"mdm": "first-hitting", "arm": "causal"}
DEFAULT_CACHE = {"mdm": "none", "arm": "exact"}
FOR_CAUSAL = ("causal", "left-to-right")  # orders in which a causal model never reads a mask
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass(frozen=True)
class Calls:
    """Who is told, when the rows are written, what was done and what the cache changed."""

    on_record: Callable[[Record], None] | None = None
    on_cache_error: Callable[[CacheError], None] | None = None


@dataclass(frozen=True)
class LanguageModel:
    """A trained network with its tokenizer; made by `load`.

    A result depends on the seed and the number of its row, not on how many rows are asked for at once.

    Args:
        kind: "mdm" (masked diffusion: any order, sees both sides) or "arm" (autoregressive: left to right).
        folder: the model folder it came from.
    """

    kind: str
    model: Network
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
        stride: int | None = None,
        guidance: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        cache: str | None = None,
        seed: int = 0,
        on_record: Callable[[Record], None] | None = None,
        on_cache_error: Callable[[CacheError], None] | None = None,
    ) -> list[Generation]:
        """Write `n` rows that begin with the prompt.

        Args:
            length: tokens of a row, prompt included; None: `max_length`.
            stride: write rows longer than `max_length` through a window that slides by so many tokens; each window
                begins with the last max_length - stride tokens written.
            guidance: w of unsupervised classifier-free guidance; 0 for none. Each guided pass costs two.
            guidance_interval: guide while the share of tokens not yet written lies in (low, high].
            sampler: a name that `anyorder methods` lists; None: "first-hitting" for an MDM, "causal" for an ARM.
            num_steps, temperature, top_k, top_p, block: as in `make_sampler`.
            cache: "none", "exact" (the default for an ARM), or with a block "prefix" or "dual" (MDM): faster passes.
            on_record: called with the record of all that was done, for `anyorder.trace`.
            on_cache_error: called with what the cache changed in each pass; asks without the cache too, hence slow.
        Raises:
            ValueError: a value outside its range, an unknown sampler, a prompt that leaves nothing to write, or a
                character that the tokenizer of a puzzle does not have.
        """
        guided = (guidance, guidance_interval)
        rule = self._rule(sampler, num_steps, temperature, top_k, top_p, block, stride, guidance=guided, cache=cache)
        row = self.tokenizer.encode(prompt)
        size = self.max_length if length is None else length
        if size < 1 or (size > self.max_length and stride is None):
            raise ValueError(
                f"length={size}: must be between 1 and the {self.max_length} tokens the model reads; a stride writes "
                "longer rows"
            )
        if len(row) >= size:
            what = "length" if length is not None and length < self.max_length else "the model's length"
            raise ValueError(f"prompt: its {len(row)} tokens leave nothing to write in {what}={size}; shorten it")
        masks = [self.model.vocab.mask_id] * (size - len(row))
        end_at_eos = not isinstance(self.tokenizer, SymbolTokenizer)
        calls = Calls(on_record, on_cache_error)
        return self._write(row + masks, rule, n=n, seed=seed, end_at_eos=end_at_eos, calls=calls)

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
        guidance: float = 0.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        cache: str | None = None,
        seed: int = 0,
        on_record: Callable[[Record], None] | None = None,
        on_cache_error: Callable[[CacheError], None] | None = None,
    ) -> list[Generation]:
        """Write what belongs into the gaps: `infill(["def add(a, b):\\n    return ", GAP(4)])`.

        Every piece of text is turned into tokens by itself; the row is as long as pieces and gaps together.

        Args:
            sampler, num_steps, temperature, top_k, top_p, block, on_record: as in `sample`.
            guidance, guidance_interval: as in `sample`; the prompt is the given text on both sides.
            cache, on_cache_error: as in `sample`.
        Raises:
            ValueError: no gap, a row longer than the model, a value outside its range, or text after a gap for an
                autoregressive model, which cannot see it.
        """
        if isinstance(parts, str):
            raise ValueError('parts: must be a list of texts and gaps, as in ["text ", GAP(4), " more"]')
        guided = (guidance, guidance_interval)
        rule = self._rule(sampler, num_steps, temperature, top_k, top_p, block, guidance=guided, cache=cache)
        row = [i for part in parts for i in self._ids(part)]
        mask = self.model.vocab.mask_id
        if mask not in row:
            raise ValueError('parts: hold no gap, so there is nothing to write; add one, as in ["text ", GAP(4)]')
        if self.kind == "arm" and any(i != mask for i in row[row.index(mask) :]):
            raise ValueError(
                "parts: an autoregressive model cannot see the text after a gap; use a masked diffusion model, "
                "or end with the gap"
            )
        return self._write(row, rule, n=n, seed=seed, end_at_eos=False, calls=Calls(on_record, on_cache_error))

    def score(self, texts: Sequence[str], *, draws: int = 32, context: int = 0, seed: int = 0) -> list[Score]:
        """How well each text is predicted: exactly by an ARM, an unbiased estimate of the bound for an MDM.

        A text longer than the model is scored in consecutive windows of `max_length` tokens.

        Args:
            draws: masked copies of each window, a multiple of 4 (MDM); the error falls with their number.
            context: tokens before a window that it reads again and does not score; 0: each window is on its own.
        Raises:
            ValueError: an empty text, draws that are no positive multiple of 4, or a context as long as the model.
        """
        return score_texts(self.model, self.tokenizer, texts, draws=draws, context=context, seed=seed)

    def answer(
        self,
        prompt: str,
        answers: Sequence[str],
        *,
        estimator: str | None = None,
        draws: int | None = None,
        guidance: float = 0.0,
        seed: int = 0,
    ) -> Answers:
        """Which of several answers the model prefers after a prompt, and how surely; `answer_all` asks many at once."""
        return self.answer_all([(prompt, answers)], estimator=estimator, draws=draws, guidance=guidance, seed=seed)[0]

    def answer_all(
        self,
        questions: Sequence[tuple[str, Sequence[str]]],
        *,
        estimator: str | None = None,
        draws: int | None = None,
        guidance: float = 0.0,
        seed: int = 0,
    ) -> list[Answers]:
        """The answers of many (prompt, answers), scored together; a question's values do not depend on the others.

        Args:
            estimator, draws, guidance: as in `Scoring`.
        Raises:
            ValueError: no answer, one without tokens or longer than the model, or a value the model cannot take.
        """
        scoring = Scoring(estimator=estimator, draws=draws, guidance=guidance, seed=seed)
        return answer_questions(subject_of(self.kind, self.model, self.tokenizer), questions, scoring)

    def _rule(
        self,
        sampler: str | None,
        num_steps: int | None,
        temperature: float,
        top_k: int,
        top_p: float,
        block: int | None,
        stride: int | None = None,
        *,
        guidance: tuple[float, tuple[float, float]],
        cache: str | None,
    ) -> Settings:
        """The settings, checked."""
        if guidance[0] and self.kind == "arm":
            raise ValueError(f"guidance={guidance[0]}: an autoregressive model was never shown a masked prompt; use 0")
        values: dict[str, float | None] = {
            "num_steps": num_steps,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "block": block,
        }
        if stride is not None:
            values |= {"window": self.max_length, "stride": stride}
        named: dict[str, object] = {"name": self._name(sampler)}
        named |= {"guidance": guidance[0], "guidance_interval": guidance[1]}
        named["cache"] = DEFAULT_CACHE[self.kind] if cache is None else cache
        settings = parse_config(Settings, {**named, **values}, source="sampler")
        settings.build()
        settings.around(self.model)
        return settings

    def _name(self, sampler: str | None) -> str:
        name = sampler or DEFAULT_SAMPLER[self.kind]
        preset_of(name)  # an unknown one is said to be so, whatever the model
        if self.kind == "arm" and name not in FOR_CAUSAL:
            raise ValueError(f"sampler={name!r}: an autoregressive model writes from left to right; use 'causal'")
        return name

    def _ids(self, part: str | GAP) -> list[int]:
        return [self.model.vocab.mask_id] * part.num_tokens if isinstance(part, GAP) else self.tokenizer.encode(part)

    def _write(
        self,
        row: list[int],
        rule: Settings,
        *,
        n: int,
        seed: int,
        end_at_eos: bool,
        calls: Calls,
    ) -> list[Generation]:
        if n < 1:
            raise ValueError(f"n={n}: must be >= 1 sample")
        if calls.on_cache_error is not None and rule.cache == "none":
            raise ValueError("cache='none': there is no cache to measure; use 'exact' (ARM), 'prefix' or 'dual' (MDM)")
        if len(row) > self.max_length and rule.stride is None:
            raise ValueError(f"the row has {len(row)} tokens, the model reads {self.max_length}; shorten text or gaps")
        device, noise = self.model.rope_cos.device, Noise.of(seed).at(STREAM)
        sampler, cached = rule.build(), rule.cached(self.model)
        meter = None if calls.on_cache_error is None else CacheError(cached, self.model)
        model = rule.guided(meter or cached)
        x, at_once = torch.tensor([row], device=device), rows_at_once(len(row), vocab_size=self.model.vocab.size)
        written: list[Generation] = []
        batches: list[list[StepRecord]] = []
        for ids in torch.split(torch.arange(n, device=device), at_once):
            began = time.perf_counter()
            canvas = Canvas.of(x.repeat(len(ids), 1), vocab=self.model.vocab, row_id=ids)
            if calls.on_record is None:
                ends = row_ends(generate(sampler, model, canvas, noise=noise))
            else:
                batches.append(list(record_steps(sampler, model, canvas, noise=noise)))
                ends = fold(starts(canvas), batches[-1], vocab=self.model.vocab)
            seconds = time.perf_counter() - began
            written += [self._generation(e, seconds=seconds, name=rule.name, end_at_eos=end_at_eos) for e in ends]
        if calls.on_record is not None:
            calls.on_record(self._record(row, rule, batches, n=n, seed=seed, rows_at_once=at_once))
        if calls.on_cache_error is not None and meter is not None:
            calls.on_cache_error(meter)
        return written

    def _record(
        self, row: list[int], rule: Settings, batches: list[list[StepRecord]], *, n: int, seed: int, rows_at_once: int
    ) -> Record:
        side = math.isqrt(len(row))
        header = Header(
            package=version("anyorder"),
            model=model_id(self.folder, dtype=self.model.dtype),
            sampler=rule,
            seed=seed,
            vocab=self.model.vocab,
            rows_at_once=rows_at_once,
            board=side if isinstance(self.tokenizer, SymbolTokenizer) and side * side == len(row) else None,
            rows=starts(Canvas.of(torch.tensor([row]).repeat(n, 1), vocab=self.model.vocab)),
        )
        return make_record(header, merge(batches), text_of=lambda i: piece_of(self.tokenizer, i))

    def _generation(self, end: RowEnd, *, seconds: float, name: str, end_at_eos: bool) -> Generation:
        tokens = list(end.tokens)
        ends = [i for i, token in enumerate(tokens) if token == self.model.vocab.eos_id]  # no prompt can spell it
        return Generation(
            text=self.tokenizer.decode(tokens[: ends[0]] if end_at_eos and ends else tokens),
            tokens=tokens,
            pieces=[piece_of(self.tokenizer, i) for i in tokens],
            order=list(end.order),
            token_logp=list(end.token_logp),
            logp=end.logp,
            num_tokens=sum(when >= 0 for when in end.order),
            nfe=end.nfe,
            seconds=seconds,
            sampler=name,
        )


def load(path: str | Path, *, dtype: str = "float32", device: str = "cpu") -> LanguageModel:
    """The model in a model folder, in the folder of a finished run, or the main one of a quickstart folder; a published
    checkpoint with its tokenizer.json, in a folder or by its name on the hub ("hub:ORG/NAME").

    Args:
        dtype: of the activations: float32, bfloat16 or float64. Weights stored in float32 stay so; those stored in half
            precision take on `dtype`.
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
    loaded = load_model(folder, dtype=DTYPES[dtype], device=torch.device(device))
    return LanguageModel(kind=loaded.kind, model=loaded.model, tokenizer=loaded.tokenizer, folder=folder)
