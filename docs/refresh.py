"""Run the commands of a page again and put in what they print: python docs/refresh.py docs/cli.md [COMMAND ...]

Blocks are fenced as `console`; lines that begin with "$ " are commands, the rest is their output. With COMMANDs, only
blocks that run one of these are refreshed. Run it where runs/quickstart is. The test suite does not run this.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^```console\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
MOST_LINES = 60


def output(command: str) -> str:
    """What a command prints, errors included; the reader's home folder is ~, long outputs are cut."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "120"}
    done = subprocess.run(
        command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
    )
    lines = [line.rstrip() for line in done.stdout.replace(str(Path.home()), "~").rstrip().split("\n")]
    return "\n".join(lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], "..."])


def refreshed(block: re.Match[str], only: list[str]) -> str:
    commands = [line[2:] for line in block[1].splitlines() if line.startswith("$ ")]
    if only and not any(c.split()[1:2] == [o] for c in commands for o in only):
        return block[0]
    return "```console\n" + "".join(f"$ {c}\n{output(c)}\n" for c in commands) + "```"


def main(page: Path, only: list[str]) -> None:
    page.write_text(BLOCK.sub(lambda block: refreshed(block, only), page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
