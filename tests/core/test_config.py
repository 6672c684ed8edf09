"""Configurations: what is wrong with one is said in a sentence that names the key."""

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, PositiveInt

from anyorder.core.config import claim_folder, differences, dump_config, load_config, nearest, parse_config
from anyorder.train.config import RunConfig


class Inner(BaseModel, frozen=True, extra="forbid"):
    width: PositiveInt = 3
    kind: Literal["a", "b"] = "a"


class Outer(BaseModel, frozen=True, extra="forbid"):
    steps: PositiveInt = 10
    inner: Inner = Inner()
    maybe: Inner | None = None
    where: Path = Path("here")


def message(values, kind=Outer):
    with pytest.raises(ValueError) as caught:
        parse_config(kind, values, source="run.yaml")
    text = str(caught.value)
    assert text.startswith("run.yaml: ")
    assert "\n" not in text
    assert not text.endswith(".")
    return text.removeprefix("run.yaml: ")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"step": 5}, "unknown key 'step'; did you mean 'steps'?"),
        ({"zzz": 5}, "unknown key 'zzz'; known: inner, maybe, steps, where"),
        ({"inner": {"widht": 5}}, "unknown key 'inner.widht'; did you mean 'width'?"),
        ({"maybe": {"widht": 5}}, "unknown key 'maybe.widht'; did you mean 'width'?"),
        ({"steps": 0}, "steps=0: Input should be greater than 0"),
        ({"inner": {"width": -1}}, "inner.width=-1: Input should be greater than 0"),
        ({"inner": {"kind": "c"}}, "inner.kind='c': Input should be 'a' or 'b'"),
        ({"steps": "many"}, "steps='many': Input should be a valid integer, unable to parse string as an integer"),
    ],
)
def test_errors_name_key_value_rule_and_nearest(values, text):
    assert message(values) == text


def test_errors_of_a_run():
    assert message({"model": {"d_modle": 8}}, RunConfig) == "unknown key 'model.d_modle'; did you mean 'd_model'?"
    assert message({"optim": {"lrr": 8}}, RunConfig) == "unknown key 'optim.lrr'; did you mean 'lr'?"
    assert message({"size": "2M"}, RunConfig).startswith("size='2M': unknown; known: 0.3M, ")
    assert "batch.num_micro=4: more passes than batch.rows=2; lower it" in message(
        {"batch": {"rows": 2, "num_micro": 4}}, RunConfig
    )
    assert message({"evaluate": {"draws": 3}}, RunConfig) == "evaluate.draws=3: Input should be a multiple of 2"


@given(
    st.builds(
        Outer,
        steps=st.integers(1, 10**9),
        inner=st.builds(Inner, width=st.integers(1, 9), kind=st.sampled_from(["a", "b"])),
        maybe=st.none() | st.builds(Inner, width=st.integers(1, 9)),
        where=st.text("abcäß ", min_size=1).map(Path),
    )
)
def test_what_is_dumped_loads_again(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(Outer, path) == config


def test_a_run_dumps_every_number_exactly(tmp_path):
    config = parse_config(RunConfig, {"optim": {"lr": 3e-5, "betas": [0.9, 0.98], "ema": 0.9999}}, source="here")
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(config))
    assert load_config(RunConfig, path) == config


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "holds no keys; write 'key: value' lines"),
        (b"- 1\n- 2\n", "holds no keys"),
        (b"steps: [1\n", "line 2, column 1: not YAML (expected ',' or ']'"),
        (b"\xff\xfe\x80", "byte 2 is not UTF-16"),
        (b"steps: \xff", "byte 7 (0xff) is not UTF-8"),
        (b"steps: 1\ninner:\n  width:\t2\n", "line 3, column 9: not YAML (found character '\\t' that cannot start"),
        (b"steps: 1\ninner:\n  width:\t2\n", "YAML takes spaces, no tabs"),
        (b"steps: 1\nwhere: \x07\n", "line 2: not YAML (a character U+0007, which no YAML text holds)"),
        (b"steps: 1\n? [1]\n: 2\n", "line 2, column 3: not YAML (found unhashable key)"),
        (b"steps: !!python/name:os.system 1\n", "line 1, column 8: not YAML (could not determine a constructor"),
        (b"[" * 5000, "not YAML, or nested too deeply"),
        (b"steps: 1\nwhere: a\nsteps: 2\n", "line 3: 'steps' is given in line 1 too; keep one"),
        (b"inner: {width: 1, width: 2}\n", "line 1: 'width' is given in line 1 too; keep one"),
        (b"- {a: 1, b: [{c: 1}, {d: 1,\n d: 2}]}\n", "line 2: 'd' is given in line 1 too; keep one"),
        (b"&a [*a]", "holds no keys"),
        (b"steps: 5\ninner: {widht: 1}\n", "unknown key 'inner.widht'; did you mean 'width'?"),
    ],
)
def test_bad_files(tmp_path, content, text):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.yaml: ") as caught:
        load_config(Outer, path)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match=r"no\.yaml: no such configuration file; check the path"):
        load_config(Outer, tmp_path / "no.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        load_config(Outer, tmp_path)


def test_nearest_lists_what_is_known_when_nothing_is_close():
    assert nearest("cosin", ["cosine", "linear"]) == "did you mean 'cosine'?"
    assert nearest("xyz", ["b", "a"]) == "known: a, b"


def test_a_mark_before_a_file_is_no_part_of_a_key(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfsteps: 3\n")
    (tmp_path / "b.yaml").write_bytes("steps: 3\n".encode("utf-16"))
    assert load_config(Outer, tmp_path / "a.yaml") == load_config(Outer, tmp_path / "b.yaml") == Outer(steps=3)


def test_a_folder_of_another_configuration_names_the_keys_that_differ(tmp_path):
    path = tmp_path / "run" / "run.yaml"
    path.parent.mkdir()
    claim_folder(path, Outer())
    claim_folder(path, Outer())
    cases = {
        "holds a run with another steps (10, asked for 5); use another --out, or delete the folder": Outer(steps=5),
        "another inner.width (3, asked for 4), inner.kind ('a', asked for 'b');": Outer(inner=Inner(width=4, kind="b")),
        "another maybe (None, asked for one with keys of its own), where ('here', asked for 'x');": Outer(
            maybe=Inner(), where=Path("x")
        ),
    }
    for text, config in cases.items():
        with pytest.raises(ValueError, match=r"run: holds a run with another ") as caught:
            claim_folder(path, config)
        assert text in str(caught.value)
        assert "Inner(" not in str(caught.value)
    many = Outer(steps=1, inner=Inner(width=1, kind="b"), maybe=Inner(), where=Path("x"))
    assert len(differences(Outer(), many)) == 5
    with pytest.raises(ValueError, match=r" and 1 more keys; use"):
        claim_folder(path, many)
