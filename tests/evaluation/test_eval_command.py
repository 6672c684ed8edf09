"""`anyorder eval` on tiny runs: task files, held-out text, settings chosen on a split, restarts, mistakes."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from chain_subject import LETTERS, greedy_after, logp_after, subject

import anyorder
from anyorder.cli.main import main
from anyorder.core.noise import Noise
from anyorder.data.tokenizer import ByteTokenizer
from anyorder.evaluation.accuracy import evaluate, mean_of
from anyorder.evaluation.answers import Scoring
from anyorder.evaluation.ledger import Ledger
from anyorder.evaluation.local_tasks import Choice, Completion, LocalTask, is_dev, read_task, read_tasks
from anyorder.evaluation.writing import Writing
from anyorder.studies.continuation import continuation

NAMES = ("ada", "bob", "cy", "dan", "eve")


@pytest.fixture
def questions(tmp_path):
    """A file of 12 questions about the tiny runs' text."""
    rows = [
        {"prompt": f"def {a}_", "answers": [f"{b}(x, y)", "#### 99 ##"], "gold": 0} for a in NAMES for b in NAMES[:3]
    ][:12]
    path = tmp_path / "names.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_accuracies_are_those_of_the_chain_with_their_errors():
    contexts = ["ab", "ca", "b", "cc", "abab", "bca", "a a", "c"]
    answers = ("a", "bcc", "cb ")
    items, acc, norm = [], [], []
    for i, c in enumerate(contexts):
        ll = [logp_after(c, a) for a in answers]
        gold = (ll.index(max(ll)) + (i % 4 == 0)) % 3
        items.append(Choice(c, answers, gold))
        acc.append(ll.index(max(ll)) == gold)
        each = [v / len(a) for v, a in zip(ll, answers)]
        norm.append(each.index(max(each)) == gold)
    task = LocalTask("chain", tuple(items))
    for kind in ("mdm", "arm"):
        got = evaluate(subject(kind), task, scoring=Scoring(), writing=Writing(), ledger=Ledger(None))
        assert got.metrics["acc"].value == sum(acc) / 8 == 0.75
        assert got.metrics["acc_norm"].value == sum(norm) / 8
        assert got.metrics["acc"].stderr == pytest.approx((0.75 * 0.25 / 7) ** 0.5)
        assert got.chance == pytest.approx(1 / 3)
        assert (got.split, got.unsettled, got.cut) == ("all", 0, 0)
    short = evaluate(subject(max_length=4), task, scoring=Scoring(), writing=Writing(), ledger=Ledger(None))
    assert short.cut == 6, "one token of the prompt is left"


def test_texts_are_right_if_they_are_the_target():
    def text(context):
        return LETTERS.decode([i for i in greedy_after(context, 3) if i < 4])

    items = (Completion("ab", f" {text('ab')}\n", ("@",), 3), Completion("ca", text("ca") + "b", ("@",), 3))
    got = evaluate(subject("arm"), LocalTask("w", items), scoring=Scoring(), writing=Writing(), ledger=Ledger(None))
    assert got.metrics["exact_match"].value == 0.5
    assert (got.measure, got.chance, got.estimator) == ("text", None, "")


def test_the_best_on_the_dev_split_is_judged_on_the_test_split():
    contexts = [f"{a}{b}{c}" for a in "abc" for b in "abc " for c in "abc"]
    items = tuple(Choice(c, ("a", "b", "c"), i % 3) for i, c in enumerate(contexts))
    dev = [i for i in items if is_dev(i)]
    assert 3 < len(dev) < 18
    settings = [("chain", 3.0), ("count", 3.0), ("count", 0.0)]
    how = {"scoring": Scoring(), "writing": Writing(), "ledger": Ledger(None)}
    got = evaluate(subject(), LocalTask("t", items), settings=settings, **how)
    alone = [evaluate(subject(), LocalTask("t", tuple(dev)), settings=[s], **how).metrics["acc"] for s in settings]
    assert [t.accuracy for t in got.trials] == alone
    assert len({m.value for m in alone}) > 1
    best = settings[max(range(3), key=lambda i: alone[i].value)]
    assert best != settings[0]
    rest = LocalTask("t", tuple(i for i in items if not is_dev(i)))
    assert got.metrics == evaluate(subject(), rest, settings=[best], **how).metrics
    assert (got.split, got.guidance) == ("test", best[1])
    with pytest.raises(ValueError, match="too few items to choose"):
        evaluate(subject(), LocalTask("t", tuple(dev)), settings=settings, **how)


def test_the_split_goes_by_content():
    items = [Choice(f"{i}", ("a", "b"), 0) for i in range(2000)]
    dev = [is_dev(i) for i in items]
    assert 420 < sum(dev) < 580
    assert dev == [is_dev(Choice(i.prompt, i.answers, 1)) for i in items]
    assert any(is_dev(i, share=0.5) for i in items if not is_dev(i))


def test_a_mean_has_the_error_of_a_mean():
    got = mean_of([1.0, 0.0, 0.0, 1.0, 1.0])
    x = torch.tensor([1.0, 0, 0, 1, 1]).double()
    assert (got.value, got.stderr) == pytest.approx((float(x.mean()), float(x.std() / 5**0.5)))


def test_the_error_of_an_accuracy_is_that_of_other_questions():
    """Over 1000 sets of 100 questions the z-scores have unit variance."""
    right = Noise.of(8).uniform(torch.arange(1000)[:, None], 0, torch.arange(100)) < 0.6
    made = [mean_of(row) for row in right.double().tolist()]
    z = torch.tensor([(m.value - 0.6) / m.stderr for m in made])
    assert abs(float(z.mean())) < 4 / 1000**0.5
    assert float(z.var()) == pytest.approx(1, abs=0.2)


def test_the_command_prints_writes_and_remembers(tiny_runs, questions, tmp_path, capsys):
    cache, out = tmp_path / "kept", tmp_path / "out.json"
    words = ["eval", str(tiny_runs.arm), "--tasks", str(questions), "--cache", str(cache), "--out", str(out), "--quiet"]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "names  acc" in table
    assert "12 all" in table
    assert "causal (likelihood)" in table
    made = json.loads(out.read_text())
    assert made["results"][0]["metrics"]["acc"]["value"] == 1.0
    lines = (cache / "names.jsonl").read_text().splitlines()
    assert len(lines) == 12
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["results"] == made["results"]
    assert (cache / "names.jsonl").read_text().splitlines() == lines
    direct = anyorder.load(tiny_runs.arm).answer("def ada_", ["ada(x, y)", "#### 99 ##"])
    assert any(json.loads(line)["value"]["nats"] == pytest.approx(direct.nats, rel=1e-4) for line in lines)
    assert main([*words, "--limit", "3", "--no-cache"]) == 0
    assert "3 all" in capsys.readouterr().out


def test_a_scale_is_chosen_and_both_splits_are_printed(tiny_runs, questions, tmp_path, capsys):
    words = ["eval", str(tiny_runs.mdm), "--tasks", str(questions), "--draws", "8", "--no-cache", "--quiet"]
    assert main([*words, "--guidance", "0,0.5"]) == 0
    out = capsys.readouterr().out
    dev = sum(is_dev(i) for i in read_task(questions).items)
    assert f"{12 - dev} test" in out
    assert "on the dev split" in out
    assert "reported on the test split alone" in out


def test_default_results_lie_in_the_run(tiny_runs, questions, capsys):
    assert main(["eval", str(tiny_runs.arm), "--tasks", str(questions), "--limit", "2"]) == 0
    assert (tiny_runs.arm / "eval" / "names.jsonl").is_file()
    capsys.readouterr()


def test_what_is_cut_is_said_once(tiny_runs, tmp_path, capsys):
    """The model reads 32 tokens."""
    rows = [{"prompt": "x" * n, "target": "y", "max_gen_toks": t} for n, t in ((3, 4), (40, 4), (40, 8), (3, 256))]
    (tmp_path / "w.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["eval", str(tiny_runs.mdm), "--tasks", str(tmp_path / "w.jsonl"), "--no-cache", "--quiet"]) == 0
    *_, cut, short = capsys.readouterr().out.splitlines()
    assert cut == "w: 2 prompts cut on the left, as the model reads no more"
    assert short == "w: 1 text with less room than asked for, as the model reads no more"


class Killed(BaseException):
    """Ends a run as nothing in it expects."""


KILLED = """
import os, signal, sys
from anyorder.cli.main import main
from anyorder.evaluation.ledger import Ledger
put = Ledger.put
Ledger.put = lambda self, results: (put(self, results), os.kill(os.getpid(), signal.SIGKILL))
main(sys.argv[1:])
"""


@pytest.mark.parametrize("how", ["raised", pytest.param("kill -9", marks=pytest.mark.slow)])
def test_a_killed_evaluation_goes_on_where_it_was(tiny_runs, tmp_path, capsys, monkeypatch, how):
    """Killed after the first results: they are kept whole, the rest is done, figures are those of an unbroken run."""
    path, cache = tmp_path / "many.jsonl", tmp_path / "kept"
    rows = [
        {"prompt": "def " + "x" * (i % 9), "answers": [f"{i} = abcde", f"fghij {i}"], "gold": 0} for i in range(100)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = ["eval", str(tiny_runs.mdm), "--tasks", str(path), "--draws", "16", "--quiet", "--json"]
    kept = cache / "many.jsonl"
    if how == "raised":
        put = Ledger.put

        def last(self, results):
            put(self, results)
            raise Killed

        monkeypatch.setattr(Ledger, "put", last)
        with pytest.raises(Killed):
            main([*words, "--cache", str(cache)])
        monkeypatch.undo()
    else:
        command, env = [sys.executable, "-c", KILLED, *words], {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, "--cache", str(cache)], env=env, stdout=subprocess.DEVNULL, check=False)
        assert done.returncode == -signal.SIGKILL
    before = kept.read_text().splitlines()
    assert 0 < len(before) < 100
    with kept.open("a") as f:
        f.write(before[0][: len(before[0]) // 2])
    assert main([*words, "--cache", str(cache)]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert kept.read_text().splitlines()[: len(before)] == before
    assert len(kept.read_text().splitlines()) == 101
    assert main([*words, "--no-cache"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["results"] == again


def test_continuation_needs_a_run_with_long_rows(tiny_runs):
    with pytest.raises(ValueError, match="rows of 32 tokens are too short"):
        continuation(tiny_runs.mdm / "model", ByteTokenizer())
    with pytest.raises(ValueError, match="here is no run"):
        continuation(tiny_runs.folder, ByteTokenizer())


def test_the_continuation_task_asks_what_comes_next(tmp_path):
    from anyorder.core.config import dump_config
    from anyorder.data.config import DataConfig
    from anyorder.train.config import RunConfig
    from anyorder.train.data import run_data

    lines = [f"def {a}_{b}(x, y):\n    return x {o} y  # {a} {o} {b}\n\n" for a in NAMES for b in NAMES for o in "+-*"]
    (tmp_path / "text").mkdir()
    for i in range(8):
        (tmp_path / "text" / f"doc{i}.txt").write_text("".join(lines[i::8]) * 4)
    data = DataConfig(corpus=str(tmp_path / "text"), cache=tmp_path / "c", tokenizer="bytes", length=64, validation=0.4)
    config = RunConfig(data=data)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    task = continuation(tmp_path, ByteTokenizer(), limit=9)
    held_out = run_data(config).valid
    rows = held_out.take(torch.arange(held_out.num_rows)).tokens
    texts = [bytes(i for i in row if i < 256).decode() for row in rows.tolist()]
    assert len(task.items) == 9
    for item in task.items:
        assert any(t.startswith(item.prompt + item.answers[item.gold]) for t in texts)
        assert len(set(item.answers)) == 4
        assert len(item.prompt) == 32
        assert {len(a) for a in item.answers} == {8}
    assert len({i.gold for i in task.items}) > 1
    assert continuation(tmp_path, ByteTokenizer(), limit=9) == task


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: holds a list; each line is one JSON object"),
        ('{"prompt": "\\ud83d", "answers": ["a", "b"], "gold": 0}', r"line 2 holds half a surrogate pair \(U\+D83D\)"),
        ('{"prompt": "a", "answers": ["x", "y"]}', "line 2: 'gold' is missing"),
        ('{"prompt": "a"}', "line 2: 'target' is missing"),
        ('{"answers": ["x", "y"], "gold": 0}', "line 2: 'prompt' is missing"),
        ('{"prompt": 1, "target": "x"}', "line 2: 'prompt' must be a text"),
        ('{"prompt": "a", "answers": ["x", "y"], "gold": 2}', "line 2: 'gold' must be the number"),
        ('{"prompt": "a", "answers": ["x", "y"], "gold": true}', "line 2: 'gold' must be the number"),
        ('{"prompt": "a", "answers": ["x"], "gold": 0}', "line 2: 'answers' must be a list of at least two"),
        ('{"prompt": "a", "answers": ["x", ""], "gold": 0}', r"line 2: answers\[1\] is empty"),
        ('{"prompt": "a", "answers": ["x", "y"], "gold": 0, "god": 1}', "line 2: 'god' is not known"),
        ('{"prompt": "a", "target": "x"}', "line 2: mixes answers with a target"),
        ('{"prompt": "a", "target": " "}', "line 2: 'target' must be a text that is not empty"),
        ('{"prompt": "a", "target": "x", "until": [""]}', "line 2: 'until' must be"),
        ('{"prompt": "a", "target": "x", "max_gen_toks": 0}', "line 2: 'max_gen_toks' must be"),
    ],
)
def test_a_bad_line_is_named(line, said, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "é", "answers": ["x", "y"], "gold": 1}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        read_task(path)


def test_files_and_folders_are_read_by_name(tmp_path):
    with pytest.raises(ValueError, match="holds no"):
        read_tasks(tmp_path)
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text('\n{"prompt": "p", "target": "t\\u2028u"}\n\n')
    assert [t.name for t in read_tasks(tmp_path)] == ["a", "b"]
    assert read_task(tmp_path / "a.jsonl").items == (Completion("p", "t\u2028u"),)
    (tmp_path / "c.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no items"):
        read_tasks(tmp_path)
    (tmp_path / "c.jsonl").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"byte 0 \(0xff\) is not UTF-8"):
        read_tasks(tmp_path)


def test_task_files_are_json_lines_of_any_name_and_spelling(tmp_path):
    line = b'{"prompt": "p", "target": "t"}\n'
    files = {"a.ndjson": line, "b.JSONL": b"\xef\xbb\xbf" + line, "c.jsonl.gz": gzip.compress(line, mtime=0)}
    files["d.jsonl"] = line.decode().encode("utf-16")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert read_task(tmp_path / name).items == (Completion("p", "t"),)
    (tmp_path / "notes.txt").write_text("not a task")
    assert len(read_tasks(tmp_path)) == 4
    read, write = os.pipe()
    os.write(write, line)
    os.close(write)
    assert read_task(Path(f"/dev/fd/{read}")).items == (Completion("p", "t"),), "a pipe of the shell, <(...)"
    os.close(read)
    (tmp_path / "z.jsonl").write_bytes(b"PAR1\x15\x04")
    with pytest.raises(ValueError, match=r"z.jsonl: not a text but a Parquet table"):
        read_tasks(tmp_path)


def test_places_that_cannot_be_written_are_refused_before_anything_is_computed(
    tiny_runs, questions, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    places = {
        ("--out", tmp_path): "is a folder; name a file in it",
        ("--out", tmp_path / "file" / "x.json"): "is a file, so no folder can be there; name another place",
        ("--cache", tmp_path / "file"): "is a file; name a folder",
        ("--cache", tmp_path / "file" / "deep"): "is a file, so no folder can be there",
    }
    monkeypatch.setattr("anyorder.studies.evaluation._one", lambda *a: pytest.fail("it was computed"))
    for (option, place), said in places.items():
        assert main(["eval", str(tiny_runs.mdm), "--tasks", str(questions), option, str(place)]) == 2
        err = capsys.readouterr().err
        assert f"{option} {place}: " in err
        assert said in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--tasks", "no/where"], "no/where: no such file"),
        (["--tasks", ","], "names nothing"),
        (["--tasks", "continuation"], "too short"),
        (["--tasks", "continuation", "--guidance", "0,x"], "divided by commas"),
        (["--tasks", "continuation", "--guidance", "-1"], "guidance.scale=-1.0"),
        (["--tasks", "continuation", "--estimator", "exact"], "takes 'count' or 'chain'"),
        (["--tasks", "continuation", "--limit", "0"], "must be >= 1 question"),
        (["--tasks", "continuation", "--out", "no/where.json"], "no: no such folder"),
        (["--tasks", "continuation", "--greedy", "yes"], "greedy='yes': must be one of auto, always, never"),
        (["--task", "continuation"], "--tasks"),
    ],
)
def test_mistakes_are_one_sentence(words, said, tiny_runs, capsys):
    assert main(["eval", str(tiny_runs.mdm), *words]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert len(err.splitlines()) == 1
    assert out == ""


def test_without_lm_eval_its_tasks_are_refused_and_files_are_not(tiny_runs, questions, monkeypatch, capsys):
    monkeypatch.setattr("anyorder.studies.evaluation.is_installed", lambda: False)
    for name in ("smdm", "arc_easy"):
        assert main(["eval", str(tiny_runs.mdm), "--tasks", name]) == 2
        assert "is not installed; pip install 'anyorder[eval]'" in capsys.readouterr().err
    assert main(["eval", str(tiny_runs.arm), "--tasks", str(questions), "--limit", "1", "--no-cache"]) == 0
    capsys.readouterr()


def test_a_recipe_is_for_masked_models_and_gives_way_to_what_is_asked():
    from anyorder.evaluation.suites import SUITES
    from anyorder.studies.evaluation import Wishes

    boolq = SUITES["smdm"].tasks["boolq"]
    (s,) = Wishes(tasks=()).settings("mdm", boolq)
    assert (s.estimator, s.guidance) == ("chain", 1.6)
    (s,) = Wishes(tasks=(), guidance=(0.0,)).settings("mdm", boolq)
    assert (s.estimator, s.guidance) == ("chain", 0.0)
    (s,) = Wishes(tasks=()).settings("arm", boolq)
    assert (s.estimator, s.guidance) == ("causal", 0.0)
    assert len(Wishes(tasks=(), estimators=("count", "chain"), guidance=(0.0, 1.0)).settings("mdm")) == 4
