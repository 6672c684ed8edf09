"""The insertion bound and the exact sum over orders, against laws known by enumeration."""

import math

import pytest
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.likelihood.insertion import insertion_bound, insertion_exact
from anyorder.models.config import SIZES
from anyorder.models.inserter import Inserter
from anyorder.samplers.base import generate
from anyorder.samplers.insertion import Insert
from anyorder.testing.oracle import MarkovOracle
from anyorder.testing.strings import InsertionOracle, Strings

NOISE = Noise.of(11)
LAWS = [
    {"abcd": 1.0},
    {"a": 0.5, "ab": 0.5},
    {"a": 0.25, "ab": 0.25, "abc": 0.25, "ba": 0.125, "aabb": 0.125},
]


def rows_of(law: Strings, *, copies: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """The texts, padded, and their documents."""
    texts = [text for text, _ in law.chance for _ in range(copies)]
    width = max(map(len, texts))
    tokens = torch.tensor([[*t, *[law.vocab.pad_id] * (width - len(t))] for t in texts])
    return tokens, (tokens != law.vocab.pad_id).long()


@pytest.mark.parametrize("chance", LAWS)
def test_bound_and_sum_are_the_law_at_the_optimum(chance: dict[str, float]) -> None:
    law = Strings.of(chance)
    tokens, segment = rows_of(law)
    want = -torch.tensor([p for _, p in law.chance], dtype=torch.float64).log()
    bound = insertion_bound(
        InsertionOracle(law), tokens, target=segment > 0, segment=segment, row_id=torch.arange(len(tokens)),
        draws=400, noise=NOISE, replicates=8,
    )  # fmt: skip
    assert ((bound.nats - want).abs() <= 5 * bound.stderr + 1e-6).all()
    assert bound.num_tokens.tolist() == [len(t) for t, _ in law.chance]
    for (text, _), nats in zip(law.chance, want):
        exact = insertion_exact(InsertionOracle(law), torch.tensor([text]), row_id=torch.tensor([0]))
        assert float(exact) == pytest.approx(float(nats), abs=1e-6)


def network(law: Strings) -> Inserter:
    model = Inserter(SIZES["tiny"].model_copy(update={"max_length": 16}), law.vocab).double()
    model.init_weights(NOISE)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += 0.3 * NOISE.at(name).normal(torch.arange(p.numel())).view(p.shape)
    model.dtype = model.trunk.dtype = torch.float64
    model.requires_grad_(False)
    return model


def test_sum_over_orders_is_the_law_of_what_the_sampler_writes() -> None:
    """A network with random weights: chances of all short texts against the frequencies of samples."""
    law = Strings.of({"ab": 1.0})
    model = network(law)
    rows, vocab = 8_000, law.vocab
    x = torch.full((rows, 9), vocab.pad_id)
    x[:, 0] = law.size
    segment = (x != vocab.pad_id).long()
    canvas = Canvas(x=x, fixed=segment > 0, window=segment > 0, segment=segment, row_id=torch.arange(rows))
    written = generate(Insert(), model, canvas, noise=NOISE).canvas
    texts = [tuple(r[v].tolist()[1:]) for r, v in zip(written.x, written.valid)]
    for text in [(0,), (1,), (0, 1), (1, 0), (0, 0), (1, 0, 1)]:
        p = math.exp(-float(insertion_exact(model, torch.tensor([text]), row_id=torch.tensor([0]))))
        assert texts.count(text) / rows == pytest.approx(p, abs=4 * math.sqrt(p / rows) + 1e-9)


def test_bound_is_above_the_sum() -> None:
    law = Strings.of({"abcab": 1.0})
    model = network(law)
    tokens, segment = rows_of(law)
    bound = insertion_bound(
        model, tokens, target=segment > 0, row_id=torch.arange(1), draws=400, noise=NOISE, replicates=8
    )
    exact = insertion_exact(model, tokens, row_id=torch.arange(1))
    assert float(bound.nats) > float(exact) + 3 * float(bound.stderr)


def test_prompt_is_given_and_documents_of_a_row_add_up() -> None:
    law = Strings.of({"abcab": 1.0})
    model = network(law)
    eos = law.size
    tokens = torch.tensor([[0, 1, 2, eos, 1, 0, eos, 2]])
    segment = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 3]])
    target = torch.tensor([[False, True, True, True, True, True, True, True]])
    both = insertion_bound(
        model, tokens, target=target, segment=segment, row_id=torch.arange(1), draws=240, noise=NOISE, replicates=8
    )
    apart = 0.0
    for text, wanted in (([0, 1, 2], [False, True, True]), ([1, 0], [True, True]), ([2], [True])):
        one = insertion_bound(
            model, torch.tensor([text]), target=torch.tensor([wanted]), row_id=torch.arange(1), draws=240,
            noise=NOISE.at("other"), replicates=8,
        )  # fmt: skip
        apart += float(one.nats)
    assert both.num_tokens.tolist() == [5]
    assert float(both.nats) == pytest.approx(apart, abs=8 * float(both.stderr))


def test_stderr_is_calibrated() -> None:
    """z-scores of 200 rows with the same text have unit variance."""
    law = Strings.of(LAWS[2])
    oracle = InsertionOracle(law, "document")  # not the optimum, so draws differ
    tokens = torch.tensor([[0, 0, 1, 1]]).expand(200, -1)
    made = insertion_bound(
        oracle,
        tokens,
        target=torch.ones_like(tokens) > 0,
        row_id=torch.arange(200),
        draws=32,
        noise=NOISE,
        replicates=16,
    )
    z = (made.nats - made.nats.mean()) / made.stderr
    assert float(z.var()) == pytest.approx(15 / 13, abs=0.4)  # four standard errors


def test_wrong_models() -> None:
    chain = MarkovOracle.random(3, noise=NOISE)
    with pytest.raises(ValueError, match="does not insert"):
        insertion_exact(chain, torch.tensor([[0]]), row_id=torch.tensor([0]))
    law = Strings.of({"ab": 1.0})
    with pytest.raises(ValueError, match="enumeration ends at 12"):
        insertion_exact(InsertionOracle(law), torch.zeros(1, 13).long(), row_id=torch.tensor([0]))
