"""A trained network with its tokenizer: `load` it, let it write, fill gaps, score."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from anyorder.api.answering import subject_of
from anyorder.api.gaps import gapped, grown_start, masked_start
from anyorder.api.scoring import score_texts
from anyorder.api.values import GAP, Generation, Score
from anyorder.api.writing import Calls, Job, write
from anyorder.core.config import nearest, parse_config
from anyorder.core.device import pick_device, pick_dtype, warn_if_slow
from anyorder.core.types import Step
from anyorder.data.tokenizer import SymbolTokenizer, Tokenizer
from anyorder.evaluation.answers import Answers, Scoring, answer_questions
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model
from anyorder.models.cache_error import CacheError
from anyorder.models.network import Network, block_to_write, own_block
from anyorder.models.transformer import Transformer
from anyorder.samplers.insertion import Room
from anyorder.samplers.presets import inserts
from anyorder.trace.record import Record, RowStart, Settings

DEFAULT_SAMPLER = {"mdm": "first-hitting", "arm": "causal", "ilm": "insertion"}
DEFAULT_CACHE = {"mdm": "none", "arm": "exact", "ilm": "none"}
FOR_CAUSAL = ("causal", "left-to-right")  # orders in which a causal model never reads a mask
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass(frozen=True)
class LanguageModel:
    """A trained network with its tokenizer; made by `load`.

    A result depends on the seed and the number of its row, not on how many rows are asked for at once.

    Args:
        kind: "mdm" (masked diffusion: any order, sees both sides), "arm" (autoregressive: left to right) or "ilm"
            (insertion: any order, and as many tokens as it likes).
        folder: the model folder it came from.
        bos: what an autoregressive model reads before every row, if that is not its own token.
    """

    kind: str
    model: Network
    tokenizer: Tokenizer
    folder: Path
    bos: str | None = None

    @property
    def max_length(self) -> int:
        """Tokens of the longest text the model reads; a model of a named size was trained on rows of this length.

        An insertion model reads one more, which stands for the beginning.
        """
        return self.model.config.max_length - int(self.kind == "ilm")

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
        on_step: Callable[[Step], None] | None = None,
    ) -> list[Generation]:
        """Write `n` rows that begin with the prompt.

        Args:
            length: tokens of a row, prompt included; None: `max_length`. An insertion model writes at most so many.
            stride: write rows longer than `max_length` through a window that slides by so many tokens; each window
                begins with the last max_length - stride tokens written.
            guidance: w of unsupervised classifier-free guidance; 0 for none. Each guided pass costs two.
            guidance_interval: guide while the share of tokens not yet written lies in (low, high].
            sampler: a name that `anyorder methods` lists; None: "first-hitting" for an MDM, "causal" for an ARM,
                "insertion" for an ILM.
            num_steps, temperature, top_k, top_p, block: as in `make_sampler`. A model with blocks of its own (BD3-LM)
                writes those, from the beginning of the row, and takes no other.
            cache: "none", "exact" (the default for an ARM), or with a block "prefix" or "dual" (MDM): faster passes.
            on_record: called with the record of all that was done, for `anyorder.trace`.
            on_cache_error: called with what the cache changed in each pass; asks without the cache too, hence slow.
            on_step: called after every step with the rows as they stand (`Step.canvas`), to show them being written.
        Raises:
            ValueError: a value outside its range, an unknown sampler, a prompt that leaves nothing to write, or a
                character that the tokenizer of a puzzle does not have.
        """
        guided = (guidance, guidance_interval)
        rule = self._rule(sampler, num_steps, temperature, top_k, top_p, block, stride, guidance=guided, cache=cache)
        row = self.tokenizer.encode(prompt)
        size = self.max_length if length is None else length
        if size < 1 or (size > self.max_length and stride is None):
            longer = "" if self.kind == "ilm" else "; a stride writes longer rows"
            raise ValueError(
                f"length={size}: must be between 1 and the {self.max_length} tokens the model reads{longer}"
            )
        if len(row) >= size:
            what = "length" if length is not None and length < self.max_length else "the model's length"
            raise ValueError(f"prompt: its {len(row)} tokens leave nothing to write in {what}={size}; shorten it")
        if self.kind == "ilm":
            start = RowStart(row=0, tokens=tuple(row), open=(len(row),), length=size)
        else:
            start = RowStart(row=0, tokens=(*row, *[self.model.vocab.mask_id] * (size - len(row))))
        end_at_eos = not isinstance(self.tokenizer, SymbolTokenizer)
        job = self._job(start, rule, n=n, seed=seed, end_at_eos=end_at_eos)
        return write(job, Calls(on_record, on_cache_error, on_step))

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
        on_step: Callable[[Step], None] | None = None,
    ) -> list[Generation]:
        """Write what belongs into the gaps: `infill(["def add(a, b):\\n    return ", GAP(4)])`.

        Every piece of text is turned into tokens by itself, and stays as it is. An insertion model fills gaps of any
        length, `GAP()`. For a masked diffusion model a row is as long as pieces and gaps together; where a gap may have
        several lengths, `GAP(2, 6)`, it is given the one under which the text around it is likeliest (`given_bound`, 32
        masked copies a length, which `nfe` does not count).

        Args:
            sampler, num_steps, temperature, top_k, top_p, block, on_record: as in `sample`.
            guidance, guidance_interval: as in `sample`; the prompt is the given text on both sides.
            cache, on_cache_error, on_step: as in `sample`.
        Raises:
            ValueError: no gap, a row longer than the model, a value outside its range, a gap whose length the model
                cannot choose, or text after a gap for an autoregressive model, which cannot see it.
        """
        guided = (guidance, guidance_interval)
        given = gapped(parts, self.tokenizer)
        gaps = given.gaps if self.kind == "ilm" and set(given.gaps) != {Room()} else None
        rule = self._rule(
            sampler, num_steps, temperature, top_k, top_p, block, guidance=guided, cache=cache, gaps=gaps
        )  # fmt: skip
        if self.kind == "ilm":
            start = grown_start(given, length=self.max_length)
        else:
            start = masked_start(given, self.model, length=self.max_length, seed=seed)
        return write(
            self._job(start, rule, n=n, seed=seed, end_at_eos=False), Calls(on_record, on_cache_error, on_step)
        )

    def score(self, texts: Sequence[str], *, draws: int = 32, context: int = 0, seed: int = 0) -> list[Score]:
        """How well each text is predicted: exactly by an ARM, an unbiased estimate of the bound for an MDM or an ILM.

        A text longer than the model is scored in consecutive windows of `max_length` tokens. An ILM also pays for the
        end of each window, as it is not told how many tokens there are.

        Args:
            draws: masked or thinned copies of each window, a multiple of 4 (MDM, ILM); the error falls with their
                number.
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
        gaps: Sequence[Room] | None = None,
    ) -> Settings:
        """The settings, checked."""
        if guidance[0] and self.kind != "mdm":
            what = "autoregressive" if self.kind == "arm" else "insertion"
            raise ValueError(f"guidance={guidance[0]}: an {what} model was never shown a masked prompt; use 0")
        if self.kind == "ilm" and cache not in (None, "none"):
            raise ValueError(f"cache={cache!r}: an insertion moves and changes all the model has read; use 'none'")
        own = own_block(self.model)
        values: dict[str, float | None] = {
            "num_steps": num_steps,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "block": block_to_write(self.model, block),
        }
        if stride is not None:
            if own is not None:
                raise ValueError(
                    f"stride={stride}: would move the model's blocks of {own} tokens; leave it out and write up to "
                    f"{self.max_length} tokens"
                )
            values |= {"window": self.max_length, "stride": stride}
        named: dict[str, object] = {"name": self._name(sampler)}
        named |= {"guidance": guidance[0], "guidance_interval": guidance[1]}
        named["cache"] = DEFAULT_CACHE[self.kind] if cache is None else cache
        named["aligned"] = own is not None
        named["gaps"] = None if gaps is None else [(gap.least, gap.most) for gap in gaps]
        settings = parse_config(Settings, {**named, **values}, source="sampler")
        settings.build()
        settings.around(self.model)
        return settings

    def _name(self, sampler: str | None) -> str:
        name = sampler or DEFAULT_SAMPLER[self.kind]
        if self.kind == "ilm" and not inserts(name):
            raise ValueError(
                f"sampler={name!r}: writes masks, and an insertion model has none; use 'insertion' or 'ilm'"
            )
        if self.kind != "ilm" and inserts(name):
            usual = DEFAULT_SAMPLER[self.kind]
            raise ValueError(f"sampler={name!r}: inserts tokens, as only an insertion model (ILM) can; use {usual!r}")
        if self.kind == "arm" and name not in FOR_CAUSAL:
            raise ValueError(f"sampler={name!r}: an autoregressive model writes from left to right; use 'causal'")
        return name

    def _job(self, start: RowStart, rule: Settings, *, n: int, seed: int, end_at_eos: bool) -> Job:
        return Job(
            self.model, self.tokenizer, self.folder, start, rule, n=n, seed=seed, end_at_eos=end_at_eos, bos=self.bos
        )


def load(path: str | Path, *, dtype: str = "float32", device: str = "auto", bos: str | None = None) -> LanguageModel:
    """The model in a model folder, in the folder of a finished run, or the main one of a quickstart folder; a published
    checkpoint with its tokenizer.json, in a folder or by its name on the hub ("hub:ORG/NAME").

    Args:
        dtype: of the activations: float32, bfloat16, float64, or auto, the one this machine is fast in. Weights
            stored in float32 stay so; those stored in half precision take on `dtype`.
        device: "auto" (a CUDA GPU where there is one, else the CPU), "cpu", "cuda", "cuda:1", or "mps", where networks
            compute in float32 and draws are made on the CPU.
        bos: special token of a published tokenizer that an autoregressive model reads before every row, such as "<s>";
            None: its own (`start_id` of its configuration, else the end of document).
    Raises:
        ValueError: no finished model there (the message says what is there), an altered or truncated file, an unknown
            dtype, or a device that is not there.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: unknown; {nearest(dtype, [*DTYPES, 'auto'])}")
    where = pick_device(device)
    slow = warn_if_slow(dtype, where)
    if slow is not None:
        warnings.warn(slow, stacklevel=2)
    kind = pick_dtype("auto", where).dtype if dtype == "auto" else DTYPES[dtype]
    folder = model_folder(Path(path).expanduser())
    loaded = load_model(folder, dtype=kind, device=where, bos=bos)
    if where.type == "mps" and not isinstance(loaded.model, Transformer):
        raise ValueError(f"device={device!r}: networks of this kind compute in float64 in places; use cpu")
    return LanguageModel(kind=loaded.kind, model=loaded.model, tokenizer=loaded.tokenizer, folder=folder, bos=bos)
