"""What a named sampler is."""

from collections.abc import Callable
from dataclasses import dataclass

from anyorder.core.protocols import Sampler
from anyorder.samplers.token import TokenRule

ANCESTRAL_STEPS = 256


@dataclass(frozen=True)
class Preset:
    """A sampler with a name.

    Args:
        build: from the number of steps (None: the sampler's own) and the token rule to the sampler.
        paper: where it was published.
        about: one line for people.
        nfe: network passes per row, as a formula; L is the number of positions to write, N the number of steps.
        paced: whether it takes a number of steps.
    """

    build: Callable[[int | None, TokenRule], Sampler]
    paper: str
    about: str
    nfe: str
    paced: bool = False

    @property
    def exact(self) -> bool:
        """Whether a perfect model's law is sampled exactly, at the preset's own settings."""
        return self.build(None, TokenRule()).exact
