"""Where a model lies: in a model folder, in the folder of a finished run, or in the main run of a quickstart."""

import json
from pathlib import Path

from anyorder.core.text import command
from anyorder.hub.fetch import HUB, fetch
from anyorder.hub.source import CONFIG, PICKLED

FILE_OF_WEIGHTS = "is a file of weights; make a model folder of it: anyorder convert {} OUT --tokenizer FOLDER"

STARTER = "starter"  # the name of the model that comes with the package
STARTER_PLACE = Path(__file__).resolve().parents[1] / STARTER


def model_folder(path: Path) -> Path:
    """Where the model of a model, run or quickstart folder lies, or where one of the hub was put (hub:ORG/NAME).

    `starter` names the small model of Python source that comes with the package, unless a folder has that name.

    Raises:
        ValueError: there is none; it says what is there.
    """
    if str(path).startswith(HUB):
        return _of_hub(path)
    if str(path) == STARTER and not path.exists():
        return starter_folder()
    if not path.is_dir():
        what = "is a file; name the folder it is in" if path.exists() else "no such folder; anyorder train makes one"
        if path.is_file() and path.suffix in (".safetensors", *PICKLED) and not (path.parent / "config.json").exists():
            what = FILE_OF_WEIGHTS.format(path)
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
            f"{command('anyorder', 'train', path / 'config.yaml', '--out', path)}"
        )
    runs = sorted(p.parent.name for p in path.glob("*/config.yaml"))
    if runs:
        raise ValueError(f"{path}: holds several runs; name one of them: {', '.join(str(path / r) for r in runs)}")
    raise ValueError(f"{path}: no model here; name a model folder, a run folder or a quickstart folder")


def _of_hub(name: Path) -> Path:
    """Where a folder of the hub was put, if commands can use it as it is; names are not those of files here."""
    place = fetch(str(name))
    if place.is_file():
        raise ValueError(f"{name}: {FILE_OF_WEIGHTS.format(name)}")
    if not (place / CONFIG).exists():
        raise ValueError(f"{name}: has no {CONFIG}; name one file of weights, {name}/FILE, to anyorder convert")
    if not any(place.glob("*.safetensors")):
        raise ValueError(f"{name}: has no safetensors; make a model folder of its pickles: anyorder convert {name} OUT")
    return place


def starter_folder() -> Path:
    """Where the starter model lies: inside the package.

    Raises:
        ValueError: an installation without it.
    """
    folder = STARTER_PLACE
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: the starter model is missing from this installation; install anyorder again")
    return folder


def _default_run(index: Path) -> str:
    try:
        return str(json.loads(index.read_text(encoding="utf-8"))["default"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{index}: does not name its default run; run anyorder quickstart again") from None
