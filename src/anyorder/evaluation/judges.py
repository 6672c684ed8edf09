"""Which judge: by folder, by name on the hub, or the autoregressive twin that lies beside a run."""

from pathlib import Path

from anyorder.evaluation.gen_ppl import Judge, ModelJudge
from anyorder.evaluation.hf_judge import hub_judge, is_transformers_folder
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model, read_about

HUB = "hub:"


def load_judge(spec: str, *, device: str = "cpu") -> Judge:
    """The judge that `spec` names: a folder of ours or of `transformers`, or hub:NAME. Activations are float32.

    Raises:
        ValueError: nothing there, or a model that is not autoregressive.
    """
    if spec.startswith(HUB):
        return hub_judge(spec.removeprefix(HUB), device=device)
    path = Path(spec).expanduser()
    if is_transformers_folder(path):
        return hub_judge(str(path), device=device)
    try:
        folder = model_folder(path)
        loaded = load_model(folder)
    except ValueError as error:
        raise ValueError(f"judge: {error}; a model of the hub is named hub:NAME") from None
    if loaded.kind != "arm":
        what = "an insertion model" if loaded.kind == "ilm" else "a masked diffusion model"
        raise ValueError(f"judge {spec}: is {what}, which does not read from left to right; name an autoregressive one")
    model = loaded.model.to(device)
    return ModelJudge(str(run_of(folder)), model, loaded.tokenizer, model.config.max_length, device)


def run_of(folder: Path) -> Path:
    """The run a model folder belongs to: the folder around it, or itself if it stands alone."""
    return folder.parent if folder.name == "model" else folder


def find_twin(run: Path) -> Path | None:
    """The finished autoregressive run with the same tokenizer in the folder where `run` lies, or None.

    Of an autoregressive run it is the run itself. Of several, the one that is named alike, "-arm" for "-mdm" or "-ilm".

    Raises:
        ValueError: no model at `run`, or several candidates.
    """
    folder = model_folder(run)
    own, about = run_of(folder), read_about(folder)
    if about["kind"] == "arm":
        return own
    found = [
        p.parent.parent for p in sorted(own.parent.glob("*/model/config.json"))
        if _is_arm(p.parent, tokenizer_hash=about["tokenizer_hash"])
    ]  # fmt: skip
    alike = [p for p in found if p.name == own.name.removesuffix(f"-{about['kind']}") + "-arm"]
    if len(alike or found) > 1:
        raise ValueError(
            f"{run}: several runs beside it could judge; name one with --judge: {', '.join(map(str, found))}"
        )
    return next(iter(alike or found), None)


def _is_arm(folder: Path, *, tokenizer_hash: str) -> bool:
    try:
        about = read_about(folder)
    except ValueError:
        return False
    return bool(about["kind"] == "arm" and about["tokenizer_hash"] == tokenizer_hash)
