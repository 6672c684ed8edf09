"""The page and the picture are sound files: balanced, self-contained, safe for any text, written whole or not."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_demo
from pydantic import ValidationError

from anyorder.page import report
from anyorder.page.report import Act, Curve, MadeWith, ReportData, Share, Table, Trace, readable, write_report
from anyorder.page.trace_svg import cells, trace_svg, wrap_tokens

VOID = {"meta", "link", "input", "br", "hr", "img", "circle", "path"}
NASTY = ["</script>", "<!--", "<script>", "]]>", "&amp;", "\"q'", "\\u003c", "\u2028\u2029", "\x00\x1b", "{{data}}",
         "\\1", "漢字", "👩‍🚀", "\n\t ", ""]  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """Checks that elements nest; keeps scripts, ids, and attributes that could load something."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.scripts: list[str] = []
        self.ids: list[str] = []
        self.loads: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.loads += [(tag, v or "") for k, v in attrs if k in ("src", "srcset", "href", "action", "data", "poster")]
        self.ids += [v or "" for k, v in attrs if k == "id"]
        self.scripts += [""] * (tag == "script")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "script":
            self.scripts[-1] += data


def trace(**changes) -> Trace:
    given = {"kind": "MDM", "sampler": "random", "tokens": ["a", "b"], "order": [0, 1], "logp": [-1.0, -0.5], "nfe": 2}
    return Trace.model_validate(given | changes)


def nasty() -> ReportData:
    text = " ".join(NASTY)
    order = list(range(-1, len(NASTY) - 1))
    sample = trace(
        sampler=text, tokens=NASTY, order=order, logp=[-0.5] * len(NASTY), note=text, prompt=text, group=text
    )
    return ReportData(
        title=text, subtitle=text, caveat=text, config=text,
        made_with=MadeWith(version=text, commit=text, command=text, machine=text, seconds=1.0),
        acts=[Act(name=text, summary=text, samples=[sample], table=Table(columns=[text], rows=[[text]], caption=text))],
    )  # fmt: skip


@pytest.fixture(params=["demo", "nasty"])
def data(request) -> ReportData:
    return report_demo.demo() if request.param == "demo" else nasty()


def test_page_is_balanced_and_has_two_scripts(data):
    page = Page(report.render_report(data))
    assert len(page.scripts) == 2
    assert len(page.ids) == len(set(page.ids))


def test_data_reads_back_as_it_went_in(data):
    embedded = json.loads(Page(report.render_report(data)).scripts[0])
    assert embedded == data.model_dump(mode="json")
    assert ReportData.model_validate(embedded).model_dump(mode="json") == embedded


def test_embedded_json_is_inert_in_html():
    text = report.embed_json(nasty())
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_page_asks_nothing_of_the_network(data):
    page = Page(report.render_report(data))
    assert all(value.startswith(("#", "data:")) for _, value in page.loads)
    parts = [p.read_text(encoding="utf-8") for p in report.PARTS.iterdir()]
    assert len(parts) == 2 + len(report.SCRIPTS)
    for part in parts:
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttp|WebSocket|import\(", part, re.I)
    assert "default-src 'none'" in report.render_report(data)


def test_scripts_never_turn_text_into_markup():
    for name in report.SCRIPTS:
        code = (report.PARTS / name).read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|</script|<!--", code)


def test_every_id_the_scripts_ask_for_exists():
    ids = set(Page(report.render_report(nasty())).ids)
    code = "".join((report.PARTS / name).read_text(encoding="utf-8") for name in report.SCRIPTS)
    assert set(re.findall(r'getElementById\("([^"]+)"\)', code)) <= ids


def test_page_follows_the_system_and_respects_reduced_motion():
    text = report.render_report(nasty())
    for words in ("prefers-color-scheme: dark", "prefers-reduced-motion: reduce", '[data-theme="dark"]'):
        assert words in text


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to parse the page's script")
def test_script_parses(tmp_path):
    file = tmp_path / "page.js"
    file.write_text(Page(report.render_report(nasty())).scripts[1], encoding="utf-8")
    done = subprocess.run(["node", "--check", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_write_replaces_whole_and_makes_the_folder(tmp_path):
    path = tmp_path / "runs" / "a" / "report.html"
    write_report(path, nasty())
    write_report(path, report_demo.demo())
    assert path.read_text(encoding="utf-8") == report.render_report(report_demo.demo())
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_leaves_the_old_page_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anyorder.core.files.os.fsync", full_disk)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, nasty())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_page_is_complete_before_it_takes_its_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "report.html", []
    replace = Path.replace

    def spy(self, target):
        seen.append((path.exists(), self.read_text(encoding="utf-8").rstrip().endswith("</html>")))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    write_report(path, nasty())
    assert seen == [(False, True)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"order": [0]}, r"trace\.order has 1 entries: must have one per token, 2"),
        ({"logp": [0.0] * 3}, r"trace\.logp has 3 entries"),
        ({"logp": [-1.0, 0.5]}, r"trace\.logp=0\.5: must be <= 0"),
        ({"logp": [-1.0, float("-inf")]}, "finite"),
        ({"order": [0, -2]}, "greater than or equal to -1"),
        ({"grid": 4}, r"trace\.grid=4: must divide"),
        ({"wrong": [2]}, r"trace\.wrong=2: must be a position below 2"),
        ({"kind": "GPT"}, "'MDM', 'ARM', 'ILM', 'infill' or 'puzzle'"),
        ({"tokens": [], "order": [], "logp": []}, "is empty; only a text that grows may be"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_trace_refuses(changes, words):
    with pytest.raises(ValidationError, match=words):
        trace(**changes)


def test_other_refusals():
    with pytest.raises(ValidationError, match="table row 1 has 1 cells: must have one per column, 2"):
        Table(columns=["a", "b"], rows=[["x", 1], ["y"]])
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Curve(label="MDM", unit="bits per byte", points=[(0, 1.0, -0.1)])
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        Share(share=1.2)
    with pytest.raises(ValidationError, match="at least 1"):
        nasty().model_copy().model_validate({**nasty().model_dump(), "acts": []})
    with pytest.raises(ValidationError, match="frozen"):
        nasty().title = "other"


def test_shares_stay_shares_and_numbers_stay_numbers():
    table = Table(columns=["a", "b", "c", "d"], rows=[["12", 3, Share(share=0.5), None]])
    assert table.model_dump(mode="json")["rows"] == [["12", 3.0, {"share": 0.5, "stderr": None}, None]]


def test_bytes_that_are_no_text_become_readable():
    assert readable("é".encode()) == "é"
    assert readable(b"a\xe2\x82") == "a\\xe2\\x82"
    assert readable(b"a\xe2".decode("utf-8", "surrogateescape")) == "a\\xe2"
    assert readable("\ud83d") == "\ufffd"
    assert trace(tokens=[b"\xff", "b"]).tokens == ["\\xff", "b"]


def stage_words(picture: str) -> list[str]:
    return [t.text for t in ET.fromstring(picture).iter(f"{SVG}text") if (t.text or "").startswith("step ")]


def test_picture_hides_what_is_not_yet_written():
    one = trace(tokens=["given", "one", "two", "\n"], order=[-1, 1, 0, 2], logp=[0.0, -1.0, -1.0, -1.0])
    picture = trace_svg([one], stages=4)
    assert stage_words(picture) == ["step 0", "step 1", "step 2", "step 3"]
    words = [t.text for t in ET.fromstring(picture).iter(f"{SVG}text") if t.get("textLength")]
    assert words == ["given", "given", "two", "given", "one", "two", "given", "one", "two", "↵"]
    masks = [r for r in ET.fromstring(picture).iter(f"{SVG}rect") if r.get("class") == "mask"]
    assert len(masks) == 3 + 2 + 1 + 0


def test_picture_of_any_text_is_wellformed_and_loads_nothing():
    nasty_trace = nasty().acts[0].samples[0]
    picture = trace_svg([nasty_trace, report_demo.board("surest first", wrong={}, ok=True)], title="<&\x00>")
    root = ET.fromstring(picture)
    assert not [k for node in root.iter() for k in node.attrib if k.endswith("href")]
    assert picture.count("http") == 1  # the namespace
    assert "prefers-color-scheme: dark" in picture


def test_picture_keeps_inside_its_frame():
    long = trace(tokens=["x" * 200, "漢字" * 30, " tail"], order=[0, 1, 2], logp=[-1.0] * 3)
    root = ET.fromstring(trace_svg([long], columns=40))
    width, height = float(root.get("width")), float(root.get("height"))
    assert len(list(root.iter(f"{SVG}rect"))) > 10
    for node in root.iter(f"{SVG}rect"):
        assert float(node.get("x")) + float(node.get("width")) <= width
        assert float(node.get("y")) + float(node.get("height")) <= height


def test_picture_of_an_empty_text_has_room_for_its_heading():
    root = ET.fromstring(trace_svg([trace(sampler="s" * 90, tokens=["", ""])]))
    first = next(t for t in root.iter(f"{SVG}text") if t.text == "first")
    heading = "".join(t.text for t in root.iter(f"{SVG}tspan"))
    assert heading.endswith("s   2 tokens, 2 network passes")
    assert float(first.get("x")) > 24 + 8 * len(heading)
    assert [t.text for t in root.iter(f"{SVG}text")].count("∅") == 0 + 1 + 2  # stages 0, 1, 2


def test_wrapping_keeps_every_character_in_order():
    tokens = ["def f():", "\n", "    return", " 1", "\n\n", "漢字", "y" * 90, "\n", "a" * 8, "b" * 7, "cc"]
    pieces = wrap_tokens(tokens, 16)
    assert "".join(p.text for p in pieces) == "".join(tokens).replace("\n", "↵")
    assert all(p.column + p.width <= 16 and p.width == cells(p.text) for p in pieces)
    assert cells("漢a\u0301") == 3
    assert [(p.line, p.column) for p in pieces] == sorted({(p.line, p.column) for p in pieces})


@pytest.mark.parametrize(
    ("given", "words"),
    [({"stages": 1}, "stages=1"), ({"columns": 4}, "columns=4"), ({"traces": []}, "traces is empty")],
)
def test_picture_refuses(given, words):
    with pytest.raises(ValueError, match=words):
        trace_svg(**({"traces": [trace()]} | given))
