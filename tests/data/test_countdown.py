"""Countdown: answers by Python's arithmetic, the solver by search over pairs, the checker by every expression."""

import dataclasses
import re
from fractions import Fraction
from itertools import combinations
from math import sqrt

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.data.loader import Loader
from anyorder.data.tasks import Countdown, FormedTask, PracticeTask, ValidatedTask, make_task
from anyorder.data.tasks.countdown import draw_rounds, solutions
from anyorder.data.tasks.expression import parse, value

NOISE = Noise.of(6)


@pytest.fixture(scope="module", params=[3, 4])
def task(request):
    return Countdown(numbers=request.param, largest=30, num_train=400, num_valid=30, num_test=300)


@pytest.fixture(scope="module")
def problems(task):
    return task.test(noise=NOISE)


def reachable(numbers):
    """Every value that the numbers come to: two of them are replaced by what they make until one is left."""
    if len(numbers) == 1:
        return {numbers[0]}
    found = set()
    for i, j in combinations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
        made = {a + b, a - b, b - a, a * b} | ({a / b} if b else set()) | ({b / a} if a else set())
        for one in made:
            found |= reachable([*rest, one])
    return found


def written(task, problems, answers):
    """Rows of the problems' prompts with other answers, as a masked model leaves them."""
    rows = problems.x0.clone()
    start, vocab = task.layout.prompt, task.tokenizer.vocab
    rows[:, start:] = vocab.eos_id
    for row, answer in zip(rows, answers):
        tokens = torch.tensor(task.tokenizer.encode(answer), dtype=torch.int64)
        row[start : start + len(tokens)] = tokens
    return rows


def test_stored_answers_use_each_number_once_and_come_to_the_target(task, problems):
    for row in problems.x0:
        asked, answer = task.render(row).split(": ")
        numbers, target = asked.split("=")
        given = sorted(int(n) for n in numbers.split(","))
        used = answer.translate(str.maketrans("+-*/()", "      ")).split()
        assert sorted(map(int, used)) == given
        assert eval(answer) == pytest.approx(int(target))
        assert 1 <= int(target) <= task.top
        assert 1 <= given[0] <= given[-1] <= task.largest
    assert bool(task.correct(problems, problems.x0).all())
    assert bool(task.formed(problems, problems.x0).all())


def test_the_solver_finds_what_a_search_over_pairs_finds():
    u = NOISE.at("numbers").uniform(torch.arange(3)[:, None], 0, torch.arange(3))
    for numbers in (1 + (u * 12).long()).tolist():
        values = reachable([Fraction(n) for n in numbers])
        for target in range(1, 60, 4):
            found = solutions(numbers, target)
            assert bool(found) == (target in values), (numbers, target)
            assert all(eval(answer) == pytest.approx(target) for answer in found)
    assert solutions([3, 3, 8, 8], 24) == ["8/(3-8/3)"]
    assert solutions([1, 1, 1], 3) == ["1+(1+1)", "1+1+1"]


def test_every_solution_is_correct_and_every_other_expression_is_wrong():
    task = Countdown(num_test=6, largest=9)
    problems = task.test(noise=NOISE)
    for at, row in enumerate(problems.canvas.x):
        one = dataclasses.replace(problems, x0=problems.x0[at : at + 1])
        every = task.solve(row)
        numbers, target = task.asked(row)
        assert task.render(problems.x0[at]).split(": ")[1] in every
        assert all(bool(task.correct(one, written(task, one, [a]))) for a in every)
        for other in range(max(target - 2, 1), target + 3):
            wrong = [a for a in solutions(numbers, other) if other != target]
            rows = [written(task, one, [a]) for a in wrong]
            assert not any(bool(task.correct(one, x)) for x in rows)
            assert all(bool(task.formed(one, x)) for x in rows)


@pytest.mark.parametrize("end", ["fill", "once", "none"])
def test_malformed_and_truncated_answers_are_wrong(end):
    task = Countdown(end=end, num_test=50)
    problems, vocab = task.test(noise=NOISE), task.tokenizer.vocab
    right = [task.render(row).split(": ")[1] for row in problems.x0]
    for spoil in (
        lambda a: "", lambda a: a[:-1] + "+", lambda a: f"({a}", lambda a: re.sub("[-+*/]", "++", a, count=1),
        lambda a: "7", lambda a: f"={a}", lambda a: f"-{a}",
    ):  # fmt: skip
        rows = written(task, problems, [spoil(a)[: task.layout.answer] for a in right])
        assert not task.correct(problems, rows).any()
        legible = [_is_expression(spoil(a)[: task.layout.answer]) for a in right]
        assert task.formed(problems, rows).tolist() == legible
    assert bool(task.correct(problems, written(task, problems, right)).all())
    masked = written(task, problems, right)
    masked[:, task.layout.prompt] = vocab.mask_id
    assert not task.formed(problems, masked).any()
    moved = written(task, problems, right)
    moved[:, task.layout.prompt - 2] = (moved[:, task.layout.prompt - 2] + 1) % 10  # last digit of the target
    assert not task.formed(problems, moved).any()
    assert not task.correct(problems, moved).any()
    room = torch.tensor([len(a) + 2 <= task.layout.answer for a in right])
    once_more = written(task, problems, [f"{a}*1"[: task.layout.answer] for a in right])
    assert bool(task.formed(problems, once_more)[room].all())
    assert not task.correct(problems, once_more)[room].any()
    assert int(room.sum()) > 25


def _is_expression(text):
    try:
        parse(text)
    except ValueError:
        return False
    return True


def test_an_answer_that_fills_its_row_without_an_end_is_none():
    task = Countdown(num_test=60)
    problems, start = task.test(noise=NOISE), task.layout.prompt
    room, seen = task.length - start, 0
    endless = problems.x0.clone()
    for row, x0 in zip(endless, problems.x0):
        answer = task.render(x0).split(": ")[1]
        pairs, odd = divmod(room - len(answer), 2)
        if not odd:
            seen += 1
            answer = "(" * pairs + answer + ")" * pairs
            assert parse(answer)
        row[start:] = torch.tensor(task.tokenizer.encode(answer.ljust(room, "0")))
    assert seen > 10
    assert not task.formed(problems, endless).any()
    assert not task.correct(problems, endless).any()
    free = dataclasses.replace(task, end="none")
    told = free.test(noise=NOISE)
    assert bool(free.formed(told, told.x0).all())


def test_right_answers_in_rows_of_an_insertion_model():
    task = Countdown(end="none", num_test=20)
    problems, vocab = task.test(noise=NOISE), task.tokenizer.vocab
    rows = []
    for row in problems.x0:
        prompt, answer = task.layout.parts(row)
        rows.append([vocab.eos_id, *prompt, *answer] + [vocab.pad_id] * (60 - len(prompt) - len(answer)))
    assert bool(task.correct(problems, torch.tensor(rows)).all())


def test_targets_are_uniform_over_what_is_drawn():
    """The law by enumeration: numbers from 1..3 and all expressions, those that come to no target left out."""
    chance = {}
    for a in range(1, 4):
        for b in range(1, 4):
            for c in range(1, 4):
                for answer in _all_values([a, b, c]):
                    if answer is not None and answer.denominator == 1 and 1 <= answer <= 10:
                        chance[int(answer)] = chance.get(int(answer), 0) + 1
    total = sum(chance.values())
    drawn = draw_rounds(torch.arange(4000), numbers=3, largest=3, top=10, noise=NOISE)
    for target in range(1, 11):
        p = chance.get(target, 0) / total
        share = sum(r.target == target for r in drawn) / len(drawn)
        assert share == pytest.approx(p, abs=4 * sqrt(p * (1 - p) / len(drawn)) + 1e-9), target


def _all_values(numbers):
    from anyorder.data.tasks.expression import expressions, filled

    for form in expressions((0, 1, 2)):
        try:
            yield value(filled(form, numbers))
        except ZeroDivisionError:
            yield None


def test_a_row_is_the_same_alone_and_among_others():
    law = {"numbers": 4, "largest": 50, "top": 20, "noise": NOISE}
    some = draw_rounds(torch.tensor([5, 0, 17]), **law)
    assert draw_rounds(torch.tensor([17]), **law) == some[2:]
    few, many = (Countdown(num_test=n).test(noise=NOISE).x0 for n in (3, 40))
    assert torch.equal(many[:3], few)


def test_no_problem_is_in_two_splits_whatever_the_order_of_its_numbers():
    task = Countdown(largest=5, top=20, num_train=3000, num_valid=60, num_test=60)  # few, so that splits would meet
    splits = [task.train(noise=NOISE).tokens, task.valid(noise=NOISE).x0, task.test(noise=NOISE).x0]
    keys = [{(tuple(sorted(task.asked(row)[0])), task.asked(row)[1]) for row in rows} for rows in splits]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert len(splits[0]) > 300
    assert len(splits[1]) < 60  # some were test problems


def test_rows_train_and_ask(task):
    rows, vocab = task.train(noise=NOISE), task.tokenizer.vocab
    batch = Loader(rows, rows=20, noise=NOISE).batch_at(0)
    assert torch.equal(batch.target, torch.arange(task.length).expand(20, -1) >= task.layout.prompt)
    assert (task.layout.prompt, task.layout.answer) == {3: (3 * 2 + 2 + 1 + 2 + 1, 10), 4: (4 * 2 + 3 + 1 + 2 + 1, 15)}[
        task.numbers
    ]
    problems = task.test(noise=NOISE)
    opened = problems.canvas.x == vocab.mask_id
    assert torch.equal(opened, (torch.arange(task.length) >= task.layout.prompt).expand_as(opened))


def test_training_rows_can_be_asked():
    task = Countdown(num_train=200, num_test=20)
    assert isinstance(task, PracticeTask)
    problems = task.train_problems(noise=NOISE)
    assert torch.equal(problems.x0, task.train(noise=NOISE).tokens)
    assert bool((problems.canvas.x[:, task.layout.prompt :] == task.tokenizer.vocab.mask_id).all())
    assert bool(task.correct(problems, problems.x0).all())


def test_it_is_a_task_with_a_form_and_a_split_to_choose_on():
    task = make_task("countdown:numbers=4,largest=50,num_test=3")
    assert isinstance(task, FormedTask)
    assert isinstance(task, ValidatedTask)
    assert task == Countdown(numbers=4, largest=50, num_test=3)
    assert task.render(task.test(noise=NOISE).canvas.x[0]).endswith(": " + "░" * 16)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"numbers": 5}, r"^countdown numbers=5: must be 3 or 4$"),
        ({"largest": 100}, r"^countdown largest=100: must be between 2 and 99$"),
        ({"top": 9}, r"^countdown top=9: must be between 10 and 999$"),
        ({"num_train": 0}, r"^countdown num_train=0: must be >= 1$"),
        ({"end": "eos"}, r"^end='eos': must be one of fill, once, none$"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(ValueError, match=said):
        Countdown(**options)
