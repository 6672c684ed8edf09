"""What a named sampler is."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from anyorder.core.protocols import Sampler
from anyorder.samplers.revise import Edit, Keep
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask

ANCESTRAL_STEPS = 256


@dataclass(frozen=True)
class Preset:
    """A sampler with a name.

    Args:
        build: from the number of steps (None: the sampler's own), the token rule and the settings to the sampler.
        paper: where it was published.
        about: one line for people.
        nfe: network passes per row, as a formula; L is the number of positions to write, N the number of steps.
        paced: whether it takes a number of steps.
        settings: the numbers a user may change, as published; `build` gets all of them.
    """

    build: Callable[[int | None, TokenRule, Mapping[str, float]], Sampler]
    paper: str
    about: str
    nfe: str
    paced: bool = False
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether a perfect model's law is sampled exactly, at the preset's own settings."""
        return self.build(None, TokenRule(), self.settings).exact

    @property
    def rules(self) -> str:
        """What it is made of at its own settings, in short."""
        sampler = self.build(None, TokenRule(), self.settings)
        if not isinstance(sampler, Unmask):
            return in_short(sampler)
        count, revise = in_short(sampler.count), in_short(sampler.revise)
        if not isinstance(sampler.revise, Keep | Edit):  # it holds the settings of both
            count = type(sampler.count).__name__
        parts = [f"{count} x {in_short(sampler.position)}"]
        parts += ["draw first"] if sampler.order == "draw_first" else []
        parts += [] if isinstance(sampler.revise, Keep) else [f"revise {revise}"]
        parts += [] if sampler.token == TokenRule() else [in_short(sampler.token)]
        return ", ".join(parts)


def whole(key: str, given: Mapping[str, float]) -> int:
    """A setting that is a whole number; ValueError otherwise."""
    if not given[key].is_integer():
        raise ValueError(f"sampler: {key}={given[key]:g}: must be a whole number")
    return int(given[key])


def flag(key: str, given: Mapping[str, float]) -> bool:
    """A setting that is 0 or 1; ValueError otherwise."""
    if given[key] not in (0.0, 1.0):
        raise ValueError(f"sampler: {key}={given[key]:g}: must be 0 (no) or 1 (yes)")
    return bool(given[key])


def in_short(value: Any) -> str:
    """A dataclass as its name, its first field and those that are not at their defaults; floats in few digits."""
    if isinstance(value, float):
        return f"{value:g}"
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    parts = []
    for index, f in enumerate(dataclasses.fields(value)):
        ours = getattr(value, f.name)
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if index == 0 or ours != default:
            parts.append(f"{f.name}={in_short(ours)}")
    return f"{type(value).__name__}({', '.join(parts)})" if parts else type(value).__name__
