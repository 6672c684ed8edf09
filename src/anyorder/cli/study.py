"""Commands that study: `plan` a model's passes, `study` a finding of a paper."""

import dataclasses
import json
from pathlib import Path

from anyorder.cli.parser import Parser, add_device
from anyorder.cli.show import finish, plus_minus, table
from anyorder.core.log import json_line

MOST_SIZES = 40  # of a plan printed in full


def plan(args: list[str]) -> None:
    parser = Parser(
        "plan",
        usage="RUN --nfe K [--rows N] [--seed S]",
        about="How many tokens to write in each of K passes: the best plan for a masked diffusion model's loss curve\n"
        "by dynamic programming, its predicted cost, and the cost measured on held-out rows, beside the usual plans.\n"
        "It only prints: no --sampler takes a plan yet, from Python the count rule Planned does.",
        example="  anyorder plan runs/quickstart --nfe 16",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run or a quickstart")
    parser.add_argument("--nfe", type=int, required=True, metavar="K", help="passes to plan for")
    parser.add_argument("--rows", type=int, default=64, metavar="N", help="held-out rows to measure on (default 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default 0")
    add_device(parser)
    found = parser.parse(args)
    from anyorder.core import dist
    from anyorder.studies.plan import plan as study

    dist.use(found.device)

    made = study(found.run, nfe=found.nfe, rows=found.rows, seed=found.seed)
    rows = [
        [c.name, str(len(c.groups)), f"{c.predicted:.2f}", plus_minus(c.measured, c.stderr, digits=2), sizes(c.groups)]
        for c in made.costs
    ]
    text = (
        f"{table(['plan', 'passes', 'predicted', 'measured', 'tokens in each pass'], rows)}\n\n"
        f"costs in nats per row of {len(made.z)} tokens, against one token per pass"
    )
    finish({"run": str(found.run), **dataclasses.asdict(made)}, as_json=found.json, text=text)


def sizes(groups: list[int]) -> str:
    """Group sizes for people, long plans cut."""
    shown = " ".join(map(str, groups[:MOST_SIZES]))
    return shown if len(groups) <= MOST_SIZES else f"{shown} ... ({len(groups)} in all)"


def study(args: list[str]) -> None:
    from anyorder.core.files import check_output, write_atomic
    from anyorder.studies import STUDIES

    parser = Parser(
        "study",
        usage="NAME [--out DIR] [--quick] [--scale SCALE] [--run RUN] [--seed S]",
        about="Show a finding of a paper anew: tables, NAME.json and NAME.svg in a folder, and one line of JSON that\n"
        "says which of the study's aims are met. Studies:\n"
        + "\n".join(f"  {n}: {s.about}" for n, s in STUDIES.items()),
        example="  anyorder study numerics --quick\n  anyorder study numerics --run runs/quickstart",
    )
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(STUDIES)}")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default runs/study-NAME, with -quick or -SCALE)"
    )
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, with fewer draws")
    parser.add_argument(
        "--scale", metavar="SCALE", help="of studies with several: tiny (default), pilot (cogrpo), or paper, for a GPU"
    )
    parser.add_argument("--run", type=Path, metavar="RUN", help="a trained model to study as well")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default 0")
    add_device(parser)
    found = parser.parse(args)
    from anyorder.core import dist

    dist.use(found.device)
    if found.name not in STUDIES:
        from anyorder.core.config import nearest

        raise ValueError(f"unknown study {found.name!r}; {nearest(found.name, STUDIES)}")
    kind = ["quick"] if found.quick else [s for s in STUDIES[found.name].scales[1:] if s == found.scale]
    out = found.out or Path("runs") / "-".join(["study", found.name, *kind])
    check_output(out, option="--out", folder=True)
    made = STUDIES[found.name].make(quick=found.quick, scale=found.scale, run=found.run, seed=found.seed, out=out)
    checks = {c.name: {"value": c.value, "aim": c.aim, "met": c.met} for c in made.checks}
    payload = {"study": found.name, **made.payload, "checks": checks}
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / f"{found.name}.json", json.dumps(json.loads(json_line(payload)), indent=1) + "\n")
    write_atomic(out / f"{found.name}.svg", made.svg)
    if not found.json:
        rows = [[c.name, f"{c.value:.3g}", c.aim, "met" if c.met else "MISSED"] for c in made.checks]
        print(f"{made.text}\n\n{table(['check', 'value', 'aim', ''], rows)}\n\nwrote {out}/{found.name}.json and .svg")
    print(json_line({"study": found.name, "out": str(out), "checks": checks}), flush=True)
