"""What an iteration learns from: prompts asked, answered, rewarded and compared; each rank asks a share of them."""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core import dist
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, moved
from anyorder.models.transformer import Transformer
from anyorder.rl.advantage import Advantages
from anyorder.rl.config import RlConfig
from anyorder.rl.judge import Judgement, kinds
from anyorder.rl.make import Lesson, asked
from anyorder.rl.objective import Extent
from anyorder.rl.parts import advantages_of, mean_table, numbers, prices_of, shared, turned, worths
from anyorder.rl.policy import SchedulePolicy
from anyorder.rl.rewards import Samples, malformed
from anyorder.rl.rollout import roll_out
from anyorder.rl.trajectory import Trajectory
from anyorder.rl.update import lengths
from anyorder.samplers.schedules import Table
from anyorder.samplers.steered import Steered


@dataclass(frozen=True)
class Stage:
    """What a run's problems are answered with and judged by.

    Args:
        noise: of the run.
    """

    config: RlConfig
    lesson: Lesson
    model: Transformer
    sampler: Steered
    policy: SchedulePolicy
    noise: Noise

    def answer(
        self,
        canvas: Canvas,
        *,
        noise: Noise,
        price: Float[Tensor, " B"],
        explore: bool = False,
        alike: int = 1,
    ) -> Trajectory:
        """Rows written under the policy, at its mean or exploring; they lie where this rank computes."""
        sampler, device = dataclasses.replace(self.sampler, alike=alike), dist.device()
        return roll_out(
            self.model,
            sampler,
            moved(canvas, device),
            noise=noise,
            policy=self.policy,
            explore=explore,
            price=price.to(device),
        )


@dataclass(frozen=True)
class Taken:
    """An iteration's generations on this rank, and what they earned among those of all ranks.

    Args:
        judgement, knobs, whole: of all ranks.
    """

    trajectory: Trajectory
    advantages: Advantages
    judgement: Judgement
    knobs: Table
    whole: Extent


def share(prompts: int) -> range:
    """The groups of this rank.

    Raises:
        ValueError: fewer groups than ranks.
    """
    rank, world = dist.rank(), dist.world()
    if prompts < world:
        raise ValueError(f"prompts={prompts}: fewer than the {world} ranks; each must have one")
    return range(round(rank * prompts / world), round((rank + 1) * prompts / world))


def gathered(values: Float[Tensor, "*S b"], rows: slice, *, among: int) -> Float[Tensor, "*S B"]:
    """The values of the rows of all ranks, on every rank and to the bit."""
    every = torch.zeros(*values.shape[:-1], among, dtype=torch.float64)
    every[..., rows] = values.double().cpu()
    return dist.all_sum(every)


def take(stage: Stage, iteration: int, phase: frozenset[str], *, counted: str) -> Taken:
    """Roll out this rank's share of an iteration's prompts; advantages need the rewards of all.

    Args:
        counted: the likelihood whose tokens an update is divided by (`update.lengths`).
    """
    c, lesson, noise = stage.config, stage.lesson, stage.noise.at("iteration").at(iteration)
    mine = share(c.prompts)
    asks = numbers(iteration, c.prompts, among=len(lesson.train.x0), noise=stage.noise.at("order"))
    chosen, canvas = asked(lesson.train, asks[mine.start : mine.stop], group=c.group, first=mine.start * c.group)
    price = prices_of(c, noise=noise)[mine.start : mine.stop].repeat_interleave(c.group)
    taken = stage.answer(
        canvas,
        noise=noise,
        price=price,
        explore="schedule" in phase,
        alike=c.group if phase == {"schedule"} and c.common_noise and c.schedule.explore == "all" else 1,
    )
    samples = Samples.of(taken.final.cpu(), chosen, task=lesson.task)
    earned, compared = worths(lesson.reward, samples, group=c.group if c.reward_scale else 0)
    if c.reward_shared:
        compared = shared(compared, samples.x, group=c.group)
    nfe, length = taken.nfe.cpu(), lengths(counted, taken).cpu()
    cost = price * nfe / stage.sampler.steering.num_steps
    figures = torch.stack([earned - cost, compared - cost, nfe, malformed(samples, task=lesson.task), length])
    return _among_all(stage, taken, figures, mine)


def _among_all(stage: Stage, taken: Trajectory, figures: Float[Tensor, "5 b"], mine: range) -> Taken:
    """What this rank's rows are worth among those of all ranks."""
    c = stage.config
    rows, among = slice(mine.start * c.group, mine.stop * c.group), c.prompts * c.group
    reward, compared, nfe, wrong, length = gathered(figures, rows, among=among)
    found = advantages_of(compared, c)
    live = found.live_rows
    device = taken.final.device
    different = dist.all_sum(torch.tensor(float(kinds(taken.final, group=c.group))))
    return Taken(
        trajectory=taken,
        advantages=Advantages(found.value[rows].to(device), found.live[mine.start : mine.stop].to(device)),
        judgement=Judgement(
            reward=float(reward.mean()),
            spread=float(reward.std()),
            distinct=float(different) / among,
            malformed=int(wrong.sum()),
            skipped=found.skipped,
            nfe=float(nfe.mean()),
        ),
        knobs=mean_table(gathered(turned(taken, stage.sampler.steering.num_steps), rows, among=among)),
        whole=Extent(rows=int(live.sum()), tokens=int(length[live].sum()), max_length=stage.lesson.longest),
    )
