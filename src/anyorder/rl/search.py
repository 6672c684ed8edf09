"""A schedule searched for by finite differences (AutoNAT): the baseline of learned ones. The model stays as it is."""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.rl.make import Lesson, asked
from anyorder.rl.parts import numbers
from anyorder.rl.rewards import Samples
from anyorder.rl.rollout import roll_out
from anyorder.samplers.schedules import Table
from anyorder.samplers.steered import Steered

STEP: Final = torch.tensor([1e-2, 0.1, 0.1, 0.1], dtype=torch.float64)  # how far each knob is turned to try
RATE: Final = torch.tensor([1e-3, 0.1, 0.1, 0.1], dtype=torch.float64)  # how far it is moved for a difference of 1
LOW: Final = torch.tensor([0.0, 1e-4, 1e-4, 1e-4], dtype=torch.float64)
HIGH: Final = torch.tensor([0.99, torch.inf, torch.inf, torch.inf], dtype=torch.float64)


@dataclass(frozen=True)
class Search:
    """Gradient ascent on the mean reward over a table of knobs, by forward differences and momentum.

    Every knob of every step is tried by itself on the same problems with the same noise. A knob that is 0 at first is
    off and stays so, as for a policy: what is not guided never costs a second pass. Defaults are AutoNAT's.

    Args:
        problems: answered in each trial.
        updates: of the table.
        rate: times all rates.
    Source:
        arXiv:2406.05478, and its public code.
    """

    problems: int = 144
    updates: int = 18
    momentum: float = 0.5
    rate: float = 1.0

    def rollouts(self, start: Table) -> int:
        """Answers that the whole search takes: a set for the table as it is, and one for every knob that is on."""
        return self.updates * self.problems * (1 + int((start.tensor > 0).sum()))

    def run(self, model: Denoiser, sampler: Steered, lesson: Lesson, *, noise: Noise) -> list[Table]:
        """The table before each update, and the last one.

        Raises:
            ValueError: a sampler that is not steered by a table.
        """
        if not isinstance(sampler.steering, Table):
            raise ValueError("search: begins with a table of knobs; give the sampler one")
        tables, on = [sampler.steering], sampler.steering.tensor > 0
        speed = torch.zeros_like(sampler.steering.tensor)
        for update in range(self.updates):
            here = tables[-1].tensor
            slope = self._slope(model, sampler, lesson, here, on, update, noise)
            speed = self.momentum * speed + slope
            tables.append(table_of(here + self.rate * RATE * speed, on))
        return tables

    def _slope(
        self,
        model: Denoiser,
        sampler: Steered,
        lesson: Lesson,
        here: Float[Tensor, "T 4"],
        on: Bool[Tensor, "T 4"],
        update: int,
        noise: Noise,
    ) -> Float[Tensor, "T 4"]:
        """Difference of mean rewards over the step that was tried, knob by knob; 0 for those that are off."""
        chosen, canvas = asked(
            lesson.train,
            numbers(update, self.problems, among=len(lesson.train.x0), noise=noise.at("order")),
            group=1,
        )

        def worth(knobs: Float[Tensor, "T 4"]) -> float:
            tried = Steered(**vars(sampler) | {"steering": table_of(knobs, on)})
            taken = roll_out(model, tried, canvas, noise=noise.at(update), policy=None, explore=False)
            return float(lesson.reward(Samples.of(taken.final, chosen, task=lesson.task)).mean())

        base, slope = worth(here), torch.zeros_like(here)
        for t, knob in on.nonzero().tolist():
            turned = here.clone()
            turned[t, knob] += STEP[knob]
            slope[t, knob] = (worth(turned) - base) / STEP[knob]
        return slope


def table_of(knobs: Float[Tensor, "T 4"], on: Bool[Tensor, "T 4"]) -> Table:
    """The table of these knobs, moved into their range; 0 where they are off."""
    legal = torch.where(on, torch.minimum(torch.maximum(knobs, LOW), HIGH), 0.0)
    rows = [(r, m, s, w) for r, m, s, w in legal.tolist()]
    return Table(tuple(rows))
