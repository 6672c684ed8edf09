"""Where a model lies: in a model folder, in the folder of a finished run, or in the main run of a quickstart."""

import json
from pathlib import Path

from anyorder.hub.fetch import HUB, fetch
from anyorder.hub.pickles import PICKLED


def model_folder(path: Path) -> Path:
    """Where the model of a model, run or quickstart folder lies, or where one of the hub was put (hub:ORG/NAME).

    Raises:
        ValueError: there is none; it says what is there.
    """
    if str(path).startswith(HUB):
        return fetch(str(path))
    if not path.is_dir():
        what = "is a file; name the folder it is in" if path.exists() else "no such folder; anyorder train makes one"
        if path.is_file() and path.suffix in (".safetensors", *PICKLED) and not (path.parent / "config.json").exists():
            what = "is a file of weights; make a model folder of it with anyorder convert"
        raise ValueError(f"{path}: {what}")
    if (path / "config.json").exists():
        return path
    if (path / "model").is_dir():
        return path / "model"
    if (path / "quickstart.json").exists():
        return model_folder(path / _default_run(path / "quickstart.json"))
    if (path / "config.yaml").exists():
        saved = sorted(p.name for p in path.glob("step_*"))
        reached = f"its last checkpoint is {saved[-1]}" if saved else "it has no checkpoint yet"
        raise ValueError(
            f"{path}: the run is not finished ({reached}); finish it with: "
            f"anyorder train {path / 'config.yaml'} --out {path}"
        )
    runs = sorted(p.parent.name for p in path.glob("*/config.yaml"))
    if runs:
        raise ValueError(f"{path}: holds several runs; name one of them: {', '.join(str(path / r) for r in runs)}")
    raise ValueError(f"{path}: no model here; name a model folder, a run folder or a quickstart folder")


def _default_run(index: Path) -> str:
    try:
        return str(json.loads(index.read_text(encoding="utf-8"))["default"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{index}: does not name its default run; run anyorder quickstart again") from None
