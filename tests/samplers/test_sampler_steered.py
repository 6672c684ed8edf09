"""The step with four knobs: counts of schedules made by hand, the race, guidance, and what samplers it contains."""

import json

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.guidance.classifier_free import ClassifierFree, guided
from anyorder.samplers.base import generate, step_log_probs, steps
from anyorder.samplers.look import Look
from anyorder.samplers.presets import make_sampler
from anyorder.samplers.schedules import HANDS, Table, hand, read_schedule, write_schedule
from anyorder.samplers.steered import Steered, ranked
from anyorder.testing.oracle import RandomTable, vocab_of

VOCAB = vocab_of(5)
NOISE = Noise.of(9)


def blank(rows, length, *, prompt=0):
    x = torch.full((rows, length), VOCAB.mask_id)
    x[:, :prompt] = 1
    return Canvas.of(x, vocab=VOCAB)


def revealed(drawing, length):
    """Tokens written in each step."""
    model = RandomTable(5, Noise.of(1))
    return [int(s.wrote.sum()) for s in steps(drawing, model, blank(1, length), noise=NOISE)]


@pytest.mark.parametrize(
    ("length", "num_steps", "want"),
    [
        (8, 2, [3, 5]),
        (16, 4, [2, 3, 5, 6]),
        (16, 8, [1, 1, 1, 2, 3, 2, 3, 3]),
        (64, 8, [2, 3, 6, 8, 10, 11, 12, 12]),
        (64, 16, [1, 1, 1, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6]),
    ],
)
def test_the_cosine_s_counts(length, num_steps, want):
    for name in ("maskgit", "meissonic", "autonat", "show-o"):
        assert revealed(Steered(hand(name, num_steps)), length) == want


def test_a_step_writes_at_least_one_token_and_leaves_one_but_where_told():
    full, none = (1.0, 1.0, 1.0, 0.0), (0.0, 1.0, 1.0, 0.0)
    assert revealed(Steered(Table((full, full, none))), 6) == [1, 1, 4]
    assert revealed(Steered(Table((full, full, none)), may_wait=True), 6) == [0, 0, 6]
    assert revealed(Steered(Table((none, none, none))), 6) == [5, 1]
    assert revealed(Steered(Table((none, none, none)), may_finish=True), 6) == [6]


def test_published_ramps():
    ranks = {name: [row[1] for row in hand(name, 4).rows] for name in HANDS}
    assert ranks["maskgit"] == pytest.approx([4.5 * 0.75, 4.5 * 0.5, 4.5 * 0.25, 0.0])
    assert ranks["meissonic"] == pytest.approx([2.0, 4 / 3, 2 / 3, 0.0])
    assert ranks["show-o"] == pytest.approx([0.75, 0.375, 0.09375, 0.0])
    assert ranks["autonat"] == pytest.approx([1.0, 0.75, 0.5, 0.0])
    assert ranks["adanat"] == pytest.approx([0.75025, 0.50025, 0.25025, 0.00025])
    assert [row[3] for row in hand("autonat", 4, guidance=3.0).rows] == pytest.approx([0.75, 1.5, 2.25, 3.0])
    assert {row[3] for row in hand("meissonic", 4).rows} == {8.0}


def test_kept_positions_race_as_plackett_luce_says():
    rows, length = 4000, 4
    drawing = Steered(Table(((0.75, 2.0, 1.0, 0.0), (0.0, 1.0, 1.0, 0.0))), order="choose_first")
    model = RandomTable(5, Noise.of(5))
    canvas = blank(rows, length)
    first = next(iter(steps(drawing, model, canvas, noise=NOISE)))
    logits = model(blank(1, length), torch.ones(1, length, dtype=torch.bool))
    share = (logits.log_softmax(-1).amax(-1) / 2).softmax(-1)
    found = first.wrote.double().mean(0)
    assert ((found - share).abs() < 4 * (share * (1 - share) / rows).sqrt()).all()


@pytest.mark.parametrize("tempered", [False, True])
def test_positions_race_by_the_model_s_own_law_or_by_the_one_tokens_are_drawn_from(tempered):
    """Log p of the drawn token, guided, over the rank temperature; AdaNAT leaves the tokens' temperature out."""
    model, canvas = RandomTable(5, Noise.of(4)), blank(3, 6, prompt=2)
    drawing = Steered(Table(((0.5, 1.7, 0.6, 1.5), (0.0, 1.0, 1.0, 0.0))), tempered=tempered)
    look = Look(model, canvas, drawing.init(canvas, vocab=VOCAB), NOISE)
    made = drawing.decide(look, drawing.steering(look))
    logits = guided(model, canvas, look.open, torch.full((3,), 1.5).double(), without="masked")
    own, law = (x.log_softmax(-1).gather(-1, made.token[look.open][:, None])[:, 0] for x in (logits, logits / 0.6))
    torch.testing.assert_close(made.weights[look.open], (law if tempered else own) / 1.7)
    torch.testing.assert_close(made.logp[look.open], law)
    assert bool((made.weights[~look.open] == -torch.inf).all())


def test_choosing_first_has_a_likelihood_whose_steps_sum_to_one():
    drawing = Steered(Table(((0.5, 1.0, 0.7, 0.0), (0.0, 1.0, 1.0, 0.0))), order="choose_first")
    model, canvas = RandomTable(5, Noise.of(2)), blank(1, 2)
    carry = drawing.init(canvas, vocab=VOCAB)
    total = 0.0
    for position in range(2):
        for token in range(VOCAB.size):
            x = canvas.x.clone()
            x[0, position] = token
            after = Canvas(x, canvas.fixed, canvas.window, None, canvas.row_id)
            total += float(drawing.log_prob(model, canvas, carry, after).exp())
    assert total == pytest.approx(1.0, abs=1e-9)
    both = Canvas(torch.zeros_like(canvas.x), canvas.fixed, canvas.window, None, canvas.row_id)
    assert drawing.log_prob(model, canvas, carry, both).tolist() == [-torch.inf]  # this step writes one
    taken = list(steps(drawing, model, blank(3, 2), noise=NOISE))
    assert all((logp < 0).all() for logp in step_log_probs(drawing, model, blank(3, 2), taken=taken))
    with pytest.raises(ValueError, match="choose_first"):
        Steered(hand("autonat", 2)).log_prob(model, canvas, carry, canvas)


def test_guidance_by_row_is_classifier_free_guidance():
    model, canvas = RandomTable(5, Noise.of(4)), blank(3, 5, prompt=2)
    at = canvas.open(VOCAB)
    scale = torch.tensor([0.0, 1.5, 4.0], dtype=torch.float64)
    mixed = guided(model, canvas, at, scale, without="masked").view(3, 3, -1)
    for row, w in enumerate(scale.tolist()):
        alone = ClassifierFree(model, w)(canvas, at).view(3, 3, -1)[row]
        torch.testing.assert_close(mixed[row].log_softmax(-1), alone.log_softmax(-1))
    told = model(canvas, at).view(3, 3, -1)[1].log_softmax(-1)
    masked = Canvas(torch.full_like(canvas.x, VOCAB.mask_id), canvas.fixed, canvas.window, None, canvas.row_id)
    blind = model(masked, at).view(3, 3, -1)[1].log_softmax(-1)
    torch.testing.assert_close(  # s = w + 1, as others write it
        (blind + 2.5 * (told - blind)).log_softmax(-1), mixed[1].log_softmax(-1)
    )


def test_without_guidance_nothing_is_asked_of_the_blind_reading():
    model, canvas = Differentiable(), blank(2, 4, prompt=1)
    drawing = Steered(hand("maskgit", 2))
    knobs = torch.tensor([[0.5, 1.0, 1.0, 0.0]] * 2, dtype=torch.float64)
    _, law = drawing.laws(model, canvas, canvas.open(VOCAB), knobs)
    law.log_softmax(-1)[:, 0].sum().backward()
    assert model.told.grad.abs().sum() > 0
    assert model.blind.grad is None
    knobs[:, 3] = 2.0
    drawing.laws(model, canvas, canvas.open(VOCAB), knobs)[1].log_softmax(-1)[:, 0].sum().backward()
    assert model.blind.grad.abs().sum() > 0


class Differentiable(torch.nn.Module):
    """One law with the prompt in sight, another without."""

    nfe, vocab = 1, VOCAB

    def __init__(self):
        super().__init__()
        self.told = torch.nn.Parameter(torch.arange(5.0))
        self.blind = torch.nn.Parameter(-torch.arange(5.0))

    def __call__(self, canvas, at):
        sees = (canvas.x[:, 0] != VOCAB.mask_id)[at.nonzero()[:, 0], None]
        return self.told * sees + self.blind * ~sees if bool((~sees).any()) else self.told.expand(len(sees), -1)


def test_cold_tokens_are_the_likeliest():
    model = RandomTable(5, Noise.of(8))
    cold = Steered(Table(((0.0, 1.0, 0.0, 0.0),)))
    made = generate(cold, model, blank(2, 6), noise=NOISE).canvas.x
    logits = model(blank(1, 6), torch.ones(1, 6, dtype=torch.bool))
    assert torch.equal(made, logits.argmax(-1).expand(2, 6))


def test_rows_that_are_alike_share_their_noise():
    model = RandomTable(5, Noise.of(8))
    made = generate(Steered(hand("adanat", 3), alike=4), model, blank(8, 6), noise=NOISE).canvas.x
    assert torch.equal(made[:4], made[:1].expand(4, 6))
    assert not torch.equal(made[0], made[4])


def test_ranks_count_the_kept():
    key = torch.tensor([[0.3, 5.0, -1.0, 2.0]], dtype=torch.float64)
    kept = torch.tensor([[True, False, True, True]])
    assert ranked(key, kept).tolist() == [[1, -1, 2, 0]]


def test_a_stretched_schedule_keeps_its_course():
    own = hand("meissonic", 4)
    torch.testing.assert_close(own.stretched(4).tensor, own.tensor)
    line = Table(((0.5, 1.0, 1.0, 3.0), (0.0, 0.0, 2.0, 1.0)))
    want = [(0.75, 1.0, 1.0, 3.0), (0.5, 0.75, 1.25, 2.5), (0.25, 0.25, 1.75, 1.5), (0.0, 0.0, 2.0, 1.0)]
    torch.testing.assert_close(line.stretched(4).tensor, torch.tensor(want, dtype=torch.float64))
    assert line.stretched(1).rows == ((0.0, 0.5, 1.5, 2.0),)
    with pytest.raises(ValueError, match="num_steps=0"):
        line.stretched(0)


def test_a_schedule_goes_into_a_file_and_comes_back(tmp_path):
    path = tmp_path / "schedule.json"
    drawing = Steered(hand("autonat", 3), order="choose_first", without="absent")
    write_schedule(path, drawing)
    assert read_schedule(path) == drawing
    assert make_sampler(str(path)) == drawing
    with pytest.raises(ValueError, match="leave it out"):
        make_sampler(str(path), num_steps=4)
    with pytest.raises(ValueError, match="sets temperatures"):
        make_sampler(str(path), temperature=0.5)
    path.write_text(json.dumps({"anyorder": "schedule", "knobs": ["ratio"], "steps": [[0.5]]}))
    with pytest.raises(ValueError, match="holds no schedule"):
        read_schedule(path)
    with pytest.raises(ValueError, match="no such file"):
        read_schedule(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Table(((1.2, 0.0, 1.0, 0.0),)), r"ratio=1.2; it must be in \[0, 1\]"),
        (lambda: Table(((0.2, 0.0, -1.0, 0.0),)), "temperature=-1.0; it must be >= 0"),
        (lambda: Table(()), "num_steps=0"),
        (lambda: hand("cosine", 4), "unknown"),
        (lambda: Steered(hand("autonat", 2), order="first"), "sampler.order"),
        (lambda: Steered(hand("autonat", 2), score="drawn"), "sampler.score"),
        (lambda: Steered(hand("autonat", 2), alike=0), "sampler.alike"),
    ],
)
def test_what_is_illegal_is_named(made, said):
    with pytest.raises(ValueError, match=said):
        made()
