"""The command `anyorder`: finds the command, runs it, turns every error into one sentence and an exit code.

Exit codes: 0 done, 2 bad input (nothing was changed), 1 a failure or Ctrl-C while running. ANYORDER_DEBUG=1 shows
tracebacks. Nothing heavy is imported before a command runs.
"""

import errno
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command: one line about it, the module with its function, and whether it goes on where it was stopped."""

    about: str
    module: str
    resumes: bool = False

    def load(self, name: str) -> Callable[[list[str]], int | None]:
        run: Callable[[list[str]], int | None] = getattr(importlib.import_module(f"anyorder.cli.{self.module}"), name)
        return run


COMMANDS = {
    "quickstart": Command(
        "see models fill gaps, learn a puzzle and read text in minutes, and a page of it", "make", True
    ),
    "data": Command("turn text into tokens that runs read", "make", True),
    "train": Command("train a model on text or on a made task", "make", True),
    "sample": Command("let a model write", "use"),
    "infill": Command("let a model fill the gaps in a text", "use"),
    "replay": Command("do a recorded generation again and check that nothing differs", "trace"),
    "score": Command("measure how well a model predicts a text", "use"),
    "quality": Command("measure a model's samples: a judge's perplexity and their own entropy, together", "quality"),
    "eval": Command("measure how often a model is right, on tasks of one's own or of lm-eval", "evaluate", True),
    "plan": Command("how many tokens to write per pass, from a model's own loss curve", "study"),
    "rl": Command("learn from rewards: a masked model, the schedule that writes with it, or both", "rl", True),
    "study": Command("show a finding of a paper anew, with tables and a plot", "study"),
    "doctor": Command("what this machine can do, what auto chooses on it, and what would make it faster", "doctor"),
    "inspect": Command("show what a run or model is, how far it got and whether its files are whole", "look"),
    "convert": Command("make a model folder of a published checkpoint, or the other way", "checkpoints"),
    "methods": Command("list samplers and training objectives with their papers and costs", "look"),
    "bench": Command("run the benchmarks of a checkout", "look"),
}
TUNED = {
    "OMP_WAIT_POLICY": "passive",  # waiting threads sleep: spinning ones stall other processes on the same cores
    "GLIBC_TUNABLES": ":".join(  # tensors lie in huge pages, and freed memory is kept for the next ones
        [
            "glibc.malloc.hugetlb=1",
            "glibc.malloc.mmap_threshold=33554432",
            "glibc.malloc.trim_threshold=17179869184",
        ]
    ),
}
BAD_INPUT = (ValueError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
HELP = """usage: anyorder COMMAND [options]

Language models that generate in any order: train, sample, score and look at them.

commands:
{commands}

anyorder COMMAND --help shows the options of a command and an example. Begin with:
  anyorder quickstart"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if argv is None and args and args[0] in COMMANDS:
        _start_tuned()
    if argv is None:
        warnings.formatwarning = _one_line  # type: ignore[assignment]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # text of a model on a terminal that is not UTF-8
    debug = os.environ.get("ANYORDER_DEBUG", "0") not in ("", "0")
    resumes = bool(args) and args[0] in COMMANDS and COMMANDS[args[0]].resumes
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _say("stopped; run the same command to go on from the last checkpoint" if resumes else "stopped", code=1)
    except BrokenPipeError:  # the reader (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        return _say(sentence(error), code=2 if isinstance(error, BAD_INPUT) else 1)


def sentence(error: Exception) -> str:
    """An error as one line for people."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno == errno.ENOSPC and "full" not in error.strerror
        text = f"{where}{'the disk is full' if full else error.strerror}"
    elif isinstance(error, ValueError | RuntimeError | OSError):
        text = str(error) or type(error).__name__
    else:
        text = f"internal error: {type(error).__name__}: {error}; please report it (ANYORDER_DEBUG=1 shows where)"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _run(args: list[str]) -> int:
    try:
        return _dispatch(args)
    except SystemExit as done:  # how argparse ends after --help
        return int(done.code or 0)


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        print(HELP.format(commands="\n".join(f"  {n.ljust(width)}  {c.about}" for n, c in COMMANDS.items())))
        return 0 if args else 2
    if args[0] == "--version":
        import anyorder

        print(anyorder.__version__)
        return 0
    if args[0] not in COMMANDS:
        from anyorder.core.config import nearest

        raise ValueError(f"unknown command {args[0]!r}; {nearest(args[0], COMMANDS)}")
    return COMMANDS[args[0]].load(args[0])(args[1:]) or 0


def _start_tuned() -> None:
    """Begin again, once, under `TUNED`, which must be set before a process starts; what the user has set is kept."""
    if sys.platform == "linux" and not TUNED.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], TUNED | os.environ)


def _one_line(message: Warning | str, *_: object) -> str:
    """A warning as one line for people."""
    return f"anyorder: warning: {' '.join(str(message).split())}\n"


def _say(text: str, *, code: int) -> int:
    print(f"anyorder: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
