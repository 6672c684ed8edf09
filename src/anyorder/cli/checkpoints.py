"""The command `convert`, and what `inspect` says of published checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyorder.cli.parser import Parser
from anyorder.cli.show import count, finish, pairs

if TYPE_CHECKING:
    from anyorder.hub.source import Source

KINDS = {"mdm": "masked diffusion (MDM)", "arm": "autoregressive (ARM)", "ilm": "insertion (ILM)"}
HEADS = "attention heads of a checkpoint that comes without a configuration"


def convert(args: list[str]) -> None:
    parser = Parser(
        "convert",
        usage="FROM OUT [--to FAMILY] [--tokenizer FILE] [--dtype TYPE] [--heads N]",
        about="Make a model folder of a published checkpoint: a folder, a .safetensors file, hub:ORG/NAME, or a\n"
        "pickle (.pt, .pth, .ckpt, .bin), of which tensors alone are read. With --to, the other way: a model folder\n"
        "in the layout of a family. Weights are read and written one at a time.",
        example="  anyorder convert mdm-170M-100e18.safetensors models/smdm --tokenizer tinyllama/tokenizer.json\n"
        "  anyorder convert runs/quickstart/text-arm models/arm --to llama",
    )
    parser.add_argument("source", type=Path, metavar="FROM", help="a checkpoint, or the folder of a run or a model")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    parser.add_argument(
        "--to", metavar="FAMILY", help="anyorder (the default), or a family that anyorder methods lists"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json or its folder, if none lies beside the weights; or hub:ORG/NAME",
    )
    parser.add_argument("--dtype", metavar="TYPE", help="of the new weights: float32, bfloat16 (default as they are)")
    parser.add_argument("--heads", type=int, metavar="N", help=HEADS)
    found = parser.parse(args)
    import torch

    from anyorder.core.config import nearest
    from anyorder.core.files import check_output
    from anyorder.core.text import command
    from anyorder.hub.convert import convert as run

    check_output(found.out.expanduser(), option="OUT", folder=True)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if found.dtype not in (None, *dtypes):
        raise ValueError(f"dtype={found.dtype!r}: unknown; {nearest(found.dtype, dtypes)}")
    made = run(
        found.source.expanduser(),
        found.out.expanduser(),
        to=found.to,
        tokenizer=found.tokenizer,
        dtype=None if found.dtype is None else dtypes[found.dtype],
        heads=found.heads,
    )
    about = {
        "folder": str(made.folder),
        "family": made.family,
        "layout": made.layout,
        "tensors": made.num_tensors,
        "parameters": made.num_params,
        "note": made.note,
    }
    lines = [
        ("folder", str(made.folder)),
        ("family", made.family),
        ("layout", made.layout),
        ("weights", f"{made.num_params:,} parameters in {made.num_tensors} tensors" + of(made.note)),
    ]
    hint = command("anyorder", "inspect", made.folder)
    finish(about, as_json=found.json, text=f"{pairs(lines)}\n\ntry next:\n  {hint}")


def of(note: str) -> str:
    """Which of several sets of weights."""
    return f", {note}" if note else ""


def describe_checkpoint(source: "Source", *, heads: int | None) -> tuple[dict[str, Any], str]:
    """Facts of a published checkpoint whose names and shapes fit, from its headers alone; and as text."""
    from anyorder.hub.families import FAMILIES
    from anyorder.hub.published import published

    checkpoint = published(source, heads=heads)
    plan, family = checkpoint.plan, FAMILIES[checkpoint.name]
    dtypes = sorted({str(source.entries[name].dtype).removeprefix("torch.") for name, _ in checkpoint.tensors})
    about = {
        "place": str(source.place),
        "family": checkpoint.name,
        "kind": checkpoint.kind,
        "config": plan.config.model_dump(),
        "parameters": checkpoint.num_params,
        "tensors": len(checkpoint.tensors),
        "dtypes": dtypes,
        "bytes": checkpoint.num_bytes,
        "vocab_size": plan.size,
    }
    tokenizer, ids = _tokenizer(checkpoint)
    lines = [
        ("checkpoint", str(source.place)),
        ("family", f"{checkpoint.name}: {family.about}"),
        ("kind", KINDS[checkpoint.kind]),
        ("shape", shape_of(plan.config.model_dump(), defaults(plan.config))),
        (
            "parameters",
            f"{checkpoint.num_params:,} in {len(checkpoint.tensors)} tensors, {', '.join(dtypes)}, "
            f"{count(checkpoint.num_bytes)}B{of(source.note)}",
        ),
        ("vocabulary", f"{plan.size} ids{ids}"),
        ("tokenizer", tokenizer),
        ("checked", "names and shapes; anyorder convert and every use check the values too"),
    ]
    return about | {"tokenizer": tokenizer}, pairs(lines)


def _tokenizer(checkpoint: Any) -> tuple[str, str]:
    """The tokenizer beside a checkpoint, or why there is none; and its special ids."""
    from anyorder.hub.load import published_tokenizer

    try:
        found = published_tokenizer(checkpoint, checkpoint.source.folder)
    except ValueError as error:
        return f"none: {error}", ""
    vocab = found.vocab
    mask = "" if checkpoint.kind != "mdm" else f", mask {vocab.mask_id}"
    end = "" if vocab.eos_id is None else f", end of document {vocab.eos_id}"
    return f"{type(found).__name__}, SHA-256 {found.hash[:12]}", mask + end


def defaults(config: Any) -> dict[str, Any]:
    """The default of every field of a configuration."""
    return {name: field.default for name, field in type(config).model_fields.items()}


def shape_of(config: dict[str, Any], usual: dict[str, Any]) -> str:
    """A configuration in one line: the sizes, and what differs from the usual network."""
    sizes = ("num_layers", "num_heads", "d_model", "d_ff", "max_length", "rope_base", "norm_eps")
    shown = {k: v for k, v in config.items() if k in sizes or (k != "causal" and v != usual.get(k))}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
