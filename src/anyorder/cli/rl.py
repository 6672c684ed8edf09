"""The command that learns from rewards: `rl`."""

from pathlib import Path
from typing import Any

from anyorder.cli.overrides import add_keys, given_keys, merged, with_underscores
from anyorder.cli.parser import Parser, add_device
from anyorder.cli.show import count, finish, pairs


def rl(args: list[str]) -> None:
    from anyorder.core.config import load_config, parse_config
    from anyorder.rl.config import RlConfig

    parser = Parser(
        "rl",
        usage="RUN [FILE.yaml] --task TASK [--out DIR] [--KEY VALUE ...]",
        about="Learn from rewards: a masked model, the schedule that writes with it, or both (Co-GRPO). FILE.yaml\n"
        "gives the values, options replace them. Killed at any moment, the same command goes on where it was.",
        example="  anyorder rl runs/scenes --task scenes --mode alternate\n"
        "  anyorder rl runs/sudoku --task sudoku --mode model_only --likelihood left-to-right",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the trained model to begin with")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.yaml", help="values")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default RUN-rl)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    add_device(parser)
    add_keys(parser, RlConfig)
    found = parser.parse(with_underscores(args))
    below = RlConfig() if found.file is None else load_config(RlConfig, found.file)
    config = parse_config(RlConfig, merged(below.model_dump(), given_keys(RlConfig, vars(found))), source="rl")
    from anyorder.core import dist
    from anyorder.core.files import check_output
    from anyorder.core.log import last_record, read_records
    from anyorder.core.text import command
    from anyorder.hub.convert import keep_beside
    from anyorder.hub.find import model_folder
    from anyorder.hub.load import load_model
    from anyorder.models.transformer import Transformer
    from anyorder.rl.loop import METRICS, SCHEDULE, learn, schedule_name
    from anyorder.rl.make import make_lesson

    out = found.out or found.run.with_name(found.run.name + "-rl")
    check_output(out, option="--out", folder=True)
    dist.use(found.device)
    base = model_folder(found.run)
    loaded = load_model(base)
    if not isinstance(loaded.model, Transformer) or loaded.model.config.causal:
        raise ValueError(f"{found.run}: holds no masked model of ours; the steps that are learned fill masks")
    place = learn(config, loaded.model, loaded.tokenizer, make_lesson(config), out, quiet=found.quiet)
    if dist.rank() != 0:
        return
    keep_beside(place, settings=base, tokenizer=base)
    records = read_records(out / METRICS)
    last = last_record(out / METRICS, "evaluation")
    frontier = [point | {"schedule": str(out / schedule_name(config, point["price"]))} for point in last["frontier"]]
    skipped = sum(r["skipped"] for r in records if r["kind"] == "iteration")
    groups = last["iteration"] * config.prompts
    files = {"model": str(place), "schedule": str(out / SCHEDULE)}
    summary = {**files, **last, "frontier": frontier, "groups": groups, "skipped": skipped}
    lines = [
        ("learned", f"{last['iteration']:,} iterations, {count(last['rollouts'])} roll-outs"),
        ("held out", _held_out(last)),
        *([("stopped", last["stopped"])] if last["stopped"] else []),
        *([("skipped", _skipped(skipped, groups))] if skipped else []),
        *((f"price {p['price']:.3g}", f"{_held_out(p)}, {Path(p['schedule']).name}") for p in frontier),
    ]
    hints = [command("anyorder", "sample", out, "--sampler", out / SCHEDULE), command("anyorder", "inspect", place)]
    finish(summary, as_json=found.json, text=f"{pairs(lines)}\n\ntry next:\n  {hints[0]}\n  {hints[1]}")


def _held_out(found: dict[str, Any]) -> str:
    return f"{found['reward']:.3f} ± {found['stderr']:.3f} reward, {found['nfe']:.1f} passes a row"


def _skipped(skipped: int, groups: int) -> str:
    """How many groups taught nothing."""
    text = f"{skipped:,} of {groups:,} groups, whose answers all earned the same"
    if skipped < groups:
        return text
    return f"{text}: nothing was learned; add a reward that tells answers apart (correct+0.5*dense), or explore more"
