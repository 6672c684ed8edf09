"""The rules of the house that a program can check: layers, random calls, sizes, import weight."""

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "anyorder"
LAYERS = [
    {"core"},
    {"processes", "models", "data", "guidance", "testing", "page"},
    {"samplers", "likelihood", "hub"},
    {"train", "evaluation", "trace"},
    {"api"},
    {"scaling", "rl", "serve"},
    {"studies"},
    {"cli"},
    {"__main__"},
]
LONGEST_FUNCTION, LONGEST_FILE = 60, 350
LONG_FUNCTIONS: dict[str, str] = {}  # "file.py:name": why it must be longer
LONG_FILES: dict[str, str] = {}
RANDOM_CALLS = {
    "bernoulli",
    "exponential_",
    "Generator",
    "manual_seed",
    "multinomial",
    "normal_",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random_",
    "randperm",
    "uniform_",
}
HEAVY = ("torch", "numpy", "transformers", "lm_eval", "matplotlib", "datasets", "huggingface_hub", "rich")
FILES = sorted(p.relative_to(SRC).as_posix() for p in SRC.rglob("*.py"))


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((SRC / file).read_text(encoding="utf-8"))


def part(file: str) -> str:
    """The folder of a file, or the name of a module that lies in none."""
    return file.split("/")[0].removesuffix(".py")


def layer(name: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if name in names), -1)


def imported(file: str) -> Iterator[tuple[str, int]]:
    """Parts of the package that a file imports anywhere in it, and the line."""
    for node in ast.walk(tree(file)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import; write the whole name"
            module = node.module or ""
            names = [f"{module}.{a.name}" for a in node.names] if module == "anyorder" else [module]
        for name in names:
            words = name.split(".")
            if words[0] == "anyorder" and len(words) > 1 and layer(words[1]) >= 0:
                yield words[1], node.lineno


@pytest.mark.parametrize("file", [f for f in FILES if f != "__init__.py"])
def test_imports_go_to_lower_layers_only(file: str) -> None:
    own = part(file)
    assert layer(own) >= 0, f"{file}: {own} is in no layer; add it to LAYERS"
    for name, line in imported(file):
        assert name == own or layer(name) < layer(own), f"{file}:{line}: {own} may not import {name}"


def random_calls(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Attributes and imports through which a program draws numbers without a `Noise`."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in ("random", "secrets", "numpy.random"):
                    yield f"import {alias.name}", node.lineno
        elif isinstance(node, ast.ImportFrom):
            banned = {a.name for a in node.names} & (RANDOM_CALLS | {"random"})
            if node.module in ("random", "secrets", "numpy.random") or (node.module in ("torch", "numpy") and banned):
                yield f"from {node.module} import", node.lineno
        elif isinstance(node, ast.Attribute):
            of_numpy = isinstance(node.value, ast.Name) and node.value.id in ("np", "numpy", "torch")
            if node.attr in RANDOM_CALLS or (node.attr in ("random", "seed") and of_numpy):
                yield f".{node.attr}", node.lineno


@pytest.mark.parametrize("file", [f for f in FILES if f != "core/noise.py"])
def test_no_random_numbers_but_noise(file: str) -> None:
    found = [f"{file}:{line}: {what}" for what, line in random_calls(tree(file))]
    assert not found, f"draw from a Noise instead: {found}"


@pytest.mark.parametrize(
    "line",
    ["torch.rand(3)", "import random", "np.random.default_rng()", "x.normal_()", "from torch import randn, zeros"],
)
def test_the_search_for_random_calls_finds_them(line: str) -> None:
    assert list(random_calls(ast.parse(line)))
    assert not list(random_calls(ast.parse("noise.uniform(row); config.seed_of; noise.normal(3)")))


@pytest.mark.parametrize("file", FILES)
def test_no_forbidden_constructs(file: str) -> None:
    for node in ast.walk(tree(file)):
        line = f"{file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            raise AssertionError(f"{line}: __future__ annotations turn the shape checker off")
        assert not (isinstance(node, ast.Name) and node.id == "hasattr"), f"{line}: hasattr; use a protocol"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.args.kwarg is None, f"{line}: **{node.args.kwarg and node.args.kwarg.arg}; name the options"


@pytest.mark.parametrize("file", FILES)
def test_files_and_functions_are_short(file: str) -> None:
    lines = len((SRC / file).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE or file in LONG_FILES, f"{file}: {lines} lines, at most {LONGEST_FILE}; split it"
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            known = f"{file}:{node.name}" in LONG_FUNCTIONS
            assert length <= LONGEST_FUNCTION or known, (
                f"{file}:{node.lineno}: {node.name} has {length} lines; split it"
            )


@pytest.mark.parametrize("file", FILES)
def test_public_things_say_what_they_are(file: str) -> None:
    module = tree(file)
    assert not module.body or ast.get_docstring(module), f"{file}: the module has no docstring"
    for node in module.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{file}:{node.lineno}: {node.name} has no docstring"


def loaded_by(code: str) -> set[str]:
    """Heavy packages that are imported once the code has run in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_import_is_light() -> None:
    assert loaded_by("import anyorder; anyorder.__version__; dir(anyorder)") == set()
    assert "torch" in loaded_by("import anyorder; anyorder.GAP(1)")


def test_help_is_light_and_quick() -> None:
    run = "from anyorder.cli.main import main"
    assert loaded_by(f"{run}; assert main(['--help']) == 0") == set()
    for command in ("sample", "infill", "replay", "score", "inspect", "methods", "bench", "quickstart"):
        assert loaded_by(f"{run}; assert main(['{command}', '--help']) == 0") == set(), command
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "anyorder", "--help"], capture_output=True, check=True)
    assert time.monotonic() - began < 1.5
