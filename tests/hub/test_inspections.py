"""What docs/checkpoints.md shows of a small checkpoint of each family is what `anyorder inspect` says of it."""

import importlib.util
import re
from pathlib import Path

from anyorder.cli.main import main
from anyorder.hub.families import FAMILIES

ROOT = Path(__file__).parents[2]


def without_hashes(text):
    """Another version of the tokenizers library spells the same file in other words."""
    return re.sub(r"SHA-256 \w+", "SHA-256", text).strip()


def test_shown_inspections_are_true(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("tiny_checkpoints", ROOT / "docs" / "tiny_checkpoints.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.chdir(tmp_path)
    script.tiny_checkpoints(Path("tiny"))
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^\$ anyorder inspect (tiny/\S+.*)\n((?:  .*\n)+)", page, flags=re.MULTILINE)
    shown = set()
    for words, text in blocks:
        assert main(["inspect", *words.split()]) == 0
        assert without_hashes(capsys.readouterr().out) == without_hashes(text)
        shown.add(words.split()[0].removeprefix("tiny/"))
    assert shown == set(FAMILIES)
