"""The rules of the house that a program can check: layers, random calls, sizes, import weight."""

import ast
import subprocess
import sys
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
LONGEST_FUNCTION, LONGEST_FILE = 80, 500  # more owes a reason below
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
HEAVY += ("torch._dynamo", "sympy", "scipy", "tokenizers")  # torch's compiler alone takes 2 s of CPU time
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


def test_imports_go_to_lower_layers_only() -> None:
    wrong = []
    for file in FILES:
        own = part(file)
        if file == "__init__.py":
            continue
        if layer(own) < 0:
            wrong.append(f"{file}: {own} is in no layer; add it to LAYERS")
        upwards = [(name, line) for name, line in imported(file) if name != own and layer(name) >= layer(own)]
        wrong += [f"{file}:{line}: {own} may not import {name}" for name, line in upwards]
    assert not wrong, "\n".join(wrong)


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


def test_no_random_numbers_but_noise() -> None:
    files = [f for f in FILES if f != "core/noise.py"]
    wrong = [f"{file}:{line}: {what}" for file in files for what, line in random_calls(tree(file))]
    assert not wrong, "draw from a Noise instead:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    ["torch.rand(3)", "import random", "np.random.default_rng()", "x.normal_()", "from torch import randn, zeros"],
)
def test_the_search_for_random_calls_finds_them(line: str) -> None:
    assert list(random_calls(ast.parse(line)))
    assert not list(random_calls(ast.parse("noise.uniform(row); config.seed_of; noise.normal(3)")))


def test_no_forbidden_constructs() -> None:
    wrong = []
    for file, node in ((f, n) for f in FILES for n in ast.walk(tree(f))):
        line = f"{file}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            wrong.append(f"{line}: __future__ annotations turn the shape checker off")
        if isinstance(node, ast.Name) and node.id == "hasattr":
            wrong.append(f"{line}: hasattr; use a protocol")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.args.kwarg is not None:
            wrong.append(f"{line}: **{node.args.kwarg.arg}; name the options")
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_are_short() -> None:
    wrong = []
    for file in FILES:
        lines = len((SRC / file).read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE and file not in LONG_FILES:
            wrong.append(f"{file}: {lines} lines, at most {LONGEST_FILE}; split it")
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > LONGEST_FUNCTION and f"{file}:{node.name}" not in LONG_FUNCTIONS:
                    wrong.append(f"{file}:{node.lineno}: {node.name} has {length} lines; split it")
    assert not wrong, "\n".join(wrong)


def test_public_things_say_what_they_are() -> None:
    wrong = []
    for file in FILES:
        module = tree(file)
        if module.body and not ast.get_docstring(module):
            wrong.append(f"{file}: the module has no docstring")
        wrong += [
            f"{file}:{node.lineno}: {node.name} has no docstring"
            for node in module.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
        ]
    assert not wrong, "\n".join(wrong)


def loaded_by(code: str) -> set[str]:
    """Heavy packages that are imported once the code has run in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_import_is_light() -> None:
    assert loaded_by("import anyorder; anyorder.__version__; dir(anyorder)") == set()
    shapes = """
import anyorder; anyorder.GAP(1)
from anyorder.core.types import Vocab
from anyorder.hub.load import shapes_of
from anyorder.models.config import SIZES
from anyorder.models.dit import DitConfig
from anyorder.models.ilm import IlmConfig
vocab = Vocab(size=6, mask_id=6, pad_id=7, eos_id=5)
small = dict(num_layers=1, num_heads=2, d_model=8, d_ff=16, max_length=8)
tiny = SIZES["tiny"]
for config in (tiny, tiny.model_copy(update={"insertion": True}), DitConfig(**small), IlmConfig(**small, bos_id=4)):
    assert shapes_of(config, vocab)
"""  # what every command does first; a network without values needs no compiler
    assert loaded_by(shapes) == {"torch", "numpy", "tokenizers"}


def test_help_is_light() -> None:
    """Light is what makes it quick: what it takes on a clock depends on what else the machine does."""
    words = [[], *([c] for c in ("sample", "infill", "replay", "score", "inspect", "methods", "bench", "quickstart"))]
    run = f"from anyorder.cli.main import main; assert not any(main([*w, '--help']) for w in {words!r})"
    assert loaded_by(run) == set()
