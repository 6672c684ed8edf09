"""FlexMDM's objective against worked examples and enumeration, and its network."""

import dataclasses
import itertools
import math

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anyorder.core.growth import Growth, growth_of
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Batch, Canvas, Vocab
from anyorder.models.config import SIZES
from anyorder.models.flexmdm import FlexTransformer
from anyorder.models.transformer import Transformer
from anyorder.processes.flexmdm import FlexMDM, Grown, corrupt, count_loss
from anyorder.processes.thin import documents
from anyorder.testing.growth import GrowthOracle, RandomGrowth, ask, growth_bound, growth_law, visits
from anyorder.testing.laws import chi_square_p
from anyorder.testing.strings import Strings, Text

NOISE = Noise.of(7)
VOCAB = Vocab(size=4, mask_id=4, pad_id=5, eos_id=3)
TABLE = RandomGrowth(3, NOISE.at("table"))
LAW = Strings.of({"a": 0.25, "ab": 0.25, "abc": 0.25, "ba": 0.125, "aabb": 0.125})


def batch_of(*texts: Text, vocab: Vocab = VOCAB) -> Batch:
    width = max(map(len, texts))
    tokens = torch.tensor([[*text, *[vocab.pad_id] * (width - len(text))] for text in texts])
    marks = (tokens != vocab.pad_id).long()
    return Batch(tokens, marks > 0, marks, torch.arange(len(texts)))


def corrupted(batch: Batch, to_come: list[int], *, rate: float = 2.0, pack: bool = False) -> Grown:
    given = documents(batch, vocab=VOCAB)
    return corrupt(batch, given, torch.tensor(to_come), rate=rate, vocab=VOCAB, noise=NOISE, pack=pack)


@pytest.mark.parametrize(("said", "true", "loss"), [(2.0, 2.0, 0.0), (3.0, 2.0, 0.189070), (0.5, 0.0, 0.5)])
def test_count_loss(said: float, true: float, loss: float) -> None:
    got = count_loss(torch.tensor([said]).double().log(), torch.tensor([true]).double())
    assert float(got) == pytest.approx(loss, abs=1e-6)


def test_count_loss_is_least_at_the_mean() -> None:
    log_rate = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for _ in range(60):
        loss = count_loss(log_rate.expand(4), torch.tensor([0.0, 1.0, 1.0, 4.0]).double()).sum()
        (grad,) = torch.autograd.grad(loss, log_rate)
        log_rate = (log_rate - 0.1 * grad).detach().requires_grad_()
    assert float(log_rate.detach().exp()) == pytest.approx(1.5, abs=1e-6)


def test_nothing_has_happened_or_everything() -> None:
    grown = corrupted(batch_of((0, 1, 2), (2, 2)), [6, 0])
    assert grown.thinned.canvas.x.tolist() == [[3, 5, 5], [3, 2, 2]]
    assert grown.thinned.missing.tolist() == [3, 0]
    assert not grown.masked.any()


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_states_come_as_often_as_they_should(rate: float) -> None:
    """Every state of three tokens after three of their six events, by enumeration."""
    rows = 20_000
    grown = corrupted(batch_of(*[(0, 1, 2)] * rows), [3] * rows, rate=rate)
    x = grown.thinned.canvas.x.clone()
    x[grown.masked] = grown.token + 10
    states = [s for s in itertools.product((0, 1, 2), repeat=3) if sum(s) == 3]  # absent, masked, clear
    want = torch.tensor([visits(rate, 3, s.count(0), s.count(1)) for s in states], dtype=torch.float64)
    assert float(want.sum()) == pytest.approx(1.0)
    seen = [tuple(t for t in row[1:] if t != 5) for row in x.tolist()]
    names = [tuple(j + 10 if k == 1 else j for j, k in enumerate(s) if k) for s in states]
    counts = torch.tensor([seen.count(name) for name in names])
    assert int(counts.sum()) == rows
    assert chi_square_p(counts, want) > 1e-4


def test_prompt_is_never_touched() -> None:
    batch = batch_of(*[(2, 2, 0, 1)] * 50)
    target = batch.target.clone()
    target[:, :2] = False
    grown = corrupted(dataclasses.replace(batch, target=target), [2] * 50)
    canvas = grown.thinned.canvas
    assert bool((canvas.x[:, :3] == torch.tensor([3, 2, 2])).all())
    assert not canvas.window[:, :2].any()
    assert canvas.window[:, 2].all()
    assert not (canvas.fixed & grown.masked).any()


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_nelbo_is_the_bound_and_the_loss_is_the_published_one(rate: float) -> None:
    """Means over draws against sums over all states, for a model that fits no law."""
    texts = [(0, 1, 1), (2,), (1, 0)]
    draws = 2000
    process = FlexMDM(rate=rate, draw="independent", pack=False)
    batch = batch_of(*texts * draws)
    nelbo = process.loss(TABLE, batch, noise=NOISE).nelbo.double().view(draws, -1)
    want = torch.tensor([growth_bound(TABLE, text, rate=rate) for text in texts]).double()
    assert bool(((nelbo.mean(0) - want).abs() < 4.5 * nelbo.std(0) / draws**0.5).all())
    losses = [published(TABLE, text, rate) for text in texts]
    total = torch.stack([process.loss(TABLE, batch_part(batch, i), noise=NOISE).total for i in range(40)])
    mean, spread = float(total.mean()) / len(texts) / 50, float(total.std()) / 40**0.5 / len(texts) / 50
    assert mean == pytest.approx(sum(losses) / len(texts), abs=4.5 * spread)
    assert bool((torch.tensor(losses) > want.float()).all())


def batch_part(batch: Batch, i: int) -> Batch:
    part = slice(150 * i, 150 * (i + 1))
    assert batch.segment is not None
    return Batch(batch.tokens[part], batch.target[part], batch.segment[part], batch.sample_id[part])


def published(model: Denoiser, text: Text, rate: float) -> float:
    """Sum over states of the time they last x (count losses + cross-entropies), and of the stop's cross-entropy."""
    value = 0.0
    for state in itertools.product((0, 1, 2), repeat=len(text)):
        absent, masks = state.count(0), state.count(1)
        chance = visits(rate, len(text), absent, masks)
        (said,) = ask(model, [tuple(model.vocab.mask_id if s == 1 else v for s, v in zip(state, text) if s)])
        if not masks:
            odds = float(said.stop[0])
            value += chance * math.log1p(math.exp(odds if absent else -odds))
        if absent + masks == 0:
            continue
        place = [sum(s > 0 for s in state[:j]) for j in range(len(text))]
        missing = torch.zeros(len(said.log_rate)).double()
        for j, s in enumerate(state):
            missing[place[j]] += rate * (s == 0)
        loss = float(count_loss(said.log_rate, missing).sum())
        loss -= sum(float(said.tokens[place[j] + 1, text[j]]) for j, s in enumerate(state) if s == 1)
        value += chance / (rate * absent + masks) * loss
    return value


@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_the_published_loss_is_a_constant_of_the_length_above_the_bound(rate: float) -> None:
    """Of a single text, -log p = 0: its best model still pays c(L) = log L + 2/L (c(0) + ... + c(L - 1)).

    The loss counts g log g where a gap misses g tokens, although any of the g may have been inserted.
    """
    c = [0.0]
    for size in range(1, 5):
        c.append(math.log(size) + 2 / size * sum(c))
        text = tuple(range(size))
        best = GrowthOracle(Strings(((text, 1.0),), size), rate)
        assert published(best, text, rate) == pytest.approx(c[size])
        assert growth_bound(best, text, rate=rate) == pytest.approx(0.0, abs=1e-9)
    assert c[4] == pytest.approx(2.513223, abs=1e-6)


def network() -> FlexTransformer:
    config = SIZES["tiny"].model_copy(update={"max_length": 32})
    model = FlexTransformer(config, VOCAB)
    model.init_weights(NOISE)
    with torch.no_grad():
        model.rate.weight += NOISE.normal(torch.arange(32)).float()
        model.stop.out.weight += NOISE.normal(torch.arange(32)).float()
    return model


def test_packed_is_unpacked() -> None:
    model, batch = network(), batch_of((0, 1, 2, 1, 0), (1, 1), (2, 0, 2))
    packed, alone = (FlexMDM(pack=p).loss(model, batch, noise=NOISE) for p in (True, False))
    assert packed.total.item() == pytest.approx(alone.total.item(), rel=1e-5)
    assert torch.allclose(packed.nelbo, alone.nelbo, atol=1e-4)
    assert packed.num_tokens == 10
    packed.total.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_the_network_answers_where_it_is_asked() -> None:
    model = network().requires_grad_(False)
    x = torch.tensor([[3, 4, 1, 4, 5], [3, 0, 5, 5, 5]])
    canvas = Canvas(x=x, fixed=x == 3, window=x != 5, segment=(x != 5).long(), row_id=torch.arange(2))
    every = model(canvas, canvas.valid)
    some = canvas.valid & (torch.arange(5) % 2 == 1)
    assert torch.allclose(model(canvas, some), every[some[canvas.valid]], atol=1e-5)
    said = growth_of(every, VOCAB)
    masks = (x == 4)[canvas.valid]
    first = (x == 3)[canvas.valid]
    assert bool(said.tokens[masks].isfinite().all())
    assert bool(said.tokens[~masks].isneginf().all())
    assert bool(said.stop[first].isfinite().all())
    assert bool(said.stop[~first].isneginf().all())
    fresh = FlexTransformer(model.config, VOCAB).requires_grad_(False)
    fresh.init_weights(NOISE)
    assert not growth_of(fresh(canvas, canvas.valid), VOCAB).log_rate.any()


class Free:
    """A growing model with a parameter for everything it can say of every row."""

    nfe = 1

    def __init__(self, law: Strings) -> None:
        self.vocab = law.vocab
        rows = {tuple(law.vocab.mask_id if s == 1 else v for s, v in zip(state, text) if s)
                for text, _ in law.chance
                for state in itertools.product((0, 1, 2), repeat=len(text))}  # fmt: skip
        self.begin = dict(zip(sorted(rows), itertools.accumulate((len(r) + 1 for r in sorted(rows)), initial=0)))
        self.table = torch.zeros(sum(len(r) + 1 for r in rows), law.size + 3, requires_grad=True)

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N W"]:
        assert canvas.segment is not None
        own = torch.zeros_like(canvas.x)
        for row, marks in enumerate(canvas.segment.tolist()):
            for mark, run in itertools.groupby(range(len(marks)), key=marks.__getitem__):
                places = list(run)
                if mark:
                    begin = self.begin.get(tuple(canvas.x[row, places[1:]].tolist()), 0)
                    own[row, places] = torch.arange(begin, begin + len(places))
        return self.table[own[at]]


def test_training_ends_at_the_law() -> None:
    free = Free(LAW)
    batch = batch_of(*[t for t, p in LAW.chance for _ in range(round(64 * p))], vocab=LAW.vocab)
    optimizer = torch.optim.Adam([free.table], lr=0.3)
    steps = 150
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.3 * (1 - step / steps)
        visit = dataclasses.replace(batch, sample_id=batch.sample_id + step * len(batch.tokens))
        loss = FlexMDM(draw="independent", pack=False).loss(free, visit, noise=NOISE)
        optimizer.zero_grad()
        (loss.total / loss.num_tokens).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    best = GrowthOracle(LAW)
    (untrained, got), want = (growth_law(m, longest=4) for m in (Free(LAW), free)), dict(LAW.chance)
    assert {t: got[t] for t in want} == pytest.approx(want, abs=0.04)
    assert max(abs(untrained.get(t, 0.0) - p) for t, p in want.items()) > 0.1
    for text in [(), (LAW.vocab.mask_id,)]:
        (mine,), (theirs,) = ask(free, [text]), ask(best, [text])
        assert mine.log_rate.exp().tolist() == pytest.approx(theirs.log_rate.exp().tolist(), rel=0.2)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="rate=0"):
        FlexMDM(rate=0.0)
    plain = Transformer(SIZES["tiny"], VOCAB)
    with pytest.raises(ValueError, match="rows do not grow"):
        FlexMDM().loss(plain, batch_of((0, 1)), noise=NOISE)
    with pytest.raises(ValueError, match="full attention"):
        FlexTransformer(SIZES["tiny"].model_copy(update={"causal": True}), VOCAB)
    with pytest.raises(ValueError, match="end-of-document"):
        FlexTransformer(SIZES["tiny"], dataclasses.replace(VOCAB, eos_id=None))
    answer = torch.zeros(2, 6)
    assert torch.equal(Growth(answer[:, :4], answer[:, 4], answer[:, 5]).columns(), answer)
