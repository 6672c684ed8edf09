"""The documentation is true: its code runs, its tables name everything there is, its links lead somewhere."""

import ast
import contextlib
import io
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from anyorder.cli.main import COMMANDS
from anyorder.cli.main import main as anyorder
from anyorder.core.noise import Noise
from anyorder.core.protocols import Process
from anyorder.core.schedule import SCHEDULES
from anyorder.data.tasks import TASKS
from anyorder.data.tokenizer import ByteTokenizer
from anyorder.hub.save import save_model
from anyorder.models.config import SIZES
from anyorder.models.transformer import Transformer
from anyorder.processes import PROCESSES
from anyorder.samplers.inserting import INSERTING
from anyorder.samplers.presets import PRESETS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "anyorder"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
ARXIV = re.compile(r"\b(\d{4}\.\d{5})\b")
NEEDS_RUN = "<!-- needs a run -->"
NEEDS_IMAGES = "<!-- needs the extra images -->"  # run by tests/hub/test_meissonic.py


@dataclass(frozen=True)
class Block:
    """A fenced block: its language with attributes, its text, the line it begins at, the line above its fence."""

    info: str
    text: str
    line: int
    above: str


def blocks(page):
    """The fenced blocks of a page in order."""
    found, inside, start, above = [], None, 0, ""
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if line.startswith("```") and inside is None:
            inside, start, above = line[3:].strip(), number, lines[number - 2] if number > 1 else ""
        elif line == "```":
            text = "\n".join(lines[start : number - 1]) + "\n"
            found.append(Block(inside, text, start + 1, above))
            inside = None
    assert inside is None, f"{page.name}: the block of line {start} is not closed"
    return found


def rows(page, *, below):
    """The cells of the table under a heading, by first cell (its backticks taken off)."""
    section = page.read_text(encoding="utf-8").split(f"\n## {below}\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): [cell.strip() for cell in row] for row in cells}


def doc(name):
    return ROOT / "docs" / name


@pytest.fixture(scope="module")
def quickstart_like(tmp_path_factory):
    """A folder with runs/quickstart in it: its index and a small untrained model of bytes."""
    place = tmp_path_factory.mktemp("docs")
    run = place / "runs" / "quickstart"
    tokenizer = ByteTokenizer()
    model = Transformer(SIZES["tiny"].model_copy(update={"max_length": 64}), tokenizer.vocab)
    model.init_weights(Noise.of(0).at("weights"))
    (run / "text-mdm").mkdir(parents=True)
    save_model(run / "text-mdm" / "model", model, tokenizer)
    (run / "quickstart.json").write_text(json.dumps({"default": "text-mdm"}))
    return place


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.info == "python" for b in blocks(p))], ids=lambda p: p.stem)
def test_python_blocks_run_and_print_what_they_say(page, quickstart_like, monkeypatch):
    monkeypatch.chdir(quickstart_like)
    names = {"__name__": "documentation"}
    every = blocks(page)
    for block, after in zip(every, [*every[1:], None]):
        if block.info != "python" or block.above == NEEDS_IMAGES:
            continue
        assert "runs/" not in block.text or block.above == NEEDS_RUN, f"{page.name}:{block.line}: mark it {NEEDS_RUN}"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (block.line - 1) + block.text, page.name, "exec", dont_inherit=True), names)
        if after is not None and after.info == 'text title="output"':
            assert printed.getvalue() == after.text, f"{page.name}:{after.line}"


def test_output_blocks_follow_python_blocks():
    for page in PAGES:
        every = blocks(page)
        for before, block in zip([None, *every], every):
            assert "output" not in block.info or before.info == "python", f"{page.name}:{block.line}"


@pytest.mark.parametrize(("below", "presets"), [("Samplers", PRESETS), ("Samplers of insertion models", INSERTING)])
def test_every_preset_has_a_true_row(below, presets):
    table = rows(doc("methods.md"), below=below)
    assert table.keys() == presets.keys()
    for name, preset in presets.items():
        _, _, exact, passes, steps, paper = table[name]
        assert exact == ("yes" if preset.exact else "no"), name
        assert passes == preset.nfe, name
        assert steps.startswith("yes" if preset.paced else "no"), name
        assert paper == preset.paper, name


def test_every_process_has_a_row_with_its_paper():
    table = rows(doc("methods.md"), below="Processes")
    for name, make in PROCESSES.items():
        process = make()
        assert isinstance(process, Process)
        assert process.paper in table[name][3], name


def test_every_schedule_has_a_row_with_its_ends():
    import torch

    table = rows(doc("methods.md"), below="Schedules")
    assert table.keys() == SCHEDULES.keys()
    for name, make in SCHEDULES.items():
        ends = make().alpha(torch.tensor([0.0, 1.0], dtype=torch.float64))
        whole = bool((ends - torch.tensor([1.0, 0.0])).abs().max() < 1e-12)
        assert table[name][3] == ("yes" if whole else "no"), name


def public_functions(path):
    return [
        node.name for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]  # fmt: skip


def test_every_likelihood_and_rule_is_listed():
    listed = rows(doc("methods.md"), below="Likelihoods")
    functions = {name for path in (SOURCE / "likelihood").glob("*.py") for name in public_functions(path)}
    assert functions == listed.keys()
    rules = " ".join(rows(doc("methods.md"), below="Rules"))
    for module in ("count", "adaptive", "scheduled", "position", "revise", "keep_best"):
        tree = ast.parse((SOURCE / "samplers" / f"{module}.py").read_text())
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and "Protocol" not in [ast.unparse(base) for base in node.bases]:
                assert re.search(rf"\b{node.name}\b", rules), node.name


def test_every_task_is_listed():
    text = doc("methods.md").read_text()
    assert all(f"--task {name}" in text for name in TASKS)


def test_every_command_has_a_section():
    headings = re.findall(r"^## (\S+)$", doc("cli.md").read_text(), flags=re.MULTILINE)
    assert headings == list(COMMANDS)


def shown_commands():
    """Every `anyorder ...` line of a shell or console block."""
    for page in PAGES:
        for block in blocks(page):
            if block.info in ("bash", "console"):
                for line in block.text.splitlines():
                    command = line.removeprefix("$ ").split(" | ")[0].split("  #")[0]
                    if command.startswith("anyorder ") and (block.info == "bash" or line.startswith("$ ")):
                        yield page.name, shlex.split(command)


@pytest.fixture(scope="module")
def help_of():
    """What each command's --help says."""
    found = {}
    for name in COMMANDS:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert anyorder([name, "--help"]) == 0
        found[name] = printed.getvalue()
    return found


def test_shown_commands_and_options_exist(help_of):
    seen = set()
    for page, (_, name, *rest) in shown_commands():
        if name == "--help":
            continue
        assert name in COMMANDS, f"{page}: anyorder {name}"
        seen.add(name)
        options = [word for word in rest if word.startswith("--") and word != "--optim.warmup"]  # shown as wrong
        if name == "bench":
            script = (ROOT / "benchmarks" / f"{rest[0]}.py").read_text()
            assert all(f'"{option}"' in script for option in options), f"{page}: {rest}"
            continue
        for option in options:
            assert re.search(rf"(?<![\w.-]){re.escape(option)}(?![\w.-])", help_of[name]), f"{page}: {name} {option}"
        for file in (word for word in rest if word.startswith("configs/")):
            assert (ROOT / file).is_file(), f"{page}: {file}"
    assert seen == set(COMMANDS)


def test_every_option_of_sample_and_quickstart_is_documented(help_of):
    text = doc("cli.md").read_text()
    for name in ("quickstart", "sample", "infill", "score"):
        for option in set(re.findall(r"^  (--[\w-]+)", help_of[name], flags=re.MULTILINE)):
            assert f"`{option}" in text, f"{name} {option}"


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"^make (\w+)|`make (\w+)`", page.read_text(), flags=re.MULTILINE):
            assert (target[0] or target[1]) in targets, f"{page.name}: make {target}"


def anchors(page):
    """The anchors that mkdocs makes of headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_internal_links_resolve(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"
        assert page.parent == ROOT or target.resolve().is_relative_to(ROOT / "docs"), (
            f"{page.name}: {link} leaves the site"
        )


def test_the_site_lists_every_page():
    text = (ROOT / "mkdocs.yml").read_text()
    listed = yaml.safe_dump(yaml.safe_load(text)["nav"])
    assert set(re.findall(r"\S+\.md", listed)) == {page.relative_to(ROOT / "docs").as_posix() for page in DOCS}


def test_every_paper_of_the_code_is_listed_with_the_files_that_name_it():
    named = {i: set() for i in ()}
    for path in SOURCE.rglob("*.py"):
        for paper in ARXIV.findall(path.read_text(encoding="utf-8")):
            named.setdefault(paper, set()).add(path.relative_to(SOURCE).as_posix())
    listed = {}
    for line in doc("papers.md").read_text().splitlines():
        if line.startswith("| arXiv:"):
            paper, _, files = line.strip("|").split("|")
            listed[ARXIV.search(paper)[1]] = set(re.findall(r"`([^`]+)`", files))
    assert listed.keys() == named.keys()
    for paper, files in listed.items():
        assert files <= named[paper], paper
        assert files, paper


def test_every_paper_mentioned_in_the_docs_is_listed():
    listed = set(ARXIV.findall(doc("papers.md").read_text()))
    for page in PAGES:
        assert set(ARXIV.findall(page.read_text())) <= listed, page.name


def test_the_architecture_names_every_folder_and_files_that_exist():
    text = doc("architecture.md").read_text()
    files, listed = text.split("\n## Files\n", 1)[1].split("\n## ", 1)[0], set()
    for line in files.splitlines():
        folder = re.match(r"\| (?:`([\w/]+)/` )?\|", line)
        if folder is None:
            continue
        place = SOURCE / (folder[1] or "")
        assert all((place / name).is_file() for name in re.findall(r"`(\w+\.py)`", line)), line
        listed.add(folder[1])
    there = {p.parent.name for p in SOURCE.glob("*/*.py") if p.stat().st_size}
    assert there <= listed, there - listed
    before = text.split("\n## Where it differs", 1)[0]
    for name in re.findall(r"`(\w+(?:/\w+)+\.py)`", before):
        assert (SOURCE / name).is_file() or (ROOT / name).is_file(), name


def test_the_architecture_shows_the_layers_that_are_checked():
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text())
    values = (n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "LAYERS")
    there = {p.stem for p in SOURCE.iterdir() if p.stem != "__main__"}
    layers = [layer & there for layer in ast.literal_eval(next(values)) if layer & there]
    section = doc("architecture.md").read_text().split("\n## Layers\n", 1)[1].split("\n## ", 1)[0]
    shown = [set(re.findall(r"`(\w+)`", line)) for line in section.splitlines() if re.match(r"\| \d", line)]
    assert shown == layers


def test_blocks_are_of_a_kind_that_is_checked():
    """Code that is shown is highlighted and run, not hidden in a block of another kind."""
    for page in PAGES:
        for block in blocks(page):
            assert block.info in ("python", "bash", "console", "text", 'text title="output"'), (
                f"{page.name}:{block.line}"
            )


def test_rows_and_counts_name_every_command_and_preset():
    readme, changelog = (ROOT / "README.md").read_text(), (ROOT / "CHANGELOG.md").read_text()
    row = next(line for line in readme.splitlines() if line.startswith("| command line"))
    entry = next(line for line in changelog.splitlines() if line.startswith("- The command line"))
    for text in (row, entry):
        assert re.findall(r"`([a-z]+)`", text) == list(COMMANDS)
    assert f"{len(PRESETS) + len(INSERTING)} presets" in readme
    assert f"{len(PRESETS)} presets" in changelog


def test_what_is_said_not_to_be_there_is_not():
    text = doc("architecture.md").read_text()
    row = next(line for line in text.splitlines() if "| not there yet |" in line)
    there = {p.name for p in SOURCE.iterdir()} | {"insertion", "muon"}
    assert not there & set(re.findall(r"\w+", row.split("|")[1].lower())), row


def test_what_train_is_said_to_take_it_takes():
    from anyorder.processes import OPTIONS
    from anyorder.processes.config import ProcessConfig

    kinds = set(ProcessConfig.model_fields["kind"].annotation.__args__)
    assert {name for name in OPTIONS if name in kinds} == kinds
    for name, options in OPTIONS.items():
        words = options.split()
        values = dict(zip((w.removeprefix("--process.") for w in words[::2]), words[1::2]))
        process = ProcessConfig.model_validate(values, strict=False).build(group=4)
        assert type(process) is type(PROCESSES[name]()), name


def test_every_option_that_a_page_names_exists(help_of):
    known = " ".join(help_of.values()) + " ".join(p.read_text() for p in (ROOT / "benchmarks").glob("*.py"))
    shown_as_wrong = {"--optim.warmup"}
    elsewhere = {"--nproc-per-node", "--strict", "--check", "--no-deps"}  # torchrun, mkdocs, ruff, pip
    for page in PAGES:
        for option in set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", page.read_text())) - shown_as_wrong - elsewhere:
            assert re.search(rf"{re.escape(option)}(?![\w-])", known), f"{page.name}: {option}"
