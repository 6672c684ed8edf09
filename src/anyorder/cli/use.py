"""Commands that use a trained model: `sample`, `infill`, `score`."""

import argparse
import dataclasses
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyorder.cli.parser import Parser, add_cache, add_guidance, add_model, add_sampling
from anyorder.cli.show import finish, plus_minus, safe, table
from anyorder.cli.trace import add_trace, write_traced

if TYPE_CHECKING:
    from anyorder.api import GAP, Generation
    from anyorder.cli.trace import Keep
    from anyorder.models.cache_error import CacheError

USUAL_LENGTH = 64  # tokens that `sample` writes after the prompt unless told otherwise
ESCAPES = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}
MARKS = re.compile(r"\\[nt\\]|(\\)?\[\[(-?\d+)?(?:-(\d+))?\]\]")  # an escape, or a gap with what makes it text


def sample(args: list[str]) -> None:
    parser = Parser(
        "sample",
        usage="RUN [--prompt TEXT] [--n N] [--length L] [--sampler NAME] [--steps K] [--trace FILE] ...",
        about="Let a model write. In a prompt, \\n is a new line, \\t a tab and \\\\ a backslash.",
        example='  anyorder sample runs/quickstart --prompt "def main" --n 2\n'
        "  anyorder sample runs/quickstart --sampler top-prob --steps 32 --temperature 0.8\n"
        "  anyorder sample runs/quickstart --sampler remdm-conf --compare ancestral --trace both.html",
    )
    add_model(parser)
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what every sample begins with (default nothing)")
    parser.add_argument(
        "--length",
        type=int,
        metavar="L",
        help="tokens of a row, prompt included; ILM: at most (default 64 after the prompt, or what the model reads)",
    )
    parser.add_argument(
        "--stride", type=int, metavar="S", help="for rows longer than the model: slide its window by S tokens"
    )
    add_sampling(parser)
    add_guidance(parser)
    add_cache(parser)
    add_trace(parser)
    found = parser.parse(args)
    from anyorder.api import load

    model = load(found.run, dtype=found.dtype, device=found.device, bos=found.bos)
    errors: list[CacheError] = []
    prompt, length = typed(found.prompt, option="--prompt"), found.length
    if length is None:  # a pass a token: the whole length of a large model is rarely meant
        length = min(model.max_length, len(model.tokenizer.encode(prompt)) + USUAL_LENGTH)

    def write(sampler: str | None, num_steps: int | None, keep: "Keep") -> "list[Generation]":
        return model.sample(
            prompt,
            n=found.n,
            length=length,
            sampler=sampler,
            num_steps=num_steps,
            temperature=found.temperature,
            top_k=found.top_k,
            top_p=found.top_p,
            block=found.block,
            guidance=found.guidance,
            guidance_interval=(found.guide_from, found.guide_to),
            stride=found.stride,
            seed=found.seed,
            cache=found.cache,
            on_record=keep,
            on_cache_error=errors.append if found.cache_error else None,
        )

    made = write_traced(write, found, command=shlex.join(["anyorder", "sample", *args]))
    _written(made, found, kind=model.kind, errors=errors)


def infill(args: list[str]) -> None:
    parser = Parser(
        "infill",
        usage="RUN TEXT [--n N] [--sampler NAME] [--steps K] [--trace FILE] ...",
        about="Let a model fill gaps. [[n]] in the text is a gap of n tokens, [[a-b]] one of a to b tokens, [[]]\n"
        "one of any number, which only an insertion model fills; several are allowed. \\n is a new line, \\t a tab,\n"
        "\\\\ a backslash, and \\[[n]] no gap but the text [[n]].",
        example='  anyorder infill runs/quickstart "def add(a, b):\\n    return [[4]]"\n'
        '  anyorder infill runs/quickstart "for i in [[1-6]]:\\n    print(i)"',
    )
    add_model(parser)
    parser.add_argument("text", metavar="TEXT", help="text with gaps [[n]], [[a-b]] or [[]]")
    add_sampling(parser)
    add_guidance(parser)
    add_cache(parser)
    add_trace(parser)
    found = parser.parse(args)
    from anyorder.api import load

    parts = parts_of(found.text)
    model = load(found.run, dtype=found.dtype, device=found.device, bos=found.bos)
    errors: list[CacheError] = []

    def write(sampler: str | None, num_steps: int | None, keep: "Keep") -> "list[Generation]":
        return model.infill(
            parts,
            n=found.n,
            sampler=sampler,
            num_steps=num_steps,
            temperature=found.temperature,
            top_k=found.top_k,
            top_p=found.top_p,
            block=found.block,
            guidance=found.guidance,
            guidance_interval=(found.guide_from, found.guide_to),
            seed=found.seed,
            cache=found.cache,
            on_record=keep,
            on_cache_error=errors.append if found.cache_error else None,
        )

    made = write_traced(write, found, command=shlex.join(["anyorder", "infill", *args]))
    _written(made, found, kind=model.kind, errors=errors)


def score(args: list[str]) -> None:
    parser = Parser(
        "score",
        usage="RUN --text FILE [FILE ...] [--draws K] [--seed S]",
        about="Measure how well a model predicts text: exactly (ARM), or an upper bound with its Monte-Carlo standard\n"
        "error (MDM, ILM). A text longer than the model is scored in consecutive windows, each on its own.",
        example="  anyorder score runs/quickstart --text notes.txt --draws 64",
    )
    add_model(parser)
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE", help="UTF-8 files; - is standard input")
    parser.add_argument("--draws", type=int, default=32, metavar="K", help="copies of a window (MDM, ILM; default 32)")
    parser.add_argument(
        "--context", type=int, default=0, metavar="N", help="tokens before a window it reads (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default 0")
    found = parser.parse(args)
    texts = [read_input(name) for name in found.text]
    from anyorder.api import load

    model = load(found.run, dtype=found.dtype, device=found.device, bos=found.bos)
    scores = model.score(texts, draws=found.draws, context=found.context, seed=found.seed)
    payload: list[dict[str, Any]] = []
    rows = []
    for name, s in zip(found.text, scores, strict=True):
        per = {
            "nats_per_token": s.nats_per_token,
            "nats_per_token_stderr": s.nats_per_token_stderr,
            "bits_per_byte": s.bits_per_byte,
            "bits_per_byte_stderr": s.bits_per_byte_stderr,
        }
        payload.append({"text": name, **per, **dataclasses.asdict(s)})
        figures = (
            plus_minus(s.nats_per_token, s.nats_per_token_stderr, digits=4),
            plus_minus(s.bits_per_byte, s.bits_per_byte_stderr, digits=4),
        )
        rows.append([name, *figures, str(s.num_tokens), str(s.num_bytes), str(s.windows), str(s.nfe)])
    first = scores[0]
    what = "exact" if model.kind == "arm" else f"an upper bound, {first.draws} draws a window"
    what += ", where it ends included" if model.kind == "ilm" else ""
    columns = ["text", "nats/token", "bits/byte", "tokens", "bytes", "windows", "passes"]
    text = f"{table(columns, rows)}\n\nestimator: {first.estimator} ({what})"
    finish({"run": found.run, "kind": model.kind, "scores": payload}, as_json=found.json, text=text)


def typed(text: str, *, option: str) -> str:
    r"""What a shell user means: the two characters \n are a new line, \t a tab, \\ a backslash.

    Raises:
        ValueError: bytes that are not UTF-8.
    """
    check_argument(text, option=option)
    return re.sub(r"\\[nt\\]", lambda m: ESCAPES[m[0]], text)


def parts_of(text: str) -> "list[str | GAP]":
    r"""A typed text with marks [[n]], [[a-b]] or [[]] as `LanguageModel.infill` wants it; \[[n]] is the text [[n]].

    Raises:
        ValueError: no mark, a gap that cannot be, or bytes that are not UTF-8.
    """
    from anyorder.api import GAP

    check_argument(text, option="TEXT")
    parts: list[str | GAP] = []
    piece, end = "", 0
    for mark in MARKS.finditer(text):
        piece, end = piece + text[end : mark.start()], mark.end()
        if mark[0] in ESCAPES:
            piece += ESCAPES[mark[0]]
        elif mark[1]:
            piece += mark[0].removeprefix(mark[1])
        else:
            gap = GAP(*(None if n is None else int(n) for n in mark.group(2, 3)))
            parts, piece = [*parts, *([piece] if piece else []), gap], ""
    if not parts:
        raise ValueError(
            "the text has no gap; write one as [[n]], a gap of n tokens, as in 'return [[4]]', or for an insertion "
            "model as [[]]"
        )
    piece += text[end:]
    return [*parts, piece] if piece else parts


def check_argument(text: str, *, option: str) -> None:
    """Refuse bytes that are not UTF-8, which Python hands over as halves of characters."""
    data = text.encode("utf-8", errors="surrogateescape")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} (0x{data[error.start]:02x})"
        raise ValueError(f"{option}: {where} is not UTF-8; type the text in a UTF-8 terminal") from None


def read_input(name: str) -> str:
    """The text of a file, or of standard input for -; ValueError if it is empty or no text."""
    from anyorder.core.text import read_text, text_of

    text = text_of(sys.stdin.buffer.read(), "-") if name == "-" else read_text(Path(name))
    if not text:
        raise ValueError(f"{name}: the file is empty; there is nothing to score")
    return text


def _written(made: "list[Generation]", found: argparse.Namespace, *, kind: str, errors: "Sequence[CacheError]") -> None:
    """Print samples: a line of figures above each text."""
    blocks = []
    for number, g in enumerate(made, start=1):
        per_token = f" ({g.logp / g.num_tokens:.3f} per token)" if g.num_tokens else ""
        figures = f"{g.num_tokens} tokens, {g.nfe} passes, log p {g.logp:.2f} nats{per_token}"
        blocks.append(f"--- {number}/{len(made)}  {kind.upper()} {g.sampler}: {figures}\n{safe(g.text)}")
    from anyorder.core.text import command

    payload: dict[str, Any] = {"run": found.run, "kind": kind, "seed": found.seed}
    payload["samples"] = [dataclasses.asdict(g) for g in made]
    if found.cache_error:
        payload["cache_error"] = [
            {"positions": e.positions, "mean": e.mean, "max": e.max, "changed": e.changed} for e in errors
        ]
        blocks += [_meter(error) for error in errors]
    if found.trace is not None:
        payload["trace"] = str(found.trace)
        blocks.append(f"--- wrote {found.trace}: check it with {command('anyorder', 'replay', found.trace)}")
    finish(payload, as_json=found.json, text="\n".join(blocks))


def _meter(error: "CacheError") -> str:
    """What a cache changed, in a line."""
    kl = f"KL(without || with) {error.mean:.3g} nats in the mean, at most {error.max:.3g}"
    where = f"{error.positions} predictions in {len(error.readings)} passes"
    return f"--- cache error: {kl}, over {where}; another token is likeliest in {error.changed}"
