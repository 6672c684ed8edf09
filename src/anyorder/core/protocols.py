"""The ideas everything else implements: a denoiser reads, a process trains, a sampler writes, a schedule paces."""

from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.types import Batch, Canvas, Carry, InsertionOut, Loss, Vocab, Write


@runtime_checkable
class Denoiser(Protocol):
    """Anything that predicts tokens at named positions: a network, an exact oracle, or a wrapper of either."""

    @property
    def nfe(self) -> int:
        """Network passes one call costs."""
        ...

    @property
    def vocab(self) -> Vocab: ...

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """Logits of the N = at.sum() named positions in row-major order; -inf on ids that cannot be written.

        A row's answer is a function of its tokens, prompt and segments alone: neither of `row_id` nor of other rows.
        """
        ...


@runtime_checkable
class Priced(Protocol):
    """A denoiser whose calls do not cost every row the same; its `nfe` is then the most a call costs."""

    def price(self, canvas: Canvas) -> Int[Tensor, " B"]:
        """Network passes a call costs each row."""
        ...


@runtime_checkable
class Inserting(Protocol):
    """A model that says which tokens are missing after which. The rows it reads hold no masks.

    A document begins with end-of-document, which stands for its beginning; nothing is ever inserted before it. As a
    `Denoiser` it answers at position i with the scores of inserting each token just after i; in the column of
    end-of-document, which is never inserted, stand the log-odds that the document is complete, at its first position,
    and -inf at others.
    """

    @property
    def nfe(self) -> int: ...

    @property
    def vocab(self) -> Vocab: ...

    def insertion(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> InsertionOut:
        """The answer at the N = at.sum() named positions without the N x V scores."""
        ...

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]: ...


@runtime_checkable
class Process(Protocol):
    """A training objective."""

    paper: ClassVar[str]

    def loss(self, model: Denoiser, batch: Batch, *, noise: Noise) -> Loss: ...


@runtime_checkable
class Sampler(Protocol):
    """A way to write. It never loops (`samplers.base.steps` does) and never edits its inputs."""

    paper: ClassVar[str]

    @property
    def exact(self) -> bool:
        """Whether a perfect denoiser makes the output law the data law."""
        ...

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry: ...

    def step(self, model: Denoiser, canvas: Canvas, carry: Carry, *, noise: Noise) -> Write: ...


@runtime_checkable
class Scorable(Protocol):
    """A sampler whose steps have a likelihood: reinforcement learning, and the law of a trajectory."""

    def init(self, canvas: Canvas, *, vocab: Vocab) -> Carry: ...

    def log_prob(self, model: Denoiser, before: Canvas, carry: Carry, after: Canvas) -> Float[Tensor, " B"]:
        """Log-probability of the step from one canvas to the next: of its positions and its tokens; nats.

        Differentiable in the model's logits as far as the rules are.

        Raises:
            ValueError: rules whose steps have no likelihood.
        """
        ...


@runtime_checkable
class Schedule(Protocol):
    """alpha(t): the chance that a token is still visible at time t; 1 at t=0, falling to 0 at t=1.

    `inverse(alpha(t)) = t`; `dalpha` is the derivative by t; `weight(t) = -dalpha / (1 - alpha)` is the NELBO weight.
    """

    def alpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]: ...

    def dalpha(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]: ...

    def inverse(self, alpha: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]: ...

    def weight(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]: ...
