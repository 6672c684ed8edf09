"""Presets named after a paper against the rule of its public code, written again in a few lines, on the same logits."""

import math
from dataclasses import dataclass

import pytest
import torch

from anyorder.core.categorical import log_prob_of, top_p
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Carry, Vocab
from anyorder.samplers.base import generate, steps
from anyorder.samplers.blockwise import Blockwise
from anyorder.samplers.certainty import log_margin, margin, negentropy, top_log_prob
from anyorder.samplers.look import Look
from anyorder.samplers.presets import make_sampler
from anyorder.samplers.unmask import Unmask
from anyorder.testing.oracle import RandomTable

NOISE = Noise.of(21)
ROWS, LENGTH, SIZE = 30, 24, 16


@dataclass(frozen=True)
class Single:
    """A table that answers in float32, as networks do; its last token is the end of document."""

    scale: float
    nfe: int = 1

    @property
    def vocab(self):
        return Vocab(size=SIZE, mask_id=SIZE, pad_id=SIZE + 1, eos_id=SIZE - 1)

    def __call__(self, canvas, at):
        return RandomTable(SIZE, NOISE.at("table"), self.scale)(canvas, at).float()


def prompted(model, rows=ROWS):
    """Rows of masks behind two tokens that tell them apart."""
    x = torch.full((rows, LENGTH), model.vocab.mask_id)
    x[:, 0], x[:, 1] = torch.arange(rows) % SIZE, torch.arange(rows) // SIZE
    return Canvas.of(x, vocab=model.vocab)


def in_order(model, canvas, score, *, num_steps):
    """Greedy tokens, the k positions of highest score in each step: LLaDA's loop, the leftmost first among equals."""
    n0 = (canvas.x == model.vocab.mask_id).sum(-1)
    for step in range(num_steps):
        masked = canvas.x == model.vocab.mask_id
        logits = torch.full((*canvas.x.shape, SIZE), -math.inf).masked_scatter(masked[..., None], model(canvas, masked))
        key = score(logits.double()).masked_fill(~masked, -math.inf)
        k = n0 // num_steps + (step < n0 % num_steps)
        chosen = key.argsort(dim=-1, descending=True, stable=True).argsort(-1) < k[:, None]
        canvas = Canvas.of(torch.where(chosen, logits.argmax(-1), canvas.x), vocab=model.vocab, row_id=canvas.row_id)
    return canvas.x


def probability(logits):
    return logits.softmax(-1).amax(-1)


def log_probability(logits):
    ranked = logits.sort(-1, descending=True).values
    return -(ranked[..., 1:] - ranked[..., :1]).exp().sum(-1).log1p()


@pytest.mark.parametrize(
    ("scale", "mean_top", "score"),
    [
        (2.5, 0.53, probability),
        (5.5, 0.76, probability),
        (11.0, 0.88, probability),
        (11.0, 0.88, log_probability),
        (40.0, 0.97, log_probability),  # where many a float64 probability is 1 and LLaDA's topk takes any of them
    ],
)
def test_low_confidence_is_llada_s_on_confident_models_too(scale, mean_top, score):
    model = Single(scale)
    canvas = prompted(model)
    at = canvas.open(model.vocab)
    assert float(model(canvas, at).double().softmax(-1).amax(-1).mean()) == pytest.approx(mean_top, abs=0.03)
    for num_steps in (None, 7):
        want = in_order(model, canvas, score, num_steps=num_steps or LENGTH - 2)
        for name in ("low-confidence", "top-prob") if num_steps is None else ("low-confidence",):
            sampler = make_sampler(name, num_steps=num_steps, temperature=0.0)
            ours = generate(sampler, model, canvas, noise=NOISE).canvas.x
            assert (ours == want).all(-1).sum() == ROWS


def test_scores_of_all_but_certain_positions_differ_in_single_precision():
    gap = torch.tensor([20.0, 30.0, 60.0, 90.0])
    logits = torch.stack([gap, torch.zeros(4)], -1)
    torch.testing.assert_close(top_log_prob(logits), -torch.exp(-gap.double()), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(log_margin(logits), -2 * torch.exp(-gap.double()), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(negentropy(logits), -(1 + gap.double()) * torch.exp(-gap.double()), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(log_prob_of(logits, torch.zeros(4).long()), top_log_prob(logits), rtol=0.0, atol=0.0)
    assert margin(torch.tensor([[1.0, 1.0, 0.0]])).item() == 0.0
    assert top_log_prob(torch.tensor([[0.0, math.nan], [math.inf, 0.0]])).isnan().tolist() == [True, True]


def test_the_gradient_of_a_log_probability_is_that_of_the_softmax_among_equals_too():
    logits = torch.tensor([[2.0, 2.0, 0.5, -1.0]], requires_grad=True)
    for token in range(4):
        (ours,) = torch.autograd.grad(log_prob_of(logits, torch.tensor([token])).sum(), logits)
        (theirs,) = torch.autograd.grad(logits.log_softmax(-1)[0, token], logits)
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-6)


def first_positions(name, model, canvas, **token):
    return next(steps(make_sampler(name, num_steps=8, **token), model, canvas, noise=NOISE)).wrote


@pytest.mark.parametrize(("name", "score"), [("entropy", "entropy"), ("margin", "margin"), ("maskgit-plus", "drawn")])
@pytest.mark.parametrize("token", [{"temperature": 0.2, "top_p": 0.95}, {"temperature": 0.0, "top_p": 0.6}])
def test_dream_scores_what_it_draws_from(name, score, token):
    model = Single(0.5)
    canvas = prompted(model, 40)
    at = canvas.open(model.vocab)
    logits = model(canvas, at).double() / (token["temperature"] or 1.0)
    ranked, order = logits.softmax(-1).sort(-1, descending=True)
    ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked > token["top_p"], 0.0)  # the crossing token stays
    p = torch.zeros_like(ranked).scatter(-1, order, ranked / ranked.sum(-1, keepdim=True))
    rule = make_sampler(f"dream-{name}", num_steps=8, **token).token
    drawn = Look(model, canvas, Carry(canvas.row_id * 0, canvas.row_id * 0), NOISE, rule).drawn[0]
    scores = {
        "entropy": torch.special.xlogy(p, p).sum(-1),
        "margin": ranked[:, 0] / ranked.sum(-1) - ranked[:, 1] / ranked.sum(-1),
        "drawn": p.gather(-1, drawn[:, None]).squeeze(-1),
    }
    key = torch.full(at.shape, -math.inf).double().masked_scatter(at, scores[score])
    k = int(22 * (1 - (1 - (1 - 1e-3) / 8)))  # of Dream's own plan
    want = key.argsort(dim=-1, descending=True, stable=True).argsort(-1) < k
    ours = first_positions(f"dream-{name}", model, canvas, **token)
    assert torch.equal(ours, want)
    raw = make_sampler(name.replace("maskgit-plus", "low-confidence"), num_steps=8, **token)  # scores the model's own
    assert int((next(steps(raw, model, canvas, noise=NOISE)).wrote == want).all(-1).sum()) < 40


def test_both_rules_of_top_p():
    p = torch.tensor([[0.1, 0.5, 0.3, 0.1]]).double().log()
    kept = {(q, c): (top_p(p, q, crossing=c) > -math.inf)[0].tolist() for q in (0.3, 0.7) for c in (True, False)}
    assert kept[0.7, True] == [False, True, True, False]  # 0.8 >= 0.7
    assert kept[0.7, False] == [False, True, False, False]  # 0.5 <= 0.7
    assert kept[0.3, True] == kept[0.3, False] == [False, True, False, False]  # never nothing
    assert make_sampler("bd3-lm", top_p=0.9).token.crossing is make_sampler("ilm", top_p=0.9).token.crossing is False
    assert make_sampler("first-hitting", top_p=0.9).token.crossing
    assert make_sampler("insertion").token.crossing
    assert make_sampler("ilm:crossing=1").position.crossing
    assert not make_sampler("remdm-cap:crossing=0").token.crossing


def test_llada_keeps_the_end_of_document_back_as_it_is_asked_to():
    model = Single(1.0)
    eos, eot, canvas = model.vocab.eos_id, 3, prompted(model, 8)

    def written(spec):
        return generate(make_sampler(spec), model, canvas, noise=NOISE)

    plain, never, last = (
        written(f"low-confidence{rest}") for rest in ("", ":logits_eos_inf=1", f":confidence_eos_eot_inf=1,eot={eot}")
    )
    body = canvas.open(model.vocab)
    assert (plain.canvas.x[body] == eos).any()
    assert (never.canvas.x[body] != eos).all()
    at_random = generate(make_sampler("llada-random:logits_eos_inf=1"), model, canvas, noise=NOISE)
    assert (at_random.canvas.x[body] != eos).all()
    first = next(steps(make_sampler(f"low-confidence:confidence_eos_eot_inf=1,eot={eot}"), model, canvas, noise=NOISE))
    drawn = Look(model, canvas, Carry(canvas.row_id * 0, canvas.row_id * 0), NOISE).drawn[0]
    ends = torch.zeros_like(body).masked_scatter(body, (drawn == eos) | (drawn == eot))
    assert ends.any()
    assert not (first.wrote & ends).any()
    logits = model(canvas, body).index_fill(-1, torch.tensor([eos, eot]), -math.inf)
    key = torch.full(body.shape, -math.inf).double().masked_scatter(body, log_prob_of(logits, drawn))
    assert torch.equal(first.wrote.int().argmax(-1), key.argmax(-1))
    assert (last.canvas.x != model.vocab.mask_id).all()
    with pytest.raises(ValueError, match="no end of document"):
        generate(make_sampler("low-confidence:logits_eos_inf=1"), RandomTable(3, NOISE), blank(4), noise=NOISE)
    with pytest.raises(ValueError, match=r"logits_eos_inf=2: must be 0 \(no\) or 1"):
        make_sampler("low-confidence:logits_eos_inf=2")


def blank(length):
    return Canvas.of(torch.full((1, length), 3), vocab=RandomTable(3, NOISE).vocab)


def test_aligned_blocks_begin_at_multiples_of_the_block_in_the_row():
    model = RandomTable(3, NOISE)
    x = torch.full((2, 11), 3)
    x[0, :6], x[1, :1] = 1, 2  # a prompt that ends within the second block, and one token at the beginning
    canvas = Canvas.of(x, vocab=model.vocab)

    def blocks(sampler):
        order = generate(sampler, model, canvas, noise=NOISE).order
        return [[sorted(o.tolist()) for o in row[row >= 0].split(sizes)] for row, sizes in zip(order, SIZES[sampler])]

    ours, theirs = Blockwise(Unmask(), 4), Blockwise(Unmask(), 4, aligned=True)
    SIZES = {ours: ([4, 1], [4, 4, 2]), theirs: ([2, 3], [3, 4, 3])}
    for sampler in (ours, theirs):  # each block is written before the next begins
        for row, sizes in zip(blocks(sampler), SIZES[sampler]):
            begins = [sum(sizes[:i]) for i in range(len(sizes))]
            assert row == [list(range(b, b + n)) for b, n in zip(begins, sizes)]
    assert make_sampler("first-hitting", block=4, aligned=True) == theirs
