"""Writing by insertion: its law by enumeration, its bookkeeping, its limits."""

import dataclasses
import itertools
import math

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Vocab
from anyorder.samplers.base import generate, step_log_probs, steps
from anyorder.samplers.inserted import insert, insertions
from anyorder.samplers.insertion import Insert, Room
from anyorder.samplers.presets import make_sampler
from anyorder.samplers.token import TokenRule
from anyorder.testing.laws import chi_square_p
from anyorder.testing.strings import InsertionOracle, Strings

NOISE = Noise.of(5)
GREEDY = TokenRule(temperature=0.0)
TWO = Strings.of({"a": 0.5, "ab": 0.5})
FIVE = Strings.of({"a": 0.25, "ab": 0.25, "abc": 0.25, "ba": 0.125, "aabb": 0.125})


def blank(rows: int, vocab: Vocab, *, length: int = 8, given: tuple[int, ...] = (), window: str = "") -> Canvas:
    """Rows that hold their beginning and the given tokens; `window` marks open ones with 1, by default all are."""
    x = torch.full((rows, length), vocab.pad_id)
    tokens = torch.tensor([vocab.eos_id, *given])
    x[:, : len(tokens)] = tokens
    valid = (x != vocab.pad_id).long()
    marks = torch.tensor([c == "1" for c in window.ljust(length, "0")]) if window else valid[0] > 0
    return Canvas(x=x, fixed=valid > 0, window=marks.expand(rows, -1).clone(), segment=valid, row_id=torch.arange(rows))


def texts(canvas: Canvas) -> list[tuple[int, ...]]:
    return [tuple(x[keep].tolist()[1:]) for x, keep in zip(canvas.x, canvas.valid)]


@dataclasses.dataclass(frozen=True)
class Table:
    """Scores by visible text: of each (position, token), and the log-odds to stop; the rest as a hash of the text."""

    size: int
    stop: float = -30.0
    nfe: int = 1

    @property
    def vocab(self) -> Vocab:
        return Vocab(size=self.size + 1, mask_id=self.size + 1, pad_id=self.size + 2, eos_id=self.size)

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        code = torch.where(canvas.valid, (canvas.x + 1) * 7 ** torch.arange(canvas.x.shape[1]), 0).sum(-1)
        row, position = at.nonzero(as_tuple=True)
        logits = NOISE.at("table").normal(code[row][:, None], position[:, None], torch.arange(self.size + 1))
        return logits.index_fill(-1, torch.tensor([self.size]), -math.inf).index_put(
            ((position == 0).nonzero().squeeze(-1), torch.tensor(self.size)),
            torch.full((int((position == 0).sum()),), self.stop, dtype=torch.float64),
        )


@pytest.mark.parametrize("law", [TWO, FIVE])
@pytest.mark.parametrize("weight", ["len_plus_one", "document"])
def test_law(law: Strings, weight: str) -> None:
    """The best model for L + 1 writes the law of the data, that for documents the law tilted by 1 / (L + 1)."""
    rows = 20_000
    sample = generate(Insert(), InsertionOracle(law, weight), blank(rows, law.vocab), noise=NOISE)
    want = dict((law if weight == "len_plus_one" else law.tilted()).chance)
    found = texts(sample.canvas)
    assert set(found) <= set(want)
    counts = torch.tensor([found.count(t) for t in want])
    assert chi_square_p(counts, torch.tensor(list(want.values()), dtype=torch.float64)) > 1e-4
    assert Insert().exact


def test_optimal_answers_of_the_sheet() -> None:
    document, plus = InsertionOracle(TWO, "document"), InsertionOracle(TWO)
    assert document.answer((0,))[0] == pytest.approx(3 / 4)
    assert plus.answer((0,))[0] == pytest.approx(2 / 3)
    assert document.answer(())[1] == pytest.approx({(0, 0): 4 / 5, (0, 1): 1 / 5})
    assert plus.answer(())[1] == pytest.approx({(0, 0): 3 / 4, (0, 1): 1 / 4})
    assert TWO.tilted().chance[0][1] == pytest.approx(3 / 5)
    assert [p for _, p in FIVE.tilted().chance] == pytest.approx([10 / 27, 20 / 81, 5 / 27, 10 / 81, 2 / 27])
    assert FIVE.tilted().mean_length == pytest.approx(1.96296, abs=1e-5)
    assert FIVE.mean_length == 2.25


@pytest.mark.parametrize(("threshold", "share"), [(0.9, 0.0), (0.5, 0.8)])
def test_threshold_changes_the_law(threshold: float, share: float) -> None:
    """Document weights: at 0.9 always "ab", at 0.5 "a" with chance 4/5."""
    oracle = InsertionOracle(TWO, "document")
    found = texts(generate(Insert(stop=threshold), oracle, blank(4000, TWO.vocab), noise=NOISE).canvas)
    assert found.count((0,)) / 4000 == pytest.approx(share, abs=4 * math.sqrt(0.16 / 4000) if share else 0)


@dataclasses.dataclass(frozen=True)
class OneRow:
    """The same scores for every canvas."""

    scores: Float[Tensor, "L V"]
    vocab: Vocab
    nfe: int = 1

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        _row, position = at.nonzero(as_tuple=True)
        return self.scores[position]


def one_step(sampler: Insert, model: OneRow, rows: int, given: tuple[int, ...]) -> Canvas:
    return next(iter(steps(sampler, model, blank(rows, model.vocab, given=given), noise=NOISE))).canvas


def test_greedy_position_first_is_not_greedy_over_both() -> None:
    """Ten tokens of mass .06 after the beginning against one of .4 after token 0: the position of more mass wins."""
    vocab = Vocab(size=11, mask_id=11, pad_id=12, eos_id=10)
    scores = torch.full((8, 11), -math.inf, dtype=torch.float64)
    scores[0, :10], scores[1, 4], scores[0, 10] = math.log(0.06), math.log(0.4), -30.0
    assert scores[:2, :10].argmax() == 14
    written = one_step(Insert(position=GREEDY, token=GREEDY), OneRow(scores, vocab), 1, (7,))
    assert texts(written) == [(0, 7)]


def test_two_stages_are_the_joint_law() -> None:
    vocab = Vocab(size=5, mask_id=5, pad_id=6, eos_id=4)
    scores = NOISE.at("joint").normal(torch.arange(8)[:, None], 0, torch.arange(5))
    scores[0, 4] = -1e9
    found = texts(one_step(Insert(), OneRow(scores, vocab), 30_000, (0, 1)))
    law = scores[:3, :4].flatten().softmax(0)
    want: dict[tuple[int, ...], float] = {}
    for i in range(3):
        for v in range(4):
            text = (*(0, 1)[:i], v, *(0, 1)[i:])
            want[text] = want.get(text, 0.0) + float(law[4 * i + v])
    counts = torch.tensor([found.count(t) for t in want])
    assert chi_square_p(counts, torch.tensor(list(want.values()), dtype=torch.float64)) > 1e-4


def test_bookkeeping() -> None:
    """[start, C, E]: D after C, then A after the start."""
    vocab = Vocab(size=7, mask_id=7, pad_id=8, eos_id=6)
    canvas = blank(1, vocab, given=(2, 4), window="111")
    gap = torch.tensor([[0, 1, 2, -1, -1, -1, -1, -1]])
    after_c = torch.arange(8)[None] == 1
    second, gap, origin = insert(canvas, gap, after_c, torch.tensor([3]))
    assert second.x[0, :4].tolist() == [6, 2, 3, 4]
    assert gap[0, :4].tolist() == [0, 1, 1, 2]
    assert origin[0, :5].tolist() == [0, 1, -1, 2, 3]
    assert second.fixed[0, :4].tolist() == [True, True, False, True]
    third, gap, _ = insert(second, gap, torch.arange(8)[None] == 0, torch.tensor([0]))
    assert third.x[0, :5].tolist() == [6, 0, 2, 3, 4]
    assert gap[0, :5].tolist() == [0, 0, 1, 1, 2]
    both = (torch.arange(8) < 2)[None]
    two, _, origin = insert(canvas, torch.zeros_like(gap), both, torch.tensor([0, 3]))
    assert two.x[0, :5].tolist() == [6, 0, 2, 3, 4]
    assert origin[0, :5].tolist() == [0, -1, 1, -1, 2]


def test_prompt_is_kept_and_closed() -> None:
    model = Table(4, stop=-1.5)
    canvas = blank(64, model.vocab, given=(3, 2, 1), window="0001")
    for text in texts(generate(Insert(), model, canvas, noise=NOISE).canvas):
        assert text[:3] == (3, 2, 1)


def test_only_gaps_open_and_nothing_suppressed_appears() -> None:
    model = Table(3, stop=-1.0)
    canvas = blank(64, model.vocab, given=(2, 1, 2), window="0110", length=12)
    sample = generate(Insert(), model, canvas, noise=NOISE)
    kept = sample.order < 0
    for x, valid, given in zip(sample.canvas.x, sample.canvas.valid, kept):
        text = x[valid].tolist()
        assert text[0] == 3
        assert text[1] == 2
        assert text[-1] == 2
        assert x[valid & given].tolist() == [3, 2, 1, 2]
        assert all(t < 3 for t in text[1:])


def test_room_is_the_limit_and_finished_rows_do_not_change() -> None:
    model = Table(3)
    sample = generate(Insert(), model, blank(4, model.vocab, length=5), noise=NOISE)
    assert sample.canvas.valid.all()
    assert (sample.nfe == 4).all()
    law = FIVE
    many = list(steps(Insert(), InsertionOracle(law), blank(32, law.vocab), noise=NOISE))
    for before, after in itertools.pairwise(many):
        done = before.carry.more == 0
        assert torch.equal(before.canvas.x[done], after.canvas.x[done])
        assert not after.nfe[done].any()


def test_a_row_is_the_same_in_any_batch() -> None:
    model = Table(5, stop=-1.0)
    canvas = blank(6, model.vocab, length=10)
    together = generate(Insert(), model, canvas, noise=NOISE)
    for i in range(6):
        row = torch.tensor([i])
        alone = dataclasses.replace(
            canvas, x=canvas.x[row], fixed=canvas.fixed[row], window=canvas.window[row], segment=canvas.segment[row],
            row_id=row,
        )  # fmt: skip
        one = generate(Insert(), model, alone, noise=NOISE)
        assert torch.equal(one.canvas.x[0], together.canvas.x[i])
        assert torch.equal(one.order[0], together.order[i])


def test_order_says_when_each_token_came() -> None:
    model = Table(4)
    canvas = blank(3, model.vocab, length=6)
    seen = [c.canvas for c in steps(Insert(), model, canvas, noise=NOISE)]
    sample = generate(Insert(), model, canvas, noise=NOISE)
    for b in range(3):
        assert sorted(sample.order[b].tolist()) == [-1, 0, 1, 2, 3, 4]
        for when, then in enumerate(seen):
            kept = sample.order[b] <= when
            assert sample.canvas.x[b][kept].tolist() == then.x[b][then.valid[b]].tolist()
    assert bool((sample.token_logp[sample.order >= 0] < 0).all())
    assert not sample.revised.any()


@pytest.mark.parametrize("sampler", [Insert(), Insert(token=TokenRule(top_k=2), position=TokenRule(temperature=0.7))])
def test_steps_have_a_likelihood(sampler: Insert) -> None:
    """The chances of all next canvases, and of stopping, sum to 1."""
    model = Table(3, stop=-0.5)
    canvas = blank(1, model.vocab, given=(0, 0, 1), window="1111", length=6)
    carry = sampler.init(canvas, vocab=model.vocab)
    total = sampler.log_prob(model, canvas, carry, canvas).exp()
    reached = set()
    for i in range(4):
        for v in range(3):
            chosen = torch.arange(6)[None] == i
            after, _, _ = insert(canvas, torch.zeros_like(canvas.x), chosen, torch.tensor([v]))
            if texts(after)[0] not in reached:
                reached.add(texts(after)[0])
                total = total + sampler.log_prob(model, canvas, carry, after).exp()
    assert float(total) == pytest.approx(1.0, abs=1e-9)


def test_trajectory_likelihood_is_that_of_its_draws() -> None:
    """Where no token stands beside its equal, the step's likelihood is that of going on, and of the event drawn."""
    model = Table(9, stop=-1.0)
    canvas = blank(16, model.vocab, length=5)
    taken = list(steps(Insert(), model, canvas, noise=NOISE))
    go, stop = math.log1p(-1 / (1 + math.e)), -math.log1p(math.e)
    for step, logp in zip(taken, step_log_probs(Insert(), model, canvas, taken=taken)):
        inserted = step.wrote.any(-1)
        assert torch.allclose(logp[~inserted & (step.nfe > 0)], torch.tensor(stop, dtype=torch.float64))
        alone = inserted & (insertions_of(step) == 1)
        assert torch.allclose(logp[alone], go + step.logp[alone].sum(-1), atol=1e-9)


def insertions_of(step) -> Tensor:  # type: ignore[no-untyped-def]
    """In how many ways the token inserted in a step may have come: the length of its run."""
    x, at = step.canvas.x, step.wrote.long().argmax(-1)
    token = x.gather(-1, at[:, None])
    same = x == token
    count = same.long().sum(-1)
    return count


def test_insertions_into_a_run() -> None:
    vocab = Vocab(size=4, mask_id=4, pad_id=5, eos_id=3)
    before = blank(1, vocab, given=(0, 0, 1), length=6)
    after, _, _ = insert(before, torch.zeros_like(before.x), torch.arange(6)[None] == 1, torch.tensor([0]))
    assert insertions(before, after)[0].tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("least", [0, 1, 3])
def test_gaps_hold_what_is_asked(least: int) -> None:
    model = Table(4, stop=2.0)
    canvas = blank(200, model.vocab, given=(0, 1), window="011", length=12)
    sampler = Insert(gaps=(Room(least, 4), Room(2, 2)))
    sample = generate(sampler, model, canvas, noise=NOISE)
    for _x, order, valid in zip(sample.canvas.x, sample.order, sample.canvas.valid):
        given = (valid & (order < 0)).nonzero().squeeze(-1).tolist()
        first, second = given[2] - given[1] - 1, int(valid.sum()) - given[2] - 1
        assert least <= first <= 4
        assert second == 2
    assert not sampler.exact


def test_least_is_reached_when_room_is_short() -> None:
    model = Table(4)
    canvas = blank(50, model.vocab, given=(0, 1), window="011", length=8)
    sample = generate(Insert(gaps=(Room(), Room(3))), model, canvas, noise=NOISE)
    ends = [(valid & (order < 0)).nonzero().max() for order, valid in zip(sample.order, sample.canvas.valid)]
    assert all(7 - int(end) >= 3 for end in ends)


def test_gaps_that_cannot_be() -> None:
    model = Table(4)
    canvas = blank(1, model.vocab, given=(0, 1), window="011", length=6)
    with pytest.raises(ValueError, match="at least 5 and at most 4"):
        Room(5, 4)
    with pytest.raises(ValueError, match="at least 4 tokens are asked for and there is room for 3"):
        Insert(gaps=(Room(2), Room(2))).init(canvas, vocab=model.vocab)
    with pytest.raises(ValueError, match="names 1 gaps"):
        Insert(gaps=(Room(2),)).init(canvas, vocab=model.vocab)


@pytest.mark.parametrize("values", [{"stop": 0.0}, {"stop": 1.0}, {"at_once": 0}])
def test_values_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sampler"):
        Insert(**values)  # type: ignore[arg-type]


def test_several_at_once_take_fewer_passes_and_another_law() -> None:
    law = FIVE
    sampler = Insert(at_once=2)
    sample = generate(sampler, InsertionOracle(law), blank(4000, law.vocab), noise=NOISE)
    alone = generate(Insert(), InsertionOracle(law), blank(4000, law.vocab), noise=NOISE)
    assert float(sample.nfe.double().mean()) < float(alone.nfe.double().mean())
    assert not sampler.exact
    greedy = Insert(position=GREEDY, token=GREEDY, at_once=3)
    full = generate(greedy, Table(4), blank(2, Table(4).vocab, length=8), noise=NOISE)
    assert full.canvas.valid.all()
    assert (full.nfe == 4).all()


@pytest.mark.parametrize("name", ["insertion", "ilm", "insertion:at_once=2", "insertion:position_temperature=0.7"])
def test_at_temperature_0_nothing_is_drawn(name: str) -> None:
    canvas = blank(2, Table(3, stop=0.0).vocab, length=7)
    samples = [
        generate(make_sampler(name, temperature=0.0), Table(3, stop=stop), canvas, noise=Noise.of(seed))
        for stop in (-0.1, 0.1)
        for seed in (0, 1, 2)
    ]
    assert all(torch.equal(s.canvas.x, samples[0].canvas.x) for s in samples[:3])
    assert all(torch.equal(s.logp, torch.zeros(2).double()) for s in samples)
    stopped = {int(s.canvas.valid.sum()) for s in samples[3:]}
    assert stopped == ({14} if name == "ilm" else {2})  # even odds, unless a chance is named
