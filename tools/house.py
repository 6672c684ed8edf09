"""Measure the size, shape and wording of the source: a table for people, then one JSON line with the aims it meets.

    python tools/house.py [CHECKOUT]

Reads files only; nothing of the package is imported. Counts are of src/anyorder, and of README.md and docs/ for prose.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

WORDS = ("law", "chance", "found", "made", "taken", "told", "held")
GONE = WORDS[:-1]  # "held" is counted, but the aim does not name it
LONG_FUNCTION, LONG_FILE = 100, 600
RARE = 0.5  # most uses of one of `GONE` in a thousand words of prose
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class File:
    """A source file, read once."""

    module: str
    path: str
    lines: list[str]
    tree: ast.Module
    comments: list[tokenize.TokenInfo]


def read(root: Path) -> dict[str, File]:
    """Every module of the package by its full name."""
    files = {}
    for path in sorted((root / "src" / "anyorder").rglob("*.py")):
        name = path.relative_to(root / "src").as_posix()
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        text = path.read_text(encoding="utf-8")
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments = [token for token in tokens if token.type == tokenize.COMMENT]
        files[module] = File(module, name, text.splitlines(), ast.parse(text), comments)
    return files


def quantiles(values: Iterable[int]) -> dict[str, int]:
    """Median, ninth decile and largest."""
    ordered = sorted(values) or [0]
    return {"median": ordered[len(ordered) // 2], "p90": ordered[int(len(ordered) * 0.9)], "longest": ordered[-1]}


def functions(files: Iterable[File]) -> Iterator[tuple[str, int]]:
    """Each function or method, nested ones too, and its lines without decorators."""
    for file in files:
        for node in ast.walk(file.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{file.path}:{node.name}", (node.end_lineno or 0) - node.lineno + 1


def imports(file: File, modules: Iterable[str], *, deferred: bool) -> set[str]:
    """Modules of the package that a file imports, at its top or (deferred) anywhere."""
    nodes = ast.walk(file.tree) if deferred else at_import(file.tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole in modules else node.module)
    return (names & set(modules)) - {file.module}


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported: all but the bodies of functions."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from at_import(node)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other (strongly connected, of more than one)."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for after in graph[waiting.pop()] - seen:
                seen.add(after)
                waiting.append(after)
        reach[start] = seen
    groups = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in graph if a in reach[a]}
    return [list(group) for group in sorted(groups)]


def identifiers(file: File) -> Iterator[str]:
    """Every name that is written in a file: variables, attributes, arguments, keywords, definitions, imports."""
    for node in ast.walk(file.tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name.split(".")[-1]
            case ast.ImportFrom(module=str(name)):
                yield from name.split(".")
    yield from file.module.split(".")[-1:]


def parts(name: str) -> list[str]:
    """The words of an identifier, in lower case."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return [word.lower() for word in words]


def prose_of(file: File) -> str:
    """Docstrings and comments."""
    nodes = [file.tree, *(n for n in ast.walk(file.tree) if isinstance(n, DEFINITIONS))]
    docstrings = [ast.get_docstring(node) or "" for node in nodes]
    return "\n".join([*docstrings, *(token.string for token in file.comments)])


def counted(words: Iterable[str]) -> dict[str, int]:
    """How often each of `WORDS` occurs, its plural included."""
    count = Counter(word.lower() for word in words)
    return {word: count[word] + count[f"{word}s"] for word in WORDS}


def measure(root: Path) -> dict:
    """All figures of a checkout."""
    files = read(root)
    if not files:
        raise SystemExit(f"{root}: no src/anyorder there; name a checkout")
    lines = sum(len(file.lines) for file in files.values())
    standing = sum(token.line.lstrip().startswith("#") for file in files.values() for token in file.comments)
    import_nodes = [n for f in files.values() for n in ast.walk(f.tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    import_lines = sum((node.end_lineno or 0) - node.lineno + 1 for node in import_nodes)
    anywhere = {name: imports(file, files, deferred=True) for name, file in files.items()}
    importers = Counter(target for targets in anywhere.values() for target in targets)
    lengths = dict(functions(files.values()))
    names = [name for file in files.values() for name in identifiers(file)]
    source_prose = re.findall(r"[A-Za-z]+", "\n".join(map(prose_of, files.values())))
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    page_prose = re.findall(r"[A-Za-z]+", "\n".join(p.read_text(encoding="utf-8") for p in pages if p.exists()))
    return {
        "files": len(files),
        "lines": lines,
        "folders": len({name.rsplit("/", 1)[0] for name in (f.path for f in files.values())}),
        "function": quantiles(length for _, length in functions(files.values())),
        "file": quantiles(len(file.lines) for file in files.values()),
        "comment_percent": round(100 * standing / lines, 2),
        "import_percent": round(100 * import_lines / lines, 2),
        "imported_once": sorted(files[name].path for name, n in importers.items() if n == 1),
        "circles": circles({name: imports(file, files, deferred=False) for name, file in files.items()}),
        "circles_with_deferred": circles(anywhere),
        "long_functions": sorted(name for name, length in lengths.items() if length > LONG_FUNCTION),
        "long_files": sorted(f.path for f in files.values() if len(f.lines) > LONG_FILE),
        "words_in_names": counted(word for name in names for word in parts(name)),
        "words_in_docstrings_and_comments": counted(source_prose),
        "words_in_docs": counted(page_prose),
        "prose_words": {"source": len(source_prose), "docs": len(page_prose)},
        "distinct_names": counted(word for name in set(names) for word in parts(name)),
    }


def checks(m: dict) -> dict[str, dict[str, object]]:
    """The aims of the redesign: what is measured, what is wanted, whether it is so."""
    named = sum(m["words_in_names"][word] for word in GONE)
    words = sum(m["prose_words"].values())
    said = {w: m["words_in_docstrings_and_comments"][w] + m["words_in_docs"][w] for w in GONE}
    often = max(1000 * n / words for n in said.values()) if words else 0.0
    comments = m["comment_percent"]
    rows = {
        "files": (m["files"], "<= 200", m["files"] <= 200),
        "lines": (m["lines"], "<= 30000", m["lines"] <= 30_000),
        "import_percent": (m["import_percent"], "<= 6", m["import_percent"] <= 6),
        "comment_percent": (comments, "3 to 8", 3 <= comments <= 8),
        "function_median": (m["function"]["median"], "<= 8", m["function"]["median"] <= 8),
        "function_p90": (m["function"]["p90"], "<= 30", m["function"]["p90"] <= 30),
        "file_median": (m["file"]["median"], "<= 150", m["file"]["median"] <= 150),
        "file_p90": (m["file"]["p90"], "<= 350", m["file"]["p90"] <= 350),
        "long_functions": (len(m["long_functions"]), f"0 over {LONG_FUNCTION}", not m["long_functions"]),
        "long_files": (len(m["long_files"]), f"0 over {LONG_FILE}", not m["long_files"]),
        "circles": (len(m["circles"]), "0", not m["circles"]),
        "words_in_names": (named, "0", named == 0),
        "commonest_word_per_1000_of_prose": (round(often, 2), f"<= {RARE}", often <= RARE),
    }
    return {name: {"value": value, "aim": aim, "met": bool(met)} for name, (value, aim, met) in rows.items()}


def show(m: dict) -> str:
    """The figures and the aims, for people."""

    def spread(of: str) -> str:
        return " / ".join(str(m[of][key]) for key in ("median", "p90", "longest"))

    rows = [
        ("files / lines / folders", f"{m['files']} / {m['lines']:,} / {m['folders']}"),
        ("function median / p90 / longest", spread("function")),
        ("file median / p90 / longest", spread("file")),
        ("standalone comments, % of lines", f"{m['comment_percent']}"),
        ("import lines, %", f"{m['import_percent']}"),
        ("files imported by exactly one other", f"{len(m['imported_once'])}"),
        ("import circles (with deferred imports)", f"{len(m['circles'])} ({len(m['circles_with_deferred'])})"),
        (f"functions over {LONG_FUNCTION} lines", f"{len(m['long_functions'])}"),
        (f"files over {LONG_FILE} lines", f"{len(m['long_files'])}"),
    ]
    text = [f"{name:44s} {value}" for name, value in rows]
    kinds = ("words_in_names", "distinct_names", "words_in_docstrings_and_comments", "words_in_docs")
    text += ["", f"{'word':10s}{'names':>8s}{'distinct':>10s}{'source prose':>14s}{'docs':>7s}"]
    for word in WORDS:
        a, b, c, d = (m[kind][word] for kind in kinds)
        text.append(f"{word:10s}{a:8d}{b:10d}{c:14d}{d:7d}")
    text += [f"  circle: {' -> '.join(group)}" for group in m["circles"]]
    text += [f"  long: {name}" for name in (*m["long_functions"], *m["long_files"])]
    text.append("")
    for name, check in checks(m).items():
        text.append(f"{'met   ' if check['met'] else 'MISSED'} {name}: {check['value']} (aim {check['aim']})")
    return "\n".join(text)


if __name__ == "__main__":
    measured = measure(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
    print(show(measured))
    once = {"imported_once": len(measured["imported_once"])}
    print(json.dumps({"house": measured | once, "checks": checks(measured)}, sort_keys=True))
