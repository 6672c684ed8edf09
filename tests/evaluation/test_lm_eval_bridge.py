"""The bridge under lm-eval's own evaluator, with local tasks and a Markov chain whose answers are known."""

import json
import math
import random
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is an extra")

from chain_subject import LETTERS, ORACLE, greedy_after, logp, logp_after, subject
from lm_eval.api.instance import Instance

from anyorder.cli.main import main
from anyorder.evaluation.answers import Scoring
from anyorder.evaluation.chat import ChatTemplate, read_template
from anyorder.evaluation.ledger import Ledger
from anyorder.evaluation.lm_eval_bridge import BridgeLM
from anyorder.evaluation.lm_eval_tasks import check_task, run_task, task_manager
from anyorder.evaluation.suites import SUITES
from anyorder.evaluation.writing import Writing
from anyorder.testing.contracts import CountingDenoiser

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")
CHOICES = [
    ("abc", ["a", "bb", "ca"]),
    ("ca ", ["b", "cab", "c"]),
    ("bbb", ["a a", "cc", "b"]),
    ("a c", ["ab", "c", "aaa"]),
    ("cc", ["bc", "aa", "c"]),
]


def likelihoods(context, answers):
    """log p of each answer after the context, whose last spaces belong to the answer."""
    kept = context.rstrip()
    return [logp_after(kept, context[len(kept) :] + a) for a in answers]


def likeliest(context, answers):
    ll = likelihoods(context, answers)
    return ll.index(max(ll))


DOCS = [  # the chain is right about three of five
    {"ctx": c, "choices": a, "gold": (likeliest(c, a) + (i in (1, 4))) % 3} for i, (c, a) in enumerate(CHOICES)
]
KINDS = {
    "own_choice": 'output_type: multiple_choice\ndoc_to_choice: "{{choices}}"\ndoc_to_target: "{{gold}}"\n'
    "metric_list:\n  - metric: acc\n  - metric: acc_norm\n",
    "own_exact": 'output_type: multiple_choice\ndoc_to_choice: "{{choices + [best]}}"\ndoc_to_target: 3\n'
    "metric_list:\n  - metric: exact_match\n",
    "own_lambada": 'output_type: loglikelihood\ndoc_to_target: "{{best}}"\n'
    "metric_list:\n  - metric: acc\n  - metric: perplexity\n",
    "own_rolling": 'output_type: loglikelihood_rolling\ndoc_to_target: "{{text}}"\n'
    "metric_list:\n  - metric: bits_per_byte\n",
    "own_write": 'output_type: generate_until\ndoc_to_target: "{{written}}"\n'
    'generation_kwargs:\n  until: ["b"]\n  max_gen_toks: 6\n  do_sample: false\n'
    "metric_list:\n  - metric: exact_match\n",
    "own_wrong": 'output_type: generate_until\ndoc_to_target: "{{ctx}}"\n'
    "generation_kwargs:\n  repetition_penalty: 1.2\nmetric_list:\n  - metric: exact_match\n",
}


def until_b(context):
    text = LETTERS.decode(ids_before_end(greedy_after(context, 6)))
    return text.split("b")[0]


def ids_before_end(ids):
    eos = LETTERS.vocab.eos_id
    return ids[: ids.index(eos)] if eos in ids else ids


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder with one task of each output type, and what lm-eval makes of it, without the network."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("tasks")
    for name, value in {"HF_HOME": folder / "hf", "HF_DATASETS_OFFLINE": 1, "HF_HUB_OFFLINE": 1}.items():
        patch.setenv(name, str(value))
    docs = []
    for i, doc in enumerate(DOCS):
        best = LETTERS.decode(ids_before_end(greedy_after(doc["ctx"], 2))) or "a"
        wrong = "abc"[("abc ".index(best[0]) + 1) % 3]
        docs.append(doc | {"best": best if i % 2 else wrong, "text": doc["ctx"] * 3, "written": until_b(doc["ctx"])})
    (folder / "docs.jsonl").write_text("".join(json.dumps(d) + "\n" for d in docs))
    for name, body in KINDS.items():
        context = 'doc_to_text: ""' if name == "own_rolling" else 'doc_to_text: "{{ctx}}"\ntarget_delimiter: ""'
        data = (
            f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder / 'docs.jsonl'}\ntest_split: test"
        )
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{data}\n{context}\n{body}")
    yield docs, task_manager(folder)
    patch.undo()


DEFAULT = (Scoring(),)


def run(name, tasks, kind="mdm", *, settings=DEFAULT, limit=None, greedy="auto", **bridge):
    made = []

    def bridge_of(scoring):
        made.append(BridgeLM(subject(kind, **bridge), scoring=scoring, greedy=greedy))
        return made[-1]

    return run_task(bridge_of, name, settings=list(settings), manager=tasks[1], limit=limit), made


@pytest.mark.parametrize(("kind", "estimator"), [("mdm", None), ("mdm", "chain"), ("arm", None)])
def test_multiple_choice_is_what_the_chain_says(tasks, kind, estimator):
    made, _ = run("own_choice", tasks, kind, settings=[Scoring(estimator=estimator)])
    right, per_char = [], []
    for doc in DOCS:
        ll = likelihoods(doc["ctx"], doc["choices"])
        right.append(ll.index(max(ll)) == doc["gold"])
        normed = [v / len(c) for v, c in zip(ll, doc["choices"])]
        per_char.append(normed.index(max(normed)) == doc["gold"])
    assert sum(right) == 3
    assert made.metrics["acc"].value == pytest.approx(sum(right) / 5)
    assert made.metrics["acc_norm"].value == pytest.approx(sum(per_char) / 5)
    assert made.metrics["acc"].count == 5
    assert made.metrics["acc"].stderr == pytest.approx(math.sqrt(sum(right) / 5 * (1 - sum(right) / 5) / 4))
    assert made.measure == ("bound" if (kind, estimator) == ("mdm", None) else "likelihood")
    assert made.split == "all"


def test_lambada_s_accuracy_is_greedy_writing_and_its_perplexity_exact(tasks):
    docs, _ = tasks
    for kind in ("mdm", "arm"):
        made, bridges = run("own_lambada", tasks, kind)
        ll = [likelihoods(d["ctx"], [d["best"]])[0] for d in docs]
        assert made.metrics["perplexity"].value == pytest.approx(math.exp(-sum(ll) / 5))
        if kind == "arm":
            true = [
                greedy_after(d["ctx"].rstrip(), len(t)) == LETTERS.encode(t)
                for d in docs
                for t in [d["ctx"][len(d["ctx"].rstrip()) :] + d["best"]]
            ]
            assert 0 < sum(true) < 5
            assert made.metrics["acc"].value == pytest.approx(sum(true) / 5)
        assert bridges[0].tally.scored == 5


def test_exact_match_of_several_answers_needs_the_check(tasks):
    """The metric reads of the right answer whether it is what the model writes."""
    whole = [(d["ctx"].rstrip(), d["ctx"] + d["best"]) for d in tasks[0]]
    true = [greedy_after(c, len(w) - len(c)) == LETTERS.encode(w[len(c) :]) for c, w in whole]
    assert 0 < sum(true) < 5
    for greedy, value in (("always", sum(true) / 5), ("auto", 0.0), ("never", 0.0)):
        made, _ = run("own_exact", tasks, "arm", greedy=greedy)
        assert made.metrics["exact_match"].value == pytest.approx(value)


def test_documents_of_any_length_have_their_bits_per_byte(tasks):
    docs, _ = tasks
    whole = [logp(d["text"]) for d in docs]
    size = sum(len(d["text"]) for d in docs)
    made, _ = run("own_rolling", tasks, "arm")
    assert made.metrics["bits_per_byte"].value == pytest.approx(-sum(whole) / size / math.log(2))
    cut, _ = run("own_rolling", tasks, "arm", max_length=4)
    parts = [logp(d["text"][i : i + 4]) for d in docs for i in range(0, len(d["text"]), 4)]
    assert cut.metrics["bits_per_byte"].value == pytest.approx(-sum(parts) / size / math.log(2))
    bound, bridges = run("own_rolling", tasks, "mdm", settings=[Scoring(draws=64)])
    error = bridges[0].tally.stderr * math.sqrt(5) / size / math.log(2)
    assert abs(bound.metrics["bits_per_byte"].value - made.metrics["bits_per_byte"].value) < 4 * error
    near = BridgeLM(subject("arm", max_length=4), context=1).loglikelihood_rolling([ask("rolling", docs[0]["text"])])
    assert near == pytest.approx(whole[:1]), "a chain needs one token of context"


def test_documents_have_the_same_values_alone_and_together(monkeypatch):
    texts = ["abcab" * 9, "ca", "cab a" * 4, "b" * 24, "ca"]
    together = BridgeLM(subject(max_length=12)).loglikelihood_rolling([ask("rolling", t) for t in texts])
    assert together[1] == together[4]
    for text, value in zip(texts, together):
        (alone,) = BridgeLM(subject(max_length=12, rows_per_pass=5)).loglikelihood_rolling([ask("rolling", text)])
        assert alone == pytest.approx(value, abs=1e-9)
    monkeypatch.setattr("anyorder.evaluation.remembered.AT_ONCE", 2)
    seen, bridge = [], BridgeLM(subject(max_length=12))
    bridge.on_done = lambda done, total: seen.append(done)
    assert bridge.loglikelihood_rolling([ask("rolling", t) for t in texts]) == pytest.approx(together, abs=1e-9)
    assert seen == [1, 3, 4, 5]
    assert bridge.tally.nfe == 32 * (4 + 1 + 2 + 2 + 1)


def test_writing_stops_at_the_stop_string(tasks):
    made, _ = run("own_write", tasks, "arm")
    assert made.metrics["exact_match"].value == 1.0
    assert made.measure == "text"
    assert made.nfe < 6 * 5
    with pytest.raises(ValueError, match="repetition_penalty is not known here"):
        run("own_wrong", tasks, "arm")


def ask(kind, *args, doc=0, task="t"):
    return Instance(request_type=kind, doc={}, arguments=args, idx=0, metadata=(task, doc, 1))


def questions():
    made = []
    for number, doc in enumerate(DOCS * 3):
        for choice in doc["choices"]:
            made.append(ask("loglikelihood", doc["ctx"] + "ab" * (number // 5), choice * 4, doc=number))
    return made


def test_values_depend_neither_on_order_nor_on_batches(tasks):
    asked = questions()
    first = BridgeLM(subject()).loglikelihood(asked)
    order = list(range(len(asked)))
    random.Random(0).shuffle(order)
    mixed = BridgeLM(subject(rows_per_pass=3)).loglikelihood([asked[i] for i in order])
    assert [mixed[order.index(i)][0] for i in range(len(asked))] == pytest.approx([ll for ll, _ in first], abs=1e-9)
    half = BridgeLM(subject()).loglikelihood(asked[:9])
    assert [ll for ll, _ in half] == pytest.approx([ll for ll, _ in first[:9]], abs=1e-9)


def test_answers_of_a_document_share_their_masks_and_their_stopping():
    same = [ask("loglikelihood", "ab", "cabcab", doc=1), ask("loglikelihood", "ab", "cabcab", doc=1)]
    a, b = BridgeLM(subject(), scoring=Scoring(draws=8)).loglikelihood(same)
    assert a == b
    bridge = BridgeLM(subject())
    bridge.loglikelihood([ask("loglikelihood", "ab", x, doc=1) for x in ("cabcabca", "cabcabca")])
    assert bridge.tally.nfe < 2 * 256, "answers that are the same are settled"


def test_greedy_is_checked_where_a_document_has_one_continuation():
    best = LETTERS.decode(greedy_after("ab", 1))
    lone, pair = ask("loglikelihood", "ab", best, doc=1), ask("loglikelihood", "ab", best, doc=2)
    other = ask("loglikelihood", "b", "c", doc=2)
    assert [g for _, g in BridgeLM(subject("arm")).loglikelihood([lone, pair, other])] == [True, False, False]
    assert BridgeLM(subject("arm"), greedy="always").loglikelihood([pair, other])[0][1]
    assert [g for _, g in BridgeLM(subject("arm"), greedy="never").loglikelihood([lone])] == [False]
    with pytest.raises(ValueError, match="greedy='x'"):
        BridgeLM(subject(), greedy="x")


def test_what_is_kept_is_not_asked_again(tmp_path):
    counting = CountingDenoiser(ORACLE)
    requests = [*questions()[:6], ask("loglikelihood", "ab", "ca", doc=99)]
    values = []
    for _ in range(2):
        with Ledger(tmp_path / "x.jsonl") as ledger:
            bridge = BridgeLM(subject(model=counting), ledger=ledger)
            values.append((bridge.loglikelihood(requests), bridge.loglikelihood_rolling([ask("r", "abcab" * 9)])))
        values[-1] += (counting.calls,)
    assert values[0] == values[1]


def test_a_setting_is_chosen_on_a_split_and_judged_on_the_rest(tasks, monkeypatch):
    def in_dev(text, share):
        return any(json.dumps({"ctx": c})[1:-1] in text for c in ("bbb", "a c"))

    monkeypatch.setattr("anyorder.evaluation.lm_eval_tasks.of_share", in_dev)
    settings = [Scoring(guidance=w) for w in (0.0, 4.0)]
    made, _ = run("own_choice", tasks, settings=settings)
    assert made.split == "test"
    assert [t.guidance for t in made.trials] == [0.0, 4.0]
    assert [t.accuracy.count for t in made.trials] == [2, 2]
    assert made.metrics["acc"].count == 3
    chosen = settings[max((0, 1), key=lambda i: made.trials[i].accuracy.value)]
    assert made.guidance == chosen.guidance
    with pytest.raises(ValueError, match="no accuracy to choose"):
        run("own_rolling", tasks, settings=settings)


def test_a_conversation_goes_through_the_folder_s_template(tmp_path):
    template = "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }}{% endfor %}{{ eos_token }}"
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": template, "eos_token": {"content": "</s>"}})
    )
    chat = read_template(tmp_path, specials={"<s>": 7, "</s>": 4})
    bridge = BridgeLM(subject("arm"), chat=chat)
    shown = bridge.apply_chat_template([{"role": "a", "content": "b"}, {"role": "c", "content": " c"}])
    assert shown == "<s>a b<s>c  c</s>"
    assert bridge.subject.encode(shown) == [7, *LETTERS.encode("a b"), 7, *LETTERS.encode("c  c"), 4]
    assert bridge.chat_template(True) == template
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no system turn') }}")
    with pytest.raises(ValueError, match="no system turn"):
        read_template(tmp_path, specials={}).render([])
    with pytest.raises(ValueError, match="has no chat template"):
        BridgeLM(subject()).apply_chat_template([])
    assert read_template(tmp_path / "nowhere", specials={}) is None


def test_a_template_cannot_reach_out_of_its_sandbox():
    wild = ChatTemplate("{{ ''.__class__.__mro__[1].__subclasses__() }}", {}, {}, "t")
    with pytest.raises(ValueError, match="cannot show this conversation"):
        wild.render([])


def test_tasks_that_are_not_there_are_named(tasks, tmp_path):
    _, manager = tasks
    with pytest.raises(ValueError, match="task 'no_such': lm-eval knows none"):
        check_task("no_such", manager)
    (tmp_path / "gone.yaml").write_text(
        "task: gone\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: nowhere.jsonl\n"
        'test_split: test\noutput_type: multiple_choice\ndoc_to_text: ""\ndoc_to_target: 0\ndoc_to_choice: ["a"]\n'
    )
    with pytest.raises(ValueError, match="task 'gone': its data cannot be read"):
        check_task("gone", task_manager(tmp_path))
    with pytest.raises(ValueError, match="no such folder"):
        task_manager(tmp_path / "nowhere")


def test_every_task_of_a_suite_is_known_to_lm_eval(tasks):
    known = set(tasks[1].all_tasks)
    for name, suite in SUITES.items():
        assert set(suite.tasks) <= known, name
    assert len(SUITES["smdm"].tasks) == 8


def test_writing_settings_of_a_request_override_the_bridge_s():
    bridge = BridgeLM(subject("arm"), writing=Writing(max_gen_toks=3))
    long, short = bridge.generate_until([ask("g", "ab", {"max_gen_toks": 5, "until": []}), ask("g", "ab", {})])
    assert len(long) > len(short)
    assert long.startswith(short)
    assert bridge.tally.scored == 0


def test_the_example_task_is_the_same_with_and_without_lm_eval(tasks, tiny_runs, monkeypatch, capsys):
    """`tasks` keeps lm-eval off the network."""
    monkeypatch.chdir(ROOT)
    words = ["eval", str(tiny_runs.arm), "--no-cache", "--quiet", "--json", "--tasks"]
    found = []
    for name in ("python_syntax", "examples/tasks/python_syntax.jsonl"):
        assert main([*words, name, "--include", "examples/tasks"]) == 0
        (result,) = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
        found.append(result)
    assert found[0]["metrics"]["acc"]["count"] == 32
    assert found[0]["nfe"] == found[1]["nfe"] == 128
    for name in ("acc", "acc_norm"):
        assert found[0]["metrics"][name]["value"] == pytest.approx(found[1]["metrics"][name]["value"])
        assert found[0]["metrics"][name]["stderr"] == pytest.approx(found[1]["metrics"][name]["stderr"])
