"""Ten faults, each planted in a copy of the source: the default tests of what it breaks must fail.

    python tests/planted_faults.py [NUMBER ...]

Prints for each fault whether it was caught, and by how many tests; exit code 1 if one was missed. Minutes of work, so
no test of its own: run it after making tests cheaper.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Fault:
    """What is written instead of what in a file of the package, and the tests (pytest's words) that should see it."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str


FAULTS = [
    Fault(
        "sign of the count form's weight",
        "processes/masked.py",
        "num_targets.double() / n.clamp(min=1), 0.0)",
        "-num_targets.double() / n.clamp(min=1), 0.0)",
        "tests/processes/test_masked.py",
    ),
    Fault(
        "a bound without its importance weight",
        "processes/masked.py",
        "nelbo = (weight / density)",
        "nelbo = weight",
        "tests/processes/test_levels.py",
    ),
    Fault(
        "one position more in the steps of an even plan",
        "samplers/count.py",
        "(step < start % num_steps)",
        "(step <= start % num_steps)",
        "tests/samplers/test_sampler_rules.py",
    ),
    Fault(
        "noise shared by all rows",
        "core/noise.py",
        "r, s, p = _broadcast(row, step, position)",
        "r, s, p = _broadcast(torch.as_tensor(row) * 0, step, position)",
        "tests/test_noise.py",
    ),
    Fault(
        "a nucleus without the token that crosses p",
        "core/categorical.py",
        "outside = (mass.cumsum(-1) - mass) >= p",
        "outside = (mass.cumsum(-1) >= p) & (mass < mass[:, :1])",
        "tests/core/test_categorical.py -k top_p",
    ),
    Fault(
        "a document that reads those before it",
        "models/attention.py",
        "(segment_BL[:, :, None] == segment_BL[:, None, :])",
        "(segment_BL[:, :, None] >= segment_BL[:, None, :])",
        "tests/models/test_transformer.py",
    ),
    Fault(
        "a resumed run that skips a step",
        "train/loop.py",
        "range(first, config.num_steps)",
        "range(first + (first > 0), config.num_steps)",
        "tests/cli/test_bad_input.py -k ctrl_c_and_going_on",
    ),
    Fault(
        "keys and values of a token that has changed since",
        "models/memory.py",
        "(a == b).cumprod(-1).sum(-1).tolist()",
        "((a == b) | (b >= 0)).cumprod(-1).sum(-1).tolist()",
        "tests/models/test_cache.py -k causal_cache",
    ),
    Fault(
        "a gap one place too far to the left",
        "samplers/inserted.py",
        "window[row, list(places)] = True",
        "window[row, [max(0, k - 1) for k in places]] = True",
        "tests/samplers/test_sampler_insertion.py tests/test_api_insertion.py",
    ),
    Fault(
        "the sign of an advantage",
        "rl/advantage.py",
        "centred = grouped - grouped.mean(-1, keepdim=True)",
        "centred = grouped.mean(-1, keepdim=True) - grouped",
        "tests/rl/test_advantage.py",
    ),
]


def failures(fault: Fault, source: Path) -> int:
    """How many of the fault's tests fail with it, in a copy of the source that is as before afterwards."""
    path = source / "anyorder" / fault.file
    text = path.read_text(encoding="utf-8")
    if fault.right not in text:
        raise SystemExit(f"{fault.name}: {fault.right!r} is no longer in {fault.file}; plant it elsewhere")
    path.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
    paths = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *fault.tests.split()]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
        )
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise SystemExit(f"{fault.name}: pytest {fault.tests} did not run\n{done.stdout}{done.stderr}")
    found = re.search(r"(\d+) failed", done.stdout)
    return int(found[1]) if found else 0


def main(numbers: list[int]) -> int:
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "src", folder, dirs_exist_ok=True)
        for number in numbers or range(1, len(FAULTS) + 1):
            fault = FAULTS[number - 1]
            seen = failures(fault, Path(folder))
            missed += not seen
            print(
                f"{number:2d} {f'caught by {seen}' if seen else 'MISSED':13s} {fault.name} ({fault.tests})", flush=True
            )
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main([int(word) for word in sys.argv[1:]]))
