"""Questions in text: how they are split and cut, their values against a chain's own, and the API around them."""

import dataclasses
import json
import math

import pytest
from chain_subject import LETTERS, ORACLE, greedy_after, logp_after, subject

import anyorder
from anyorder.core.noise import Noise
from anyorder.data.tokenizer import BpeTokenizer
from anyorder.evaluation.answers import (
    Answers,
    Scoring,
    answer_questions,
    answers_key,
    encode_pair,
    encode_question,
    log_likelihoods,
)
from anyorder.evaluation.greedy import is_greedy
from anyorder.evaluation.ledger import Ledger
from anyorder.evaluation.remembered import answered, written
from anyorder.evaluation.writing import Writing, Written, write_until, writing_of
from anyorder.likelihood.conditional import Question
from anyorder.testing.contracts import CountingDenoiser
from anyorder.testing.oracle import RandomTable

TEXTS = ["the cat sat on the mat\n", "then they think that the thing\n", "at the end the hat\n"] * 4


def test_space_at_the_end_of_a_prompt_moves_to_the_answer():
    me = subject()
    assert encode_pair(me, "ab ", "c") == (LETTERS.encode("ab"), LETTERS.encode(" c"))
    assert encode_pair(me, "ab", " c") == (LETTERS.encode("ab"), LETTERS.encode(" c"))
    assert encode_pair(me, "", "c") == ([], LETTERS.encode("c"))
    assert encode_pair(me, "  ", "c") == ([], LETTERS.encode("  c"))


def test_the_answer_is_the_tail_of_both_encoded_together():
    bpe = BpeTokenizer.train(TEXTS, size=290)
    me = dataclasses.replace(subject(), tokenizer=bpe)
    whole = bpe.encode("at the cat")
    head, tail = encode_pair(me, "at ", "the cat")
    assert head + tail == whole
    assert bpe.decode(tail) == " the cat"
    assert encode_pair(me, "at th", "e cat") == (bpe.encode("at th"), bpe.encode("e cat")), "no token ends there"
    head, tail = encode_pair(me, "th", "e")
    assert len(bpe.encode("the")) == 1
    assert (bpe.decode(head), bpe.decode(tail)) == ("th", "e")


def test_short_answers_have_the_chain_s_own_log_likelihood():
    asked = [("abc", ["a", "bb", "cab", "abca"]), ("", ["b", "cc"]), ("a ", ["b", "c"])]
    for kind, estimator in (("mdm", None), ("mdm", "chain"), ("arm", None)):
        made = answer_questions(subject(kind), asked, Scoring(estimator=estimator))
        for (prompt, answers), got in zip(asked, made):
            kept = prompt.rstrip()
            true = [-logp_after(kept, prompt[len(kept) :] + a) for a in answers]
            assert got.nats == pytest.approx(true, abs=1e-9)
            assert got.best == true.index(min(true))
            assert set(got.stderr) == {0.0}
            assert got.settled
            assert got.measure == ("bound" if (kind, estimator) == ("mdm", None) else "likelihood")
            per_byte = [n / len(a) for n, a in zip(true, answers)]
            assert got.best_per_byte == per_byte.index(min(per_byte))


def test_a_long_answer_is_drawn_with_an_error_and_seeds_differ():
    asked = [("ab", ["abcabcab", "ccccccca"])]
    got = answer_questions(subject(), asked, Scoring(draws=64))[0]
    for nats, error, answer in zip(got.nats, got.stderr, asked[0][1]):
        assert error > 0
        assert abs(nats + logp_after("ab", answer)) < 4 * error
    assert got.nfe == 128
    other = answer_questions(subject(), asked, Scoring(draws=64, seed=1))[0]
    assert other.nats != got.nats


def test_guided_values_are_scores_of_the_guided_law():
    got = answer_questions(subject(), [("a", ["b", "c"])], Scoring(guidance=1.0))[0]
    assert got.measure == "score"
    assert got.nfe == 4
    plain = [logp_after("a", x) for x in "abc "]
    law = (ORACLE.initial @ ORACLE.transition).log()  # of the second position, told nothing
    told = ORACLE.transition[0].log()
    guided = (2 * told - law).log_softmax(-1)
    assert got.nats == pytest.approx((-guided[1:3]).tolist(), abs=1e-9)
    assert list(got.nats) != pytest.approx([-p for p in plain[1:3]], abs=1e-3)


def test_a_prompt_too_long_loses_its_beginning_and_says_so():
    me = subject(max_length=8)
    got = answer_questions(me, [("abcabcab", ["cc", "c"])])[0]
    assert got.cut == 2
    assert got.note == "cut 2 tokens from the left of the prompt"
    assert encode_question(me, "abcabcab", ["cc", "c"]).question.prompt == tuple(LETTERS.encode("cabcab"))
    assert got.nats[0] == pytest.approx(-logp_after("cabcab", "cc"))
    assert answer_questions(me, [("abc", ["cc"])])[0].note == ""


@pytest.mark.parametrize(
    ("answers", "scoring", "said"),
    [
        (["a", ""], {}, r"answers\[1\] after the prompt 'ab ': has no tokens"),
        ([], {}, "at least one text"),
        ("ab", {}, "at least one text"),
        (["a", "b" * 25], {}, r"answers\[1\] after the prompt 'ab ': has 26 tokens, the model reads 24"),
        (["a"], {"estimator": "causal"}, "a masked diffusion model takes 'count' or 'chain'"),
        (["a"], {"guidance": -1.0}, "guidance.scale=-1.0"),
    ],
)
def test_bad_questions_are_refused_in_a_sentence(answers, scoring, said):
    with pytest.raises(ValueError, match=said):
        answer_questions(subject(), [("ab ", answers)], Scoring(**scoring))


def test_an_autoregressive_model_takes_neither_masks_nor_guidance():
    with pytest.raises(ValueError, match="an autoregressive model takes 'causal'"):
        answer_questions(subject("arm"), [("a", ["b"])], Scoring(estimator="chain"))
    with pytest.raises(ValueError, match="never shown a masked prompt"):
        answer_questions(subject("arm"), [("a", ["b"])], Scoring(guidance=0.5))


def test_results_go_through_json_and_are_named_by_all_they_depend_on():
    me = subject()
    got = answer_questions(me, [("ab", ["c", "a"])])[0]
    assert Answers.from_json(json.loads(json.dumps(dataclasses.asdict(got)))) == got
    base = answers_key(me, "ab", ["c", "a"], Scoring())
    assert base == answers_key(me, "ab", ["c", "a"], Scoring(estimator="count"))
    others = [
        answers_key(me, "abb", ["c", "a"], Scoring()),
        answers_key(me, "ab", ["a", "c"], Scoring()),
        answers_key(me, "ab", ["c", "a"], Scoring(seed=1)),
        answers_key(me, "ab", ["c", "a"], Scoring(draws=8)),
        answers_key(me, "ab", ["c", "a"], Scoring(estimator="chain")),
        answers_key(dataclasses.replace(me, identity="x"), "ab", ["c", "a"], Scoring()),
        answers_key(dataclasses.replace(me, max_length=4), "ab", ["c", "a"], Scoring()),
    ]
    assert len({base, *others}) == 8
    with pytest.raises(RuntimeError, match="no numbers"):
        log_likelihoods((1.0, float("nan")))


def test_greedy_is_what_each_kind_of_model_writes():
    true = tuple(greedy_after("ab", 3))
    others = (*true[:2], (true[2] + 1) % 4)
    question = Question(tuple(LETTERS.encode("ab")), (true, others, true[:1]))
    empty = Question((), (tuple(greedy_after("", 1)),))
    assert is_greedy(subject("arm"), [question, empty]) == [(True, False, True), (True,)]
    for rows in (1, 64):
        me = subject("mdm", model=RandomTable(5, Noise.of(3)), rows_per_pass=rows)
        for prompt in ((0, 1), (2,)):
            best = surest_first(me.model, prompt, 3)
            wrong = (*best[:2], (best[2] + 1) % 5)
            assert is_greedy(me, [Question(prompt, (wrong, best))]) == [(False, True)]


def surest_first(model, prompt, size):
    """Greedy writing by hand: all laws, the largest probability anywhere, once per token."""
    import torch

    from anyorder.core.types import Canvas

    x = torch.tensor([[*prompt, *[model.vocab.mask_id] * size]])
    for _ in range(size):
        canvas = Canvas.of(x, vocab=model.vocab)
        open_ = canvas.open(model.vocab)
        logits = model(canvas, open_)
        row, token = divmod(int(logits.argmax()), logits.shape[1])
        x = x.clone()
        x[0, int(open_[0].nonzero()[row])] = token
    return tuple(x[0, len(prompt) :].tolist())


def test_a_ledger_keeps_results_line_by_line_and_survives_a_cut(tmp_path):
    path = tmp_path / "deep" / "x.jsonl"
    with Ledger(path) as ledger:
        ledger.put({"a": [1, 2], "b": {"c": 0.5}})
        assert not list(tmp_path.glob("*.tmp"))
    with path.open("ab") as f:
        f.write(b'{"key": "half", "val')  # what kill -9 leaves
    with Ledger(path) as ledger:
        assert (ledger.get("a"), ledger.get("b"), ledger.get("half")) == ([1, 2], {"c": 0.5}, None)
        ledger.put({"half": 3})
    assert Ledger(path).get("half") == 3
    assert Ledger(path).get("a") == [1, 2]
    assert len(path.read_text().splitlines()) == 4
    memory = Ledger(None)
    memory.put({"a": 1})
    assert memory.get("a") == 1


def test_a_ledger_never_writes_what_is_no_json(tmp_path):
    path = tmp_path / "x.jsonl"
    with Ledger(path) as ledger:
        ledger.put({"a": {"nats": math.nan}, "b": [math.inf], "c": 1})
        assert math.isnan(ledger.get("a")["nats"]), "what was computed now is there now"
    assert path.read_text() == '{"key": "c", "value": 1}\n'


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="results cannot be kept here"):
        Ledger(tmp_path / "file" / "x.jsonl").put({"a": 1})


def test_what_is_kept_is_not_asked_again_and_chunks_change_nothing(tmp_path, monkeypatch):
    asked = [("ab" + "c" * i, ["abcabc", "cccaaa"]) for i in range(7)]
    whole = answer_questions(subject(), asked)
    monkeypatch.setattr("anyorder.evaluation.remembered.AT_ONCE", 2)
    counting, seen = CountingDenoiser(ORACLE), []
    me = subject(model=counting, rows_per_pass=3)
    with Ledger(tmp_path / "a.jsonl") as ledger:
        made = answered(me, asked[:4], Scoring(), ledger=ledger)
    passes = counting.calls
    with Ledger(tmp_path / "a.jsonl") as ledger:
        made = answered(me, asked[:4], Scoring(), ledger=ledger)
        assert counting.calls == passes
        made = answered(me, [*asked, asked[0]], Scoring(), ledger=ledger, on_done=lambda d, n: seen.append((d, n)))
    for a, b in zip(made, [*whole, whole[0]]):
        assert a.nats == pytest.approx(b.nats, abs=1e-9)
        assert (a.nfe, a.settled) == (b.nfe, b.settled)
    assert seen == [(5, 8), (7, 8), (8, 8)]


def test_text_is_written_greedily_until_a_stop_string():
    for kind in ("arm", "mdm"):
        sampler = None if kind == "arm" else "left-to-right"
        ids = greedy_after("ab", 8)
        eos = LETTERS.vocab.eos_id
        text = LETTERS.decode(ids[: ids.index(eos)] if eos in ids else ids)
        made = write_until(subject(kind), ["ab"], Writing(max_gen_toks=8, sampler=sampler))[0]
        assert made.text == text
        stop = text[3:5]
        got = write_until(subject(kind), ["ab"], Writing(until=(stop, "zz"), max_gen_toks=8, sampler=sampler))[0]
        assert got.text == text[: text.index(stop)]
        assert got.nfe == text.index(stop) + 2 < 8


def test_copies_of_a_prompt_differ_and_nothing_else_matters():
    me, one = subject(), subject(rows_per_pass=1)
    how = Writing(max_gen_toks=10, temperature=1.0)
    prompts = ["ab", "c", "ab", "abcabc", "ab"]
    ledger = Ledger(None)
    made = written(me, prompts, [how] * 5, ledger=ledger)
    assert len({made[0].text, made[2].text, made[4].text}) == 3
    again = written(one, prompts[::-1], [how] * 5, ledger=Ledger(None))
    assert [w.text for w in again] == [made[i].text for i in (0, 3, 2, 1, 4)]
    assert written(me, ["ab"], [how], ledger=ledger)[0] == made[0]
    assert written(me, ["ab"], [dataclasses.replace(how, seed=1)], ledger=ledger)[0].text != made[0].text
    assert all(isinstance(w, Written) for w in made)


def test_a_prompt_that_leaves_no_room_is_cut():
    made = write_until(subject(max_length=10), ["abcabcabc"], Writing(max_gen_toks=4))[0]
    assert (made.cut, made.short) == (3, 0)
    assert write_until(subject(max_length=10), ["cabcabc"], Writing(max_gen_toks=9))[0].cut == 6
    with pytest.raises(ValueError, match="writes from left to right"):
        write_until(subject("arm"), ["a"], Writing(max_gen_toks=2, sampler="maskgit"))


@pytest.mark.parametrize("kind", ["mdm", "arm"])
def test_a_text_longer_than_the_model_gets_what_the_prompt_leaves(kind):
    """The prompt keeps half of the model; the text is the one that was asked for in that length."""
    me, wide = subject(kind, max_length=10), subject(kind, max_length=24)
    prompts = ["a", "abcabcabc", "abca"]
    made = write_until(me, prompts, Writing(max_gen_toks=64))
    assert [w.short for w in made] == [55, 59, 58]
    assert [w.cut for w in made] == [0, 4, 0]
    for got, prompt, size in zip(made, ("a", "bcabc", "abca"), (9, 5, 6)):
        assert got.text == write_until(wide, [prompt], Writing(max_gen_toks=size))[0].text
        alone = write_until(subject(kind, max_length=10, rows_per_pass=1), [prompt], Writing(max_gen_toks=64))[0]
        assert (alone.text, alone.short) == (got.text, got.short)
    assert any(w.text for w in made)


def test_every_generation_kwarg_is_honoured_or_named():
    given = {"until": "x", "max_gen_toks": 7, "do_sample": True, "top_k": 5, "top_p": 0.5, "num_beams": 1}
    assert writing_of(given) == Writing(until=("x",), max_gen_toks=7, temperature=1.0, top_k=5, top_p=0.5)
    assert writing_of({"temperature": 0.7}).temperature == 0.7
    assert writing_of({"temperature": 0.7, "do_sample": False}).temperature == 0.0
    assert writing_of({"do_sample": True, "temperature": 0.2}).temperature == 0.2
    assert writing_of({}, Writing(temperature=0.3)).temperature == 0.3
    assert writing_of({"max_new_tokens": 3, "max_tokens": 9}).max_gen_toks == 3
    assert writing_of({"top_k": -1}).top_k == 0
    ours = writing_of({"sampler": "margin", "num_steps": 4, "block": 2, "guidance": 0.5, "seed": 3})
    assert ours == Writing(sampler="margin", num_steps=4, block=2, guidance=0.5, seed=3)
    for wrong in ({"repetition_penalty": 1.1}, {"num_beams": 4}, {"max_length": 3, "stop": "x"}):
        with pytest.raises(ValueError, match=f"generation_kwargs: .*{sorted(wrong)[0]}"):
            writing_of(wrong)
    with pytest.raises(ValueError, match="temperature='hot' must be a number"):
        writing_of({"temperature": "hot"})
    with pytest.raises(ValueError, match="until=3 must be"):
        writing_of({"until": 3})
    with pytest.raises(ValueError, match="max_gen_toks=0"):
        writing_of({"max_gen_toks": 0})


def test_the_arm_s_cache_changes_no_text(tiny_runs, monkeypatch):
    from anyorder.api.answering import subject_of

    m = anyorder.load(tiny_runs.arm)
    me = subject_of(m.kind, m.model, m.tokenizer)
    prompts, how = ["def ", "return x", ""], Writing(until=("\n",), max_gen_toks=12)
    with_cache = write_until(me, prompts, how)
    monkeypatch.setattr("anyorder.evaluation.writing.with_cache", lambda model, kind: model)
    assert write_until(me, prompts, how) == with_cache
    assert any(w.text for w in with_cache)


def test_the_api_answers_one_question_and_many(tiny_runs):
    questions = [("def ada_bob(x, y):\n    return x", [" + y", " 9 9"]), ("def ", ["ada_eve", "zzzzzzz"])]
    for run in (tiny_runs.mdm, tiny_runs.arm):
        m = anyorder.load(run)
        many = m.answer_all(questions, draws=32)
        one = m.answer(*questions[1], draws=32)
        assert isinstance(one, anyorder.Answers)
        assert one.nats == pytest.approx(many[1].nats, rel=1e-4)
        assert many[1].best == 0
        assert one.num_tokens == (8, 8), "with the space"
        assert (m.answer(*questions[0]).measure == "likelihood") == (m.kind == "arm")
    with pytest.raises(ValueError, match="has no tokens"):
        m.answer("def ", [""])
    long = m.answer("x" * 60, ["yy"])
    assert long.note == "cut 30 tokens from the left of the prompt"


def test_scores_of_long_texts_take_context(tiny_runs):
    m = anyorder.load(tiny_runs.arm)
    text = tiny_runs.corpus.read_text()[:100]
    apart, near = m.score([text])[0], m.score([text], context=16)[0]
    assert (apart.windows, near.windows) == (4, 6)
    assert near.nats < apart.nats
    short = text[:30]
    assert m.score([short], context=16)[0].nats == m.score([short])[0].nats
    with pytest.raises(ValueError, match="context=32"):
        m.score([text], context=32)
