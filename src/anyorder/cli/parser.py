"""Command-line parsing that answers mistakes in one sentence naming the nearest right word; it imports no PyTorch."""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

NUMBERS = {"int": "whole number", "float": "number"}  # Python's types in words


class Wide(argparse.RawDescriptionHelpFormatter):
    """Help with one line per option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=120)


class Parser(argparse.ArgumentParser):
    """An argument parser for one command; mistakes raise ValueError instead of printing a usage text.

    Args:
        command: its name.
        usage: its arguments in short.
        about: what it does.
        example: command lines shown at the end of --help.
    """

    def __init__(self, command: str, *, usage: str, about: str, example: str) -> None:
        super().__init__(
            prog=f"anyorder {command}",
            description=about,
            epilog=f"example:\n{example}",
            formatter_class=Wide,
            usage=f"anyorder {command} {usage}",
            allow_abbrev=False,
        )
        self.add_argument("--json", action="store_true", help="print one JSON object as the last line")

    def error(self, message: str) -> NoReturn:
        text = re.sub(r"^argument ([^:]+): ", lambda m: f"{m[1].split('/')[-1]}: ", message)
        text = re.sub(r"invalid (int|float) value: (.*)$", lambda m: f"{m[2]} is no {NUMBERS[m[1]]}", text)
        raise ValueError(f"{text}; see {self.prog} --help")

    def parse(self, args: Sequence[str]) -> argparse.Namespace:
        """The options; ValueError for one that does not exist, naming the nearest."""
        found, rest = self.parse_known_args(list(args))
        if not rest:
            return found
        wrong = next((word for word in rest if word.startswith("-")), rest[0])
        if not wrong.startswith("-"):
            raise ValueError(f"{wrong!r}: one argument too many; see {self.prog} --help")
        raise ValueError(f"unknown option {wrong.split('=')[0]}; {self._nearest(wrong.split('=')[0])}")

    def _nearest(self, wrong: str) -> str:
        """The option meant: the one of that last name, else the most alike."""
        import difflib

        known = [word for action in self._actions for word in action.option_strings if word.startswith("--")]
        last = wrong.split(".")[-1].removeprefix("--")
        same = [word for word in known if word.endswith(f".{last}")]
        close = same or difflib.get_close_matches(wrong, known, n=1)
        return f"did you mean {close[0]}?" if close else f"see {self.prog} --help"


def add_sampling(parser: Parser, *, n: int = 1) -> None:
    """The options that the writing commands share; `n` samples by default."""
    parser.add_argument("--n", type=int, default=n, metavar="N", help=f"samples to write (default {n})")
    parser.add_argument("--sampler", metavar="NAME", help="default first-hitting, ARM causal, ILM insertion")
    parser.add_argument("--steps", type=int, metavar="K", help="steps of a sampler that takes a number of them")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0 greedy, 1 the model's law")
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="draw from the K likeliest tokens (0: all)")
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw from the likeliest share P (1: all)"
    )
    parser.add_argument("--block", type=int, metavar="N", help="write block by block, N tokens each")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same text (default 0)")


def add_cache(parser: Parser) -> None:
    """Options of key-value caches."""
    parser.add_argument(
        "--cache",
        metavar="KIND",
        help="exact (ARM, its default), prefix or dual (MDM, with --block; approximate), none (MDM's default)",
    )
    parser.add_argument(
        "--cache-error", action="store_true", help="ask without the cache too, and print how far predictions differ"
    )


def add_guidance(parser: Parser) -> None:
    """Options of classifier-free guidance."""
    parser.add_argument(
        "--guidance", type=float, default=0.0, metavar="W", help="push predictions towards the prompt (0: not)"
    )
    parser.add_argument(
        "--guide-from",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="guide only while more than this share of the tokens is to be written (default 0)",
    )
    parser.add_argument(
        "--guide-to",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="and while no more than this share is (default 1)",
    )


def add_model(parser: Parser) -> None:
    """Which model, and how to run it."""
    parser.add_argument("run", metavar="RUN", help="folder of a run, a model or a quickstart")
    parser.add_argument(
        "--dtype", default="float32", metavar="TYPE", help="float32 (default), bfloat16, float64 or auto"
    )
    parser.add_argument("--bos", metavar="TOKEN", help="special token before every row, as <s> (ARM; eval: MDM too)")
    add_device(parser)


def add_device(parser: Parser) -> None:
    """Where to compute."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto (a CUDA GPU, or else the CPU), cpu, cuda or mps",
    )
