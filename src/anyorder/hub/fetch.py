"""Checkpoints of the Hugging Face hub by name: hub:ORG/NAME, hub:ORG/NAME@REVISION, hub:ORG/NAME/FILE. Extra `hub`."""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path

HUB = "hub:"
NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[\w./-]+))?")
SETTINGS = ["*.json", "*.jinja"]
WEIGHTS = [*SETTINGS, "*.safetensors"]
PICKLES = [*SETTINGS, "*.bin"]
DEEPER = ["*/*"]  # files in folders of a repository, which hold other models or formats


def fetch(name: str, patterns: Sequence[str] = WEIGHTS) -> Path:
    """Where a checkpoint of the hub lies on this machine, downloaded unless it is there already.

    Args:
        patterns: of the files that are downloaded with a folder; a file that is named by itself always is.
    Raises:
        ValueError: a name of another form, no `huggingface_hub`, or a hub that does not answer or has no such thing.
    """
    asked = NAME.fullmatch(name.removeprefix(HUB))
    if asked is None:
        raise ValueError(f"{name}: is no name of the hub; write hub:ORG/NAME, or hub:ORG/NAME/FILE for one file of it")
    repo, revision, file = asked["repo"], asked["revision"], asked["file"]
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise ValueError(f"{name}: needs huggingface_hub; install it with: pip install 'anyorder[hub]'") from None
    try:
        if file is not None:
            return Path(hub.hf_hub_download(repo, file, revision=revision))
        return Path(
            hub.snapshot_download(repo, revision=revision, allow_patterns=list(patterns), ignore_patterns=DEEPER)
        )
    except Exception as error:  # of the network, of the hub, of the name: too many kinds to list
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name}: cannot be had from the hub ({type(error).__name__}: {reason}); check the name and the network, "
            "or name a folder"
        ) from None
