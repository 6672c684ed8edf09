"""What every sampler, denoiser and process must keep, as functions that raise AssertionError with the broken promise.

A new entry in a dictionary of samplers or processes is checked by these without further code (tests/test_contracts.py).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_prob_of
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser, Priced, Process, Sampler
from anyorder.core.types import Batch, Canvas, Sample, Vocab, take_rows
from anyorder.testing.laws import chi_square_p

Law = Callable[[Float[Tensor, "N V"]], Float[Tensor, "N V"]]


@runtime_checkable
class Generate(Protocol):
    """The loop a sampler is run by (`anyorder.samplers.base.generate`; a higher layer, hence an argument here)."""

    def __call__(self, sampler: Sampler, model: Denoiser, canvas: Canvas, *, noise: Noise) -> Sample: ...


class CountingDenoiser:
    """A denoiser that remembers how many calls it got and how many network passes each row took part in."""

    def __init__(self, model: Denoiser) -> None:
        self.model = model
        self.calls = 0
        self.passes: dict[int, int] = {}

    @property
    def nfe(self) -> int:
        return self.model.nfe

    @property
    def vocab(self) -> Vocab:
        return self.model.vocab

    def price(self, canvas: Canvas) -> Int[Tensor, " B"]:
        if isinstance(self.model, Priced):
            return self.model.price(canvas)
        return torch.full_like(canvas.row_id, self.nfe)

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        self.calls += 1
        for row, price in zip(canvas.row_id.tolist(), self.price(canvas).tolist()):
            self.passes[row] = self.passes.get(row, 0) + price
        return self.model(canvas, at)


@dataclass(frozen=True)
class Leaf:
    """A denoiser whose logits are one free tensor: shows where an objective's gradient goes."""

    logits: Float[Tensor, "B L V"]
    vocab: Vocab
    nfe: int = 1

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        return self.logits[at]


def same(a: Any, b: Any, *, atol: float = 0.0) -> bool:
    """Whether two values of `core.types` agree: integers exactly, floats within atol, field by field."""
    if isinstance(a, Tensor):
        close = torch.allclose(a, b, rtol=0.0, atol=atol) if a.is_floating_point() else torch.equal(a, b)
        return a.shape == b.shape and close
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return all(same(getattr(a, f.name), getattr(b, f.name), atol=atol) for f in dataclasses.fields(a))
    return bool(a == b)


def copy_of(value: Any) -> Any:
    """The same dataclass in fresh memory."""
    if isinstance(value, Tensor):
        return value.clone()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{f.name: copy_of(getattr(value, f.name)) for f in dataclasses.fields(value)}
        )
    return value


def check_sampler(
    make: Callable[[], Sampler],
    model: Denoiser,
    canvas: Canvas,
    *,
    generate: Generate,
    noise: Noise,
    law: Law | None = lambda logits: logits,
    atol: float = 1e-5,
) -> None:
    """The contract of every sampler, on rows of the caller's choice: seven or more, prompts and padding anywhere.

    Args:
        make: builds the sampler; called anew for each generation, so that nothing survives in it.
        law: from the model's logits to those the sampler draws from (temperature, truncation); None if one prediction
            does not tell.
        atol: of log-probabilities, nats; what a network's rounding may change with the batch.
    Raises:
        AssertionError: naming the promise that is not kept.
    """
    before = copy_of(canvas)
    sample = generate(make(), model, canvas, noise=noise)
    assert same(canvas, before), "the sampler edited its input canvas"
    _check_finished(before, sample, model.vocab)
    _check_logp(model, before, sample, law, atol)
    for rows in _batches(len(canvas.x)):
        counter = CountingDenoiser(model)
        part = generate(make(), counter, take_rows(canvas, rows), noise=noise)
        paid, counted = part.nfe.sum().item(), sum(counter.passes.values())
        assert paid == counted if len(rows) == 1 else paid >= counted, f"nfe {paid} is not the counted {counted}"
        assert same(part, take_rows(sample, rows), atol=atol), f"rows {rows.tolist()} sample differently on their own"


def _check_finished(before: Canvas, sample: Sample, vocab: Vocab) -> None:
    """Everything that was to be written is, and nothing else is."""
    after = sample.canvas
    todo = before.open(vocab) & before.window
    assert not bool((after.open(vocab) & after.window).any()), "a mask is left"
    assert same(dataclasses.replace(after, x=before.x), before), (
        "the sampler changed more of the canvas than its tokens"
    )
    assert torch.equal(after.x[~todo], before.x[~todo]), "a prompt, padding or closed position was changed"
    written = after.x[todo]
    assert bool(((written >= 0) & (written < vocab.size) & (written != vocab.mask_id)).all()), "not a token was written"
    assert torch.equal(sample.order >= 0, todo), "order is not -1 exactly where nothing was written"
    assert not bool((sample.revised[~todo] != 0).any()), "a prompt, padding or closed position went back to the mask"


def _check_logp(model: Denoiser, before: Canvas, sample: Sample, law: Law | None, atol: float) -> None:
    """Each token's log-probability, asked again of the canvas as it stood when the token was drawn.

    In a row that took tokens back that canvas is not known from the end; such rows are not asked.
    """
    assert bool(sample.token_logp.isfinite().all()), "a log-probability is not finite"
    assert bool((sample.token_logp <= atol).all()), "a log-probability is above 0"
    assert bool((sample.token_logp[sample.order < 0] == 0).all()), "a position nobody wrote has a log-probability"
    assert same(sample.logp, sample.token_logp.sum(-1), atol=1e-9), "logp is not the sum of token_logp"
    if law is None:
        return
    kept = (sample.revised == 0).all(-1, keepdim=True)
    for index in range(int(sample.order.max()) + 1):
        at = (sample.order == index) & kept
        x = torch.where(sample.order >= index, model.vocab.mask_id, sample.canvas.x)
        again = log_prob_of(law(model(dataclasses.replace(before, x=x), at)), sample.canvas.x[at])
        assert same(sample.token_logp[at], again, atol=atol), f"log-probabilities of step {index} are not the law's"


def _batches(size: int) -> list[Int[Tensor, " N"]]:
    """The first, the last but two and the last but one row alone, all backwards, and the odd rows."""
    alone = [torch.tensor([row]) for row in sorted({0, size - 3, size - 2} & set(range(size)))]
    return [*alone, torch.arange(size).flip(0), torch.arange(1, size, 2)]


def check_exact(
    sampler: Sampler,
    model: Denoiser,
    law: Float[Tensor, " S"],
    *,
    length: int,
    generate: Generate,
    noise: Noise,
    rows: int = 60_000,
) -> None:
    """Rows written from nothing follow a law given over all sequences in lexicographic order (`testing.laws`).

    Raises:
        AssertionError: chi-square p <= 1e-4.
    """
    counts = observed(generate(sampler, model, blank(model.vocab, rows, length), noise=noise), model.vocab)
    p = chi_square_p(counts, law)
    assert p > 1e-4, f"samples do not follow the law: p={p:.1e}"


def blank(vocab: Vocab, rows: int, length: int) -> Canvas:
    """Rows of masks."""
    return Canvas.of(torch.full((rows, length), vocab.mask_id), vocab=vocab)


def observed(sample: Sample, vocab: Vocab) -> Int[Tensor, " S"]:
    """How often each of the size**length sequences was written, in lexicographic order."""
    length = sample.canvas.x.shape[-1]
    place = vocab.size ** torch.arange(length - 1, -1, -1)
    return torch.bincount((sample.canvas.x * place).sum(-1), minlength=vocab.size**length)


def check_denoiser(model: Denoiser, canvas: Canvas, *, atol: float = 1e-5, pads: bool = True) -> None:
    """The contract of every denoiser, asked at the open positions of `canvas` (at least two rows).

    Args:
        atol: of logits, for what a network's rounding may change with the batch.
        pads: whether rows may be lengthened by padding (not for a table of one fixed length).
    Raises:
        AssertionError: naming the promise that is not kept.
    """
    before, at = copy_of(canvas), canvas.open(model.vocab)
    asked = at.clone()
    logits = model(canvas, asked)
    assert same(canvas, before), "the denoiser edited its canvas"
    assert torch.equal(asked, at), "the denoiser edited the named positions"
    assert logits.shape == (int(at.sum()), model.vocab.size), f"logits of shape {tuple(logits.shape)}"
    assert not bool((logits.isnan() | (logits == torch.inf)).any()), "a logit is nan or +inf"
    assert bool((logits > -torch.inf).any(-1).all()), "no token can be written at some position"
    if model.vocab.mask_id < model.vocab.size:
        assert bool((logits[:, model.vocab.mask_id] == -torch.inf).all()), "the mask can be written"
    logp = logits.double().log_softmax(-1)

    def agrees(part: Float[Tensor, "N V"], expected: Float[Tensor, "N V"]) -> bool:
        return torch.allclose(part.double().log_softmax(-1), expected, rtol=0.0, atol=atol)

    some = at & (torch.arange(at.numel()).reshape(at.shape) % 2 == 0)
    assert agrees(model(canvas, some), logp[some[at]]), "logits depend on which other positions are named"
    assert model(canvas, torch.zeros_like(at)).shape == (0, model.vocab.size), (
        "naming no position gives no empty result"
    )
    for row in range(len(at)):
        alone, own = take_rows(canvas, torch.tensor([row])), at[row : row + 1]
        assert agrees(model(alone, own), logp[at.nonzero()[:, 0] == row]), f"row {row} depends on its batch"
    if pads:
        wider = padded(canvas, model.vocab, 3)
        longer = torch.cat([at, torch.zeros_like(at[:, :1]).expand(-1, 3)], -1)
        assert agrees(model(wider, longer), logp), "padding is attended"


def padded(canvas: Canvas, vocab: Vocab, columns: int) -> Canvas:
    """The canvas with columns of padding on the right."""
    more = torch.zeros_like(canvas.x[:, :1]).expand(-1, columns)
    segment = canvas.valid.long() if canvas.segment is None else canvas.segment
    return Canvas(
        x=torch.cat([canvas.x, more + vocab.pad_id], -1),
        fixed=torch.cat([canvas.fixed, more == 0], -1),
        window=torch.cat([canvas.window, more != 0], -1),
        segment=torch.cat([segment, more], -1),
        row_id=canvas.row_id,
    )


def check_process(
    process: Process,
    model: Denoiser,
    batch: Batch,
    *,
    nelbo: Float[Tensor, " B"],
    noise: Noise,
    draws: int = 4000,
    atol: float = 1e-5,
) -> None:
    """The contract of every training objective with a likelihood bound.

    Args:
        nelbo: the exact value of each row's bound under `model`, by enumeration, nats.
        draws: repetitions per row; the mean must lie within 4.5 standard errors.
    Raises:
        AssertionError: naming the promise that is not kept.
    """
    before = copy_of(batch)
    loss = process.loss(model, batch, noise=noise)
    assert same(batch, before), "the process edited its batch"
    assert loss.num_tokens == int(batch.target.sum()), "num_tokens is not the number of target tokens"
    assert bool(loss.total.isfinite() & loss.nelbo.isfinite().all()), "the loss is not finite"
    assert not loss.nelbo.requires_grad, "nelbo carries a gradient"
    for rows in _batches(len(batch.tokens)):
        part = process.loss(model, take_rows(batch, rows), noise=noise)
        assert same(part.nelbo, loss.nelbo[rows], atol=atol), f"rows {rows.tolist()} lose differently on their own"
    _check_unbiased(process, model, batch, nelbo, noise, draws, atol)
    _check_gradient(process, model.vocab, batch, noise)


def _check_unbiased(
    process: Process, model: Denoiser, batch: Batch, nelbo: Tensor, noise: Noise, draws: int, atol: float
) -> None:
    """The mean over many visits of each row is the enumerated value."""
    size = len(batch.tokens)
    many = take_rows(batch, torch.arange(size).repeat(draws))
    many = dataclasses.replace(many, sample_id=torch.arange(size * draws))
    value = process.loss(model, many, noise=noise).nelbo.double().reshape(draws, size)
    error = (value.mean(0) - nelbo.double()).abs()
    allowed = 4.5 * value.std(0) / draws**0.5 + atol
    assert bool((error <= allowed).all()), f"biased by {error.tolist()} nats where {allowed.tolist()} is allowed"


def _check_gradient(process: Process, vocab: Vocab, batch: Batch, noise: Noise) -> None:
    """Over a few visits, every target position gets gradient and no other position does."""
    shape = (*batch.tokens.shape, vocab.size)
    logits = torch.zeros(shape, requires_grad=True)
    for visit in range(16):
        again = dataclasses.replace(batch, sample_id=batch.sample_id + visit * 1_000_003)
        process.loss(Leaf(logits, vocab), again, noise=noise).total.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None, "the loss does not depend on the model"
    reached = logits.grad.abs().sum(-1) > 0
    assert not bool((reached & ~batch.target).any()), "gradient at a position that is no target"
    assert bool((reached | ~batch.target).all()), "a target position that never gets gradient"
