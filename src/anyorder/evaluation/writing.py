"""Text written after prompts until a stop string: what `generate_until` of lm-eval asks for."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas
from anyorder.evaluation.subject import Subject, canvas_of, stream
from anyorder.models.cache import with_cache
from anyorder.models.network import block_to_write, own_block
from anyorder.models.transformer import Transformer
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler
from anyorder.samplers.stopping import Stopping

DEFAULT_SAMPLER = {"mdm": "top-prob", "arm": "causal"}
FOR_CAUSAL = ("causal", "left-to-right")
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # by rank, as lm-eval reads them
OURS = ("sampler", "num_steps", "block", "guidance", "seed")
KNOWN = ("until", *LENGTHS, "do_sample", "temperature", "top_k", "top_p", *OURS)


@dataclass(frozen=True)
class Writing:
    """How text is written after a prompt.

    Args:
        until: what ends a text; it is cut before the first of them.
        max_gen_toks: tokens written at most; for a masked model the masks of its canvas. Fewer where the model reads no
            more (`room_for`).
        temperature, top_k, top_p, sampler, num_steps, block: as in `make_sampler`; temperature 0 is greedy. The sampler
            of a masked model is "top-prob" by default; one with blocks of its own (BD3-LM) writes those.
        guidance: scale of unsupervised classifier-free guidance.
    Raises:
        ValueError: max_gen_toks < 1, or an empty stop string.
    """

    until: tuple[str, ...] = ()
    max_gen_toks: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    sampler: str | None = None
    num_steps: int | None = None
    block: int | None = None
    guidance: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_gen_toks < 1:
            raise ValueError(f"max_gen_toks={self.max_gen_toks}: must be >= 1 token to write")
        if "" in self.until:
            raise ValueError("until: holds an empty text, which would end every text at once; leave it out")

    def cut(self, text: str) -> str:
        """The text before the first stop string in it."""
        return text[: min([len(text), *(at for stop in self.until if (at := text.find(stop)) >= 0)])]


@dataclass(frozen=True)
class Written:
    """A text and the network passes it took.

    Args:
        cut: tokens of its prompt that were cut on the left.
        short: how many tokens fewer than `max_gen_toks` there was room for.
    """

    text: str
    nfe: int
    cut: int
    short: int


def writing_of(kwargs: Mapping[str, object], base: Writing = Writing()) -> Writing:
    """`generation_kwargs` of an lm-eval task as settings; what they do not say is as in `base`.

    do_sample=False is temperature 0; do_sample=True without a temperature is temperature 1; top_k 0, -1 and None keep
    every token.

    Raises:
        ValueError: a name that is not known, or a value of the wrong kind; nothing is silently ignored.
    """
    unknown = sorted(set(kwargs) - set(KNOWN) - {"num_beams"})
    if kwargs.get("num_beams", 1) not in (1, None):
        unknown = [*unknown, "num_beams"]  # one beam is no beam search
    if unknown:
        names = ", ".join(unknown)
        raise ValueError(f"generation_kwargs: {names} is not known here; use {', '.join(KNOWN)}")
    given = {k: v for k, v in kwargs.items() if v is not None}
    until = given.get("until", list(base.until))
    stops = (until,) if isinstance(until, str) else until
    if not isinstance(stops, list | tuple) or not all(isinstance(s, str) for s in stops):
        raise ValueError(f"generation_kwargs: until={until!r} must be a text or a list of texts")
    length = next((given[name] for name in LENGTHS if name in given), base.max_gen_toks)
    found = replace(
        base,
        until=tuple(s for s in stops if s),
        max_gen_toks=int(_number("max_gen_toks", length)),
        temperature=_temperature(given, base.temperature),
        top_k=max(0, int(_number("top_k", given.get("top_k", base.top_k)))),
        top_p=_number("top_p", given.get("top_p", base.top_p)),
        guidance=_number("guidance", given.get("guidance", base.guidance)),
        seed=int(_number("seed", given.get("seed", base.seed))),
    )
    steps, block = given.get("num_steps", base.num_steps), given.get("block", base.block)
    return replace(
        found,
        sampler=str(given["sampler"]) if "sampler" in given else base.sampler,
        num_steps=None if steps is None else int(_number("num_steps", steps)),
        block=None if block is None else int(_number("block", block)),
    )


def _temperature(given: Mapping[str, object], default: float) -> float:
    if given.get("do_sample") is False:
        return 0.0
    return _number("temperature", given.get("temperature", 1.0 if given.get("do_sample") else default))


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"generation_kwargs: {name}={value!r} must be a number")
    return float(value)


@torch.no_grad()
def write_until(
    subject: Subject, prompts: Sequence[str], writing: Writing, *, copies: Sequence[int] | None = None
) -> list[Written]:
    """A text after each prompt. A row ends with a stop string or the end of the document, and leaves the passes then.

    Prompt and text share the model's length as `room_for` says. A text depends on its prompt, the settings and the seed
    alone.

    Args:
        copies: tells prompts apart that are asked more than once; by default all are the first copy.
    Raises:
        ValueError: settings out of range.
    """
    if subject.kind == "arm" and writing.sampler not in (None, *FOR_CAUSAL):
        raise ValueError(
            f"sampler={writing.sampler!r}: an autoregressive model writes from left to right; use 'causal'"
        )
    room = room_for(writing.max_gen_toks, length=subject.max_length)
    fitted = [subject.fitted(subject.after_bos(subject.encode(prompt)), room=room) for prompt in prompts]
    heads = [ids for ids, _ in fitted]
    sizes = [min(writing.max_gen_toks, subject.max_length - len(head)) for head in heads]
    made: dict[int, Written] = {}
    order = sorted(range(len(heads)), key=lambda i: len(heads[i]))
    for start in range(0, len(order), subject.rows_per_pass):
        part = order[start : start + subject.rows_per_pass]
        chosen = [0 if copies is None else copies[i] for i in part]
        texts = _write(subject, [(heads[i], sizes[i]) for i in part], chosen, writing)
        for i, (text, nfe) in zip(part, texts):
            made[i] = Written(text, nfe, cut=fitted[i][1], short=writing.max_gen_toks - sizes[i])
    return [made[i] for i in range(len(heads))]


def room_for(max_gen_toks: int, *, length: int) -> int:
    """Tokens of a prompt at most beside a text of `max_gen_toks` in a model of this length.

    What the text leaves, as in lm-eval. A text as long as the model leaves nothing: the prompt then has half, and the
    text what the prompt leaves.
    """
    return length - max_gen_toks if max_gen_toks < length else length // 2


def _write(
    subject: Subject, rows: list[tuple[list[int], int]], copies: list[int], writing: Writing
) -> list[tuple[str, int]]:
    """Texts and passes of rows: a prompt and how many tokens to write."""
    vocab = subject.tokenizer.vocab
    canvas, body = canvas_of(subject, [(head, [subject.model.vocab.mask_id] * size) for head, size in rows])
    inner = make_sampler(
        writing.sampler or DEFAULT_SAMPLER[subject.kind],
        num_steps=writing.num_steps,
        temperature=writing.temperature,
        top_k=writing.top_k,
        top_p=writing.top_p,
        block=block_to_write(subject.model, writing.block),
        aligned=own_block(subject.model) is not None,
    )

    eos = vocab.eos_id

    def own(tokens: Sequence[int]) -> list[int]:
        """Tokens up to the end of the document."""
        ids = list(tokens)
        return ids[: ids.index(eos)] if eos is not None and eos in ids else ids

    def done(tokens: Sequence[int]) -> bool:
        if eos is not None and eos in tokens:
            return True
        text = subject.tokenizer.decode(tokens)
        return writing.cut(text) != text

    fill = 0 if eos is None else eos
    sampler = Stopping(inner, done, fill)
    sample = generate(sampler, _model(subject, writing), _named(canvas, copies), noise=stream(writing.seed, "write"))
    written = [x[mine].tolist() for x, mine in zip(sample.canvas.x, body)]
    texts = [writing.cut(_after(subject, head, own(ids))) for (head, _), ids in zip(rows, written)]
    return list(zip(texts, sample.nfe.tolist()))


def _model(subject: Subject, writing: Writing) -> Denoiser:
    """The model as it writes: an autoregressive network remembers keys and values, which changes nothing else."""
    model = subject.guided(writing.guidance)
    return with_cache(model, "exact") if subject.kind == "arm" and isinstance(model, Transformer) else model


def _named(canvas: Canvas, copies: list[int]) -> Canvas:
    """Rows named by their prompt and the number of their copy."""
    names = []
    for name, copy in zip(canvas.row_id.tolist(), copies):
        digest = hashlib.blake2b(f"{name}:{copy}".encode(), digest_size=8).digest()
        names.append(int.from_bytes(digest, "little", signed=True))
    return replace(canvas, row_id=torch.tensor(names, device=canvas.row_id.device))


def _after(subject: Subject, head: list[int], ids: list[int]) -> str:
    """The text that the tokens add to the prompt: some tokenizers drop a space at the beginning of a text."""
    before, whole = subject.tokenizer.decode(head), subject.tokenizer.decode([*head, *ids])
    return whole[len(before) :] if head and whole.startswith(before) else subject.tokenizer.decode(ids)
