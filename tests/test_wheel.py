"""What an installation holds: every file of the package that is not code is named in the build's settings."""

import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "anyorder"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def data_files():
    """Files of the package that are not Python, as the wheel names them."""
    files = {p.relative_to(PACKAGE) for p in PACKAGE.rglob("*") if p.is_file()}
    return {f.as_posix() for f in files if f.suffix not in (".py", ".pyc")}


def test_every_data_file_is_packaged_and_every_pattern_finds_one():
    patterns = SETTINGS["tool"]["setuptools"]["package-data"]["anyorder"]
    matched = {p: {f.relative_to(PACKAGE).as_posix() for f in PACKAGE.glob(p)} for p in patterns}
    assert data_files() <= set().union(*matched.values())
    assert {"py.typed", "page/parts/page.html", "page/parts/page.css", "page/parts/page.js"} <= data_files()
    assert all(matched[p] for p in patterns if p != "starter/*")


def test_every_folder_with_code_is_a_package():
    """Without __init__.py a folder is left out of wheels by some build tools, and of mypy's view."""
    assert all((p.parent / "__init__.py").is_file() for p in PACKAGE.rglob("*.py"))


def test_the_sdist_names_what_there_is():
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        word, *names = line.split()
        if word in ("include", "graft"):
            assert all((ROOT / name).exists() for name in names), line


@pytest.mark.slow
@pytest.mark.network
def test_a_wheel_in_an_empty_environment_fills_a_gap():
    done = subprocess.run(["make", "wheel-check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "auto is float32" in done.stdout or "auto is bfloat16" in done.stdout
    assert "def add(a, b):" in done.stdout.split("--- 1/1", 1)[1]
    (wheel,) = (ROOT / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as held:
        assert {f"anyorder/{name}" for name in data_files()} <= set(held.namelist())
