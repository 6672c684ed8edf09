"""Commands that look: `inspect`, `methods`, `bench`."""

import inspect as python
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from anyorder.cli.checkpoints import HEADS, KINDS, defaults, describe_checkpoint, shape_of
from anyorder.cli.parser import Parser
from anyorder.cli.show import count, finish, pairs, plus_minus, table

PARTS = {
    "embed": "embedding",
    "head": "head",
    "attn": "attention",
    "qkv": "attention",
    "out": "attention",
    "stop": "stop head",
    "level_1": "modulation",
    "level_2": "modulation",
    "modulation": "modulation",
}


def inspect(args: list[str]) -> None:
    parser = Parser(
        "inspect",
        usage="RUN [--heads N]",
        about="Show what a run or model is: its configuration, exact parameter counts, cost, tokenizer, last metrics,\n"
        "and whether its files are whole (SHA-256). Works on unfinished runs too, and on published checkpoints, of\n"
        "which it reads no weights: a folder, a .safetensors file or hub:ORG/NAME.",
        example="  anyorder inspect runs/quickstart",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, a model or a quickstart; a checkpoint")
    parser.add_argument("--heads", type=int, metavar="N", help=HEADS)
    found = parser.parse(args)
    from anyorder.hub.convert import open_checkpoint
    from anyorder.hub.find import model_folder

    path = found.run.expanduser()
    source = open_checkpoint(path)
    if source is not None:
        about, text = describe_checkpoint(source, heads=found.heads)
        return finish({"path": str(path), "checkpoint": about}, as_json=found.json, text=text)
    unfinished = (path / "config.yaml").exists() and not (path / "model").exists()
    folder = None if unfinished else model_folder(path)
    run = path if folder is None else folder.parent
    payload: dict[str, Any] = {"path": str(path), "finished": folder is not None}
    sections = []
    if folder is not None:
        about, text = describe_model(folder)
        payload["model"] = about
        sections.append(text)
    if (run / "config.yaml").exists():
        about, text = describe_run(run)
        payload["run"] = about
        sections.append(text)
    finish(payload, as_json=found.json, text="\n\n".join(sections))


def describe_model(folder: Path) -> tuple[dict[str, Any], str]:
    """Facts of a model folder, after reading all of it strictly, and as text."""
    from anyorder.hub.load import load_model
    from anyorder.models.flops import forward_flops, training_flops

    loaded = load_model(folder)
    config, vocab, length = loaded.model.config, loaded.model.vocab, loaded.model.config.max_length
    parts = parameters_by_part((name, p.numel()) for name, p in loaded.model.named_parameters())
    shape = {"rows": 1, "length": length, "head_positions": length, "vocab_size": vocab.size}
    forward = forward_flops(config, **shape) / length
    training = training_flops(config, **shape) / length
    files = {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.is_file()}
    about = {
        "folder": str(folder),
        "kind": loaded.kind,
        "config": config.model_dump(),
        "parameters": {"total": sum(parts.values()), **parts},
        "flops_per_token": {"forward": forward, "training": training},
        "tokenizer": {
            "kind": type(loaded.tokenizer).__name__,
            "vocab_size": vocab.size,
            "sha256": loaded.tokenizer.hash,
        },
        "files": files,
        "checksums": "ok",
    }
    counted = ", ".join(f"{name} {number:,}" for name, number in parts.items())
    lines = [
        ("model", f"{folder}"),
        ("kind", KINDS[loaded.kind]),
        ("shape", shape_of(config.model_dump(), defaults(config))),
        ("parameters", f"{sum(parts.values()):,}: {counted}"),
        (
            "FLOPs a token",
            f"{count(forward)} forward, {count(training)} training (rows of {length}, logits everywhere)",
        ),
        ("tokenizer", f"{type(loaded.tokenizer).__name__}, {vocab.size} ids, SHA-256 {loaded.tokenizer.hash[:12]}"),
        ("files", ", ".join(f"{name} {size:,} B" for name, size in files.items()) + "; checksums ok"),
    ]
    return about, pairs(lines)


def parameters_by_part(sizes: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Parameters by part of the network, from the names of its tensors."""
    out = {"embedding": 0, "attention": 0, "feed-forward": 0, "norms": 0, "head": 0}
    for name, size in sizes:
        words = name.removeprefix("trunk.").split(".")
        part = words[2] if words[0] == "blocks" else words[0]
        where = "norms" if "norm" in part else PARTS.get(part, "feed-forward")
        out[where] = out.get(where, 0) + size
    return out


def describe_run(run: Path) -> tuple[dict[str, Any], str]:
    """Facts of a run folder: configuration, last metrics, checkpoints and whether each is whole; and as text."""
    from anyorder.core.config import dump_config, load_config
    from anyorder.core.log import read_records
    from anyorder.train.checkpoint import checkpoints, read_state
    from anyorder.train.config import RunConfig

    config = load_config(RunConfig, run / "config.yaml")
    last: dict[str, Any] = {r["kind"]: r for r in read_records(run / "metrics.jsonl")}
    states: dict[str, str] = {}
    for folder in checkpoints(run):
        try:
            read_state(folder)
            states[folder.name] = "ok"
        except ValueError as error:
            states[folder.name] = str(error)
    about = {"folder": str(run), "config": config.model_dump(mode="json"), "last": last, "checkpoints": states}
    lines = [("run", str(run))]
    if "train" in last:
        t = last["train"]
        rate = f"{t['tokens_per_second']:,.0f} tokens/s"
        lines.append(("trained", f"step {t['step']}/{config.num_steps}, {count(t['tokens'])} tokens, {rate}"))
        lines.append(("compute", f"{count(t['flops'])} FLOPs in {t['seconds']:.0f} s"))
    if "valid" in last:
        v = last["valid"]
        nats = plus_minus(v["nats_per_token"], v["stderr"])
        bits = plus_minus(v["bits_per_byte"], v["bits_per_byte_stderr"])
        lines.append(("held out", f"{nats} nats/token, {bits} bits/byte at step {v['step']}"))
    lines.append(("checkpoints", ", ".join(f"{name}: {state}" for name, state in states.items()) or "none yet"))
    return about, pairs(lines) + "\n\n" + dump_config(config).rstrip()


def methods(args: list[str]) -> None:
    parser = Parser(
        "methods",
        usage="[--json]",
        about="List what is implemented: samplers (ways to write), processes (training objectives), and families of\n"
        "published checkpoints that are read.",
        example="  anyorder methods",
    )
    found = parser.parse(args)
    from anyorder.core.protocols import Process
    from anyorder.hub.families import FAMILIES
    from anyorder.processes import OPTIONS, PROCESSES
    from anyorder.samplers.presets import EVERY_PRESET

    samplers = [
        {
            "name": n,
            "exact": p.exact,
            "passes": p.nfe,
            "steps": p.paced,
            "paper": p.paper,
            "about": p.about,
            "rules": p.rules,
            "settings": dict(p.settings),
        }
        for n, p in EVERY_PRESET.items()
    ]
    processes = []
    for name, make in PROCESSES.items():
        process: Process = make()  # type: ignore[operator, assignment]
        about = (python.getdoc(make) or "").split("\n")[0]
        processes.append({"name": name, "paper": process.paper, "about": about, "train": OPTIONS.get(name)})
    families = [{"name": n, "about": f.about, "papers": list(f.papers)} for n, f in FAMILIES.items()]
    text = "\n".join(
        [
            "samplers (--sampler NAME); L is the number of tokens to write, N the number of --steps\n",
            table(["name", "law", "passes a row", "--steps", "paper"], [_sampler_row(s) for s in samplers]),
            "\nexact: with a perfect model, samples follow the data law at temperature 1\n",
            "\n".join(f"{s['name']}: {s['about']}\n{_made_of(s)}" for s in samplers),
            "\nprocesses, and the options of anyorder train\n",
            pairs([(str(p["name"]), _process_row(p)) for p in processes]),
            "\nfamilies of published checkpoints (anyorder convert, or the folder itself as RUN)\n",
            pairs([(n, " ".join([f.about, *(f"({paper})" for paper in f.papers)])) for n, f in FAMILIES.items()]),
        ]
    )
    finish({"samplers": samplers, "processes": processes, "families": families}, as_json=found.json, text=text)


def _process_row(p: dict[str, Any]) -> str:
    return f"{p['about']} ({p['paper']}); {p['train'] or 'from Python only, no option trains it'}"


def _made_of(s: dict[str, Any]) -> str:
    numbers = ",".join(f"{key}={value:g}" for key, value in s["settings"].items())
    spec = f"\n    --sampler {s['name']}:{numbers}" if numbers else ""
    return f"    {s['rules']}{spec}"


def _sampler_row(s: dict[str, Any]) -> list[str]:
    return [s["name"], "exact" if s["exact"] else "approximate", s["passes"], "yes" if s["steps"] else "no", s["paper"]]


def bench(args: list[str]) -> int:
    parser = Parser(
        "bench",
        usage="NAME [options of the script]",
        about="Run a benchmark of a checkout; further options go to its script. Its last line is one JSON object.",
        example="  anyorder bench training\n  anyorder bench sampling --quick",
    )
    parser.add_argument("name", metavar="NAME", help="training, sampling, presets, decoding, likelihood or insertion")
    found, rest = parser.parse_known_args(args)
    import anyorder
    from anyorder.core.config import nearest

    folder = Path(str(anyorder.__file__)).resolve().parents[2] / "benchmarks"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no benchmarks here; they come with a clone of the repository, run this inside one")
    known = sorted(f.stem for f in folder.glob("*.py") if f.stem not in ("common", "__init__"))
    if found.name not in known:
        raise ValueError(f"benchmark {found.name!r}: unknown; {nearest(found.name, known)}")
    return subprocess.run([sys.executable, str(folder / f"{found.name}.py"), *rest], check=False).returncode
