"""A token before every prompt: read, never asked for, kept when the prompt is cut."""

import dataclasses
import itertools

import pytest
from chain_subject import LETTERS, ORACLE, logp, subject

from anyorder.core.noise import Noise
from anyorder.evaluation.answers import Scoring, answer_questions, answers_key, encode_question
from anyorder.evaluation.documents import score_documents
from anyorder.evaluation.greedy import is_greedy
from anyorder.evaluation.writing import Writing, write_until
from anyorder.testing.oracle import MarkovOracle

BOS = 4  # the chain's end of document, which letters may follow


def behind(*, max_length=24, **values):
    return dataclasses.replace(subject(max_length=max_length), bos_id=BOS, **values)


def after(text):
    """log p of a text behind the token, by the chain's own table."""
    path = [BOS, *LETTERS.encode(text)]
    return sum(float(ORACLE.transition[a, b].log()) for a, b in itertools.pairwise(path))


@pytest.mark.parametrize("estimator", ["count", "chain"])
def test_values_are_those_behind_the_token(estimator):
    for prompt, answers in (("", ["b", "cab"]), ("ab", ["c", "ca"])):
        (got,) = answer_questions(behind(), [(prompt, answers)], Scoring(estimator=estimator))
        assert got.nats == pytest.approx([after(prompt) - after(prompt + a) for a in answers], abs=1e-9)
        assert got.num_tokens == tuple(map(len, answers)), "it is never scored"
    (plain,) = answer_questions(subject(), [("", ["b"])])
    assert plain.nats[0] == pytest.approx(-logp("b"))
    assert abs(plain.nats[0] + after("b")) > 0.01


def test_a_prompt_that_is_cut_keeps_it():
    made = encode_question(behind(max_length=8), "abcabcab", ["cc"])
    assert made.question.prompt == (BOS, *LETTERS.encode("abcab"))
    assert made.cut == 3
    assert encode_question(behind(max_length=2), "abc", ["cc"]).question.prompt == ()


def test_a_template_that_begins_with_it_does_not_double_it():
    chat = behind(specials={"<s>": BOS})
    assert encode_question(chat, "<s>ab", ["c"]).question.prompt == (BOS, *LETTERS.encode("ab"))


def test_text_is_written_and_held_to_be_greedy_behind_it():
    chain = MarkovOracle.random(5, noise=Noise.of(13).at("chain"))
    me, best = behind(model=chain), int(chain.transition[BOS].argmax())
    assert best not in (int(chain.initial.argmax()), BOS)
    asked = [encode_question(me, "", [LETTERS.decode([i])]).question for i in range(4)]
    assert is_greedy(me, asked) == [(i == best,) for i in range(4)]
    (made,) = write_until(me, [""], Writing(max_gen_toks=1))
    assert made.text == LETTERS.decode([best])
    assert write_until(behind(max_length=6), ["abcabc"], Writing(max_gen_toks=2))[0].cut == 3


@pytest.mark.parametrize("estimator", ["count", "chain"])
def test_documents_are_scored_behind_it(estimator):
    """It stands before the first window alone; a chain needs one token of context."""
    texts = ["ab", "cabc abc"]
    made = score_documents(behind(max_length=5), texts, Scoring(estimator=estimator, draws=256), context=1)
    for text, got in zip(texts, made):
        assert abs(got.nats + after(text)) <= 4 * got.stderr + 1e-9
        assert got.num_tokens == len(text)
    with pytest.raises(ValueError, match="no tokens"):
        score_documents(behind(), [""], Scoring())


def test_results_are_not_taken_for_those_without():
    assert answers_key(behind(), "a", ["b"], Scoring()) != answers_key(subject(), "a", ["b"], Scoring())


def test_an_autoregressive_model_has_its_own():
    with pytest.raises(ValueError, match="bos_id=4: an autoregressive model reads a start token before every row"):
        dataclasses.replace(subject("arm"), bos_id=BOS)
