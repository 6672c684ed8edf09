"""Commands that study a model: `plan`."""

import dataclasses
from pathlib import Path

from anyorder.cli.parser import Parser
from anyorder.cli.show import finish, plus_minus, table

MOST_SIZES = 40  # of a plan printed in full


def plan(args: list[str]) -> None:
    parser = Parser(
        "plan",
        usage="RUN --nfe K [--rows N] [--seed S]",
        about="How many tokens to write in each of K passes: the best plan for a masked diffusion model's loss curve\n"
        "by dynamic programming, its predicted cost, and the cost measured on held-out rows, beside the usual plans.",
        example="  anyorder plan runs/quickstart --nfe 16",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run or a quickstart")
    parser.add_argument("--nfe", type=int, required=True, metavar="K", help="passes to plan for")
    parser.add_argument("--rows", type=int, default=64, metavar="N", help="held-out rows to measure on (default 64)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default 0")
    found = parser.parse(args)
    from anyorder.studies.plan import plan as study

    made = study(found.run, nfe=found.nfe, rows=found.rows, seed=found.seed)
    rows = [
        [c.name, str(len(c.groups)), f"{c.predicted:.2f}", plus_minus(c.measured, c.stderr, digits=2), sizes(c.groups)]
        for c in made.costs
    ]
    text = (
        f"{table(['plan', 'passes', 'predicted', 'measured', 'tokens in each pass'], rows)}\n\n"
        f"costs in nats per row of {len(made.z)} tokens, against one token per pass"
    )
    finish({"run": found.run, **dataclasses.asdict(made)}, as_json=found.json, text=text)


def sizes(groups: list[int]) -> str:
    """Group sizes for people, long plans cut."""
    shown = " ".join(map(str, groups[:MOST_SIZES]))
    return shown if len(groups) <= MOST_SIZES else f"{shown} ... ({len(groups)} in all)"
