"""The insertion objective against worked examples, enumeration and a dense reference."""

import dataclasses
import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Batch, InsertionOut, Vocab
from anyorder.models.config import SIZES
from anyorder.models.inserter import Inserter
from anyorder.processes.insertion import Insertion, insertion_nll, stop_nll
from anyorder.processes.levels import levels
from anyorder.processes.row_mass import row_mass
from anyorder.processes.thin import Documents, Thinned, documents, how_many, thin
from anyorder.testing.strings import InsertionOracle, Strings

NOISE = Noise.of(3)
VOCAB = Vocab(size=11, mask_id=11, pad_id=12, eos_id=10)


def batch_of(*rows: list[int], prompt: int = 0, segment: list[list[int]] | None = None) -> Batch:
    """Rows padded to one length; the first `prompt` tokens of each are prompt."""
    width = max(map(len, rows))
    tokens = torch.tensor([row + [VOCAB.pad_id] * (width - len(row)) for row in rows])
    marks = (tokens != VOCAB.pad_id).long() if segment is None else torch.tensor(segment)
    target = (marks > 0) & (torch.arange(width) >= prompt)
    return Batch(tokens=tokens, target=target, segment=marks, sample_id=torch.arange(len(rows)))


def thinned_by(batch: Batch, missing: list[int], *, noise: Noise = NOISE, pack: bool = True) -> Thinned:
    given = documents(batch, vocab=VOCAB)
    return thin(batch, given, torch.tensor(missing), vocab=VOCAB, noise=noise, pack=pack)


def out_of(thinned: Thinned, scores: Float[Tensor, "N V"], stop: Float[Tensor, " S"] | None = None) -> InsertionOut:
    documents = len(thinned.size)
    return InsertionOut(scores, torch.eye(scores.shape[1]), torch.zeros(documents) if stop is None else stop)


def dense_reference(out: InsertionOut, thinned: Thinned) -> Float[Tensor, " S"]:
    """The published form: a normalised count for every (position, token), one joint log-softmax a document."""
    scores = out.states @ out.head.T
    counts = torch.zeros_like(scores)
    for token, gap in zip(thinned.token.tolist(), thinned.gap.tolist()):
        counts[gap, token] += 1
    values = []
    for s, n in enumerate(thinned.missing.tolist()):
        mine = thinned.document == s
        own = scores[mine]
        own = own.masked_fill(torch.arange(own.shape[1]) == VOCAB.eos_id, -torch.inf)
        logp = own.flatten().log_softmax(0).view_as(own)
        terms = torch.where(counts[mine] > 0, counts[mine] * logp, 0.0)
        values.append(-terms.sum() / n if n else own.new_zeros(()))
    return torch.stack(values)


def test_worked_example() -> None:
    """Body ABCDEF without A, B, D, F: gaps {A, B}, {D}, {F}; uniform scores over 3 positions and 10 tokens."""
    batch = batch_of([0, 1, 2, 3, 4, 5])
    gone = torch.tensor([[True, True, False, True, False, True]])
    thinned = next(t for t in (thinned_by(batch, [4], noise=NOISE.at(i)) for i in range(1000)) if left_of(t) == [2, 4])
    assert gone.sum() == 4
    assert thinned.canvas.x.tolist() == [[10, 2, 4]]
    assert sorted(zip(thinned.gap.tolist(), thinned.token.tolist())) == [(0, 0), (0, 1), (1, 3), (2, 5)]
    nll = insertion_nll(out_of(thinned, torch.zeros(3, 11)), thinned, eos_id=10)
    assert float(nll) == pytest.approx(math.log(30), abs=1e-6)
    best = torch.full((3, 11), -50.0)
    best[thinned.gap, thinned.token] = 0.0
    assert float(insertion_nll(out_of(thinned, best), thinned, eos_id=10)) == pytest.approx(math.log(4), abs=1e-6)


def left_of(thinned: Thinned) -> list[int]:
    return thinned.canvas.x[0, 1:].tolist()


def test_repeated_tokens_in_one_gap_count_twice() -> None:
    """Counts {2, 1} in one gap: the smallest loss is their entropy."""
    thinned = thinned_by(batch_of([5, 5, 7]), [3])
    best = torch.full((1, 11), -50.0)
    best[0, 5], best[0, 7] = math.log(2 / 3), math.log(1 / 3)
    assert float(insertion_nll(out_of(thinned, best), thinned, eos_id=10)) == pytest.approx(0.636514, abs=1e-6)


def test_nothing_missing_costs_nothing_and_gives_no_gradient() -> None:
    thinned = thinned_by(batch_of([1, 2, 3]), [0])
    scores = NOISE.normal(torch.arange(4)[:, None], 0, torch.arange(11)).requires_grad_()
    nll = insertion_nll(out_of(thinned, scores), thinned, eos_id=10)
    (grad,) = torch.autograd.grad(nll.sum(), scores)
    assert float(nll.detach()) == 0.0
    assert not grad.any()


def test_with_all_taken_out_only_the_beginning_is_left() -> None:
    thinned = thinned_by(batch_of([1, 2, 3]), [3])
    assert thinned.canvas.x.tolist() == [[10]]
    assert thinned.canvas.window.tolist() == [[True]]


def test_prompt_stays_and_is_closed_but_for_its_last_token() -> None:
    thinned = thinned_by(batch_of([7, 8, 9, 1, 2, 3], prompt=3), [3])
    assert thinned.canvas.x.tolist() == [[10, 7, 8, 9]]
    assert thinned.canvas.window.tolist() == [[False, False, False, True]]
    assert thinned.canvas.fixed.tolist() == [[True] * 4]


def test_end_of_document_is_the_beginning_and_never_a_token() -> None:
    thinned = thinned_by(batch_of([1, 2, 10]), [0])
    assert thinned.canvas.x.tolist() == [[10, 1, 2]]
    assert thinned.size.tolist() == [2]
    with pytest.raises(ValueError, match="packing=documents"):
        documents(batch_of([1, 10, 2]), vocab=VOCAB)


def test_numbers_are_uniform_and_sets_are_uniform() -> None:
    rows = 40_000
    batch = Batch(
        tokens=torch.arange(4).expand(rows, 4),
        target=torch.ones(rows, 4, dtype=torch.bool),
        segment=None,
        sample_id=torch.arange(rows),
    )
    given = documents(batch, vocab=VOCAB)
    level = NOISE.at("level").uniform(batch.sample_id)
    n = how_many(given, level, batch.sample_id, noise=NOISE)
    share = n.bincount(minlength=5) / rows
    assert torch.allclose(share, torch.full((5,), 0.2), atol=4 * math.sqrt(0.16 / rows))
    thinned = thin(batch, given, torch.full_like(n, 2), vocab=VOCAB, noise=NOISE, pack=False)
    code = (2 ** thinned.canvas.x[:, 1:]).sum(-1)
    counts = torch.stack([(code == 2**i + 2**j).sum() for i in range(4) for j in range(i)])
    assert int(counts.sum()) == rows
    assert torch.allclose(counts / rows, torch.full((6,), 1 / 6), atol=4 * math.sqrt(5 / 36 / rows))


@pytest.mark.parametrize("size", [8, 128, 1024])
def test_share_of_complete_texts(size: int) -> None:
    """P(n = 0) = 1/(L + 1)."""
    rows = 200_000
    ids = torch.arange(rows)
    one = torch.zeros(rows, 1, dtype=torch.bool)
    given = Documents(
        of=ids[:, None], body=one, kept=one, open=one, opens=one[:, 0], row=ids, number=0 * ids,
        size=torch.full((rows,), size),
    )  # fmt: skip
    n = how_many(given, NOISE.at("level").uniform(ids), ids, noise=NOISE)
    p = 1 / (size + 1)
    assert float((n == 0).double().mean()) == pytest.approx(p, abs=4 * math.sqrt(p / rows))


def some_batch() -> Batch:
    """Rows with prompts, padding, repeats and several documents."""
    tokens = torch.tensor([[1, 1, 2, 2, 3, 10, 4, 4, 10], [5, 6, 5, 6, 5, 6, 7, 10, 12], [8, 8, 8, 8, 8, 8, 8, 8, 8]])
    segment = torch.tensor([[1, 1, 1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1, 0], [1] * 9])
    target = segment > 0
    target[1, :2] = False
    return Batch(tokens=tokens, target=target, segment=segment, sample_id=torch.arange(3))


def test_sparse_loss_and_gradient_are_the_dense_reference() -> None:
    for seed in range(20):
        noise = NOISE.at(seed)
        given = documents(some_batch(), vocab=VOCAB)
        n = (noise.uniform(torch.arange(4)) * (given.size + 1)).long()
        thinned = thin(some_batch(), given, n, vocab=VOCAB, noise=noise)
        named = len(thinned.document)
        states = noise.at("s").normal(torch.arange(named)[:, None], 0, torch.arange(6)).requires_grad_()
        head = noise.at("h").normal(torch.arange(11)[:, None], 0, torch.arange(6)).requires_grad_()
        out = InsertionOut(states, head, torch.zeros(4))
        ours, dense = insertion_nll(out, thinned, eos_id=10), dense_reference(out, thinned)
        assert torch.allclose(ours, dense, atol=1e-9)
        weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
        for a, b in zip(
            torch.autograd.grad((weight * ours).sum(), (states, head)),
            torch.autograd.grad((weight * dense).sum(), (states, head)),
        ):
            assert torch.allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_row_mass_in_tiles(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    states, head = (NOISE.at(k).normal(torch.arange(n)[:, None], 0, torch.arange(5)) for k, n in (("s", 37), ("h", 11)))
    whole = row_mass(states, head, without=3)
    monkeypatch.setattr("anyorder.processes.row_mass.TILE", 40)
    monkeypatch.setattr("anyorder.processes.row_mass.COLUMNS", 4)
    monkeypatch.setattr("anyorder.processes.row_mass.KEPT", kept)
    assert torch.allclose(row_mass(states, head, without=3), whole)
    keep = torch.arange(11) != 3
    assert torch.allclose(whole, (states @ head[keep].T).logsumexp(-1))
    assert torch.autograd.gradcheck(
        lambda s, h: row_mass(s, h, without=3), (states[:4].requires_grad_(), head.requires_grad_())
    )


def test_stop_loss() -> None:
    batch = batch_of([1, 2], [3, 4])
    thinned = thinned_by(batch, [0, 1], pack=False)
    out = out_of(thinned, torch.zeros(len(thinned.document), 11))
    assert stop_nll(out, thinned).tolist() == pytest.approx([math.log(2)] * 2)
    weighted = Insertion(stop_class_weight=0.9).stop_nll(out, thinned)
    assert weighted.tolist() == pytest.approx([0.623832, 0.0693147], abs=1e-6)


@pytest.mark.parametrize("values", [{"stop_class_weight": 1.0}, {"stop_loss_weight": 0.0}])
def test_weights_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Insertion(**values)  # type: ignore[arg-type]


def network(vocab: Vocab = VOCAB) -> Inserter:
    config = SIZES["tiny"].model_copy(update={"max_length": 32})
    model = Inserter(config, vocab)
    model.init_weights(NOISE)
    with torch.no_grad():
        assert model.stop is not None
        model.stop.out.weight += NOISE.normal(torch.arange(32)).float()
    return model


def test_packed_is_unpacked_and_a_document_does_not_see_its_neighbours() -> None:
    model = network()
    packed, alone = (Insertion(pack=p).loss(model, some_batch(), noise=NOISE) for p in (True, False))
    assert packed.total.item() == pytest.approx(alone.total.item(), rel=1e-5)
    assert torch.allclose(packed.nelbo, alone.nelbo, atol=1e-4)
    row = dataclasses.replace(
        some_batch(), **{k: getattr(some_batch(), k)[1:2] for k in ("tokens", "target", "segment", "sample_id")}
    )
    assert torch.allclose(Insertion().loss(model, row, noise=NOISE).nelbo, packed.nelbo[1:2], atol=1e-4)


def test_documents_count_once_for_each_of_their_lengths() -> None:
    """Or once each, as published; and the bound is the first of these, less the log of the number of orders."""
    model = network()
    for seed in range(4):
        for tokens in ([1, 2, 3, 4, 5], [6], [7, 8]):
            batch, noise = batch_of(tokens), NOISE.at(seed)
            each, once, light = (
                process.loss(model, batch, noise=noise)
                for process in (
                    Insertion(),
                    Insertion(length_weight="document"),
                    Insertion(length_weight="document", stop_loss_weight=0.25),
                )
            )
            times = len(tokens) + 1
            assert float(each.total.detach()) == pytest.approx(times * float(once.total.detach()), rel=1e-5)
            orders = math.log(math.factorial(len(tokens)))
            for made in (each, once, light):
                assert float(made.nelbo) == pytest.approx(float(each.total.detach()) - orders, rel=1e-5, abs=1e-5)
            stop = stop_term(model, batch, noise)
            assert float((once.total - light.total).detach()) == pytest.approx(0.75 * stop, abs=1e-5)


def stop_term(model: Inserter, batch: Batch, noise: Noise) -> float:
    """The second term of one document."""
    given = documents(batch, vocab=VOCAB)
    level = levels(batch.sample_id, draw="antithetic", group=1, noise=noise)
    missing = how_many(given, level, batch.sample_id, noise=noise)
    thinned = thin(batch, given, missing, vocab=VOCAB, noise=noise, pack=True)
    out = model.insertion(thinned.canvas, thinned.canvas.window)
    return float(stop_nll(out, thinned).detach())


def test_only_open_positions_have_scores_and_the_dense_view_agrees() -> None:
    model = network()
    thinned = thinned_by(batch_of([1, 2, 3, 4], [5, 6]), [1, 1])
    canvas = thinned.canvas
    out = model.insertion(canvas, canvas.window)
    assert len(out.states) == int(canvas.window.sum())
    assert len(out.stop) == 2
    dense = model(canvas, canvas.valid)
    first = canvas.x[canvas.valid] == 10
    assert torch.allclose(dense[first, 10], out.stop)
    assert bool(torch.isneginf(dense[~first, 10]).all())
    assert torch.allclose(dense[:, :10], (out.states @ out.head.T)[:, :10], atol=1e-6)


LAWS = {"two": {"a": 0.5, "ab": 0.5}, "five": {"a": 0.25, "ab": 0.25, "abc": 0.25, "ba": 0.125, "aabb": 0.125}}


def batch_of_law(law: Strings, repeats: int) -> Batch:
    """Every text of a law, as often as its chance says."""
    texts = [list(t) for t, p in law.chance for _ in range(round(p * repeats))]
    width = max(map(len, texts))
    pad = law.vocab.pad_id
    tokens = torch.tensor([t + [pad] * (width - len(t)) for t in texts])
    marks = (tokens != pad).long()
    return Batch(tokens=tokens, target=marks > 0, segment=marks, sample_id=torch.arange(len(texts)))


@pytest.mark.parametrize("name", LAWS)
def test_bound_of_the_best_model_is_its_law(name: str) -> None:
    """Mean `nelbo` of a text, over its draws, is exactly -log p."""
    law = Strings.of(LAWS[name])
    batch = batch_of_law(law, 4_000)
    nelbo = Insertion(draw="independent").loss(InsertionOracle(law), batch, noise=NOISE).nelbo
    chance = dict(law.chance)
    row_text = [tuple(t[t != law.vocab.pad_id].tolist()) for t in batch.tokens]
    for text, p in chance.items():
        mine = nelbo[[t == text for t in row_text]].double()
        assert float(mine.mean()) == pytest.approx(
            -math.log(p), abs=4 * float(mine.std()) / math.sqrt(len(mine)) + 1e-5
        )
