"""Small pure functions of the loop: which problems, which advantages, which answers, and whether the sums agree."""

import hashlib

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from anyorder.core.noise import Noise
from anyorder.core.types import take_rows
from anyorder.data.tokenizer import Tokenizer
from anyorder.likelihood.bound import Rows
from anyorder.models.transformer import Transformer
from anyorder.rl.advantage import Advantages, group_advantages, wd1_weights
from anyorder.rl.config import RlConfig
from anyorder.rl.diagnostics import Diagnostics
from anyorder.rl.make import Lesson
from anyorder.rl.rewards import Reward, Samples, Weighted
from anyorder.rl.trajectory import Trajectory
from anyorder.samplers.schedules import Table
from anyorder.samplers.steered import COLD

# Nats between the sampler's and the trainer's log-probability of a token at temperature 1, by the network's dtype.
SAME = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 0.25}


def numbers(iteration: int, prompts: int, *, among: int, noise: Noise) -> Int[Tensor, " P"]:
    """Which problems an iteration asks: all in a random order, then all in another one, and so on."""
    place = torch.arange(iteration * prompts, (iteration + 1) * prompts)
    found = torch.zeros_like(place)
    for epoch in torch.unique(place // among).tolist():
        order = noise.uniform(torch.arange(among), epoch).argsort()
        here = place // among == epoch
        found[here] = order[place[here] % among]
    return found


def worths(reward: Reward, samples: Samples, *, group: int = 0) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """What rows earn, and what they are compared by, which is the same if `group` is 0.

    Args:
        group: rows of a group, to bring each term of a sum to mean 0 and deviation 1 within every group before they are
            summed: rewards of different scales then count by their weights, and sums that come about in different ways
            stay apart. A term that is equal in all rows of a group adds 0 there.
    Source:
        arXiv:2601.05242 (GDPO), which then normalises the sum over the batch: `objective.scale="batch"`.
    """
    if not group or not isinstance(reward, Weighted):
        earned = reward(samples)
        return earned, earned
    values = reward.values(samples)
    return reward.summed(values), reward.summed(
        torch.stack([group_advantages(value, size=group).value for value in values])
    )


def shared(value: Float[Tensor, " B"], final: Int[Tensor, "B L"], *, group: int) -> Float[Tensor, " B"]:
    """What each row is worth once equal rows of a group share it: k of them get a k-th each of what is above 0.

    Writing one good answer again and again then earns no more than writing it once.
    """
    rows = final.view(-1, group, final.shape[-1])
    alike = (rows[:, :, None] == rows[:, None]).all(-1).sum(-1).flatten()
    return torch.where(value > 0, value / alike, value)


def advantages_of(reward: Float[Tensor, " B"], config: RlConfig) -> Advantages:
    """Of whole groups, as the objective has them."""
    c = config.objective
    found = group_advantages(reward, size=config.group, scale="none" if c.wd1 else c.scale, std=c.std)
    if not c.wd1:
        return found
    prompt = torch.arange(len(reward), device=reward.device) // config.group
    return Advantages(wd1_weights(found.value, prompt=prompt, size=config.group), found.live)


def answers(taken: Trajectory) -> Rows:
    """The finished rows, for estimators that need no more."""
    segment = None if bool((taken.segment == 1).all()) else taken.segment
    return Rows(taken.final, ~taken.fixed & (taken.segment > 0), segment, taken.row_id)


def check_parity(taken: Trajectory, found: Diagnostics | None, *, dtype: torch.dtype = torch.float32) -> None:
    """Raises RuntimeError if the trainer's log-probabilities are not the sampler's before the first update.

    Rounding grows as temperatures fall, by which logits are divided.
    """
    if found is None:
        return
    heat = float(taken.setting[taken.setting[..., 2] > 0][:, 1:3].clamp(min=COLD).amin()) if taken.num_steps else 1.0
    allowed = SAME[dtype] * max(1.0, 1.0 / heat)
    if not float(found.farthest) <= allowed:
        raise RuntimeError(
            f"the trainer's log-probability of a token is {float(found.farthest):.2g} nats from the sampler's, more "
            f"than rounding ({allowed:.1g}); the model is not the one that drew: no dropout, one dtype, same weights"
        )


def prices_of(config: RlConfig, *, noise: Noise) -> Float[Tensor, " P"]:
    """What a pass costs each group of an iteration."""
    low = torch.full((config.prompts,), config.step_price, dtype=torch.float64)
    if config.step_price_max is None:
        return low
    return low + (config.step_price_max - low) * noise.at("price").uniform(torch.arange(config.prompts))


def turned(taken: Trajectory, num_steps: int) -> Float[Tensor, "T 5 B"]:
    """The knobs of each row in each step, and 1 if it took part in it; all 0 if not."""
    found = torch.zeros(num_steps, 5, len(taken.final), dtype=torch.float64, device=taken.final.device)
    for t in range(taken.num_steps):
        live = taken.live(t)
        found[t] = torch.where(live, torch.cat([taken.setting[t].T, torch.ones_like(live)[None]]), 0.0)
    return found


def mean_table(turned: Float[Tensor, "T 5 B"]) -> Table:
    """The mean of each step's knobs over the rows that took part; steps in which none did are left out."""
    total = turned.sum(-1)
    means = (total[:, :4] / total[:, 4:])[total[:, 4] > 0]
    return Table(tuple((min(max(r, 0.0), 1.0), m, s, w) for r, m, s, w in means.tolist()))


def check_lesson(lesson: Lesson, model: Transformer, tokenizer: Tokenizer) -> None:
    """Refuse what cannot be learned from, before anything is written.

    Raises:
        ValueError: a model of another vocabulary, or of shorter rows, than the task's; a reward that fails on right
            answers to two problems.
    """
    if tokenizer.hash != lesson.task.tokenizer.hash:
        raise ValueError(
            "the model's tokenizer is not the task's, so it cannot hold the prompts; train one on the task first: "
            "anyorder train --task TASK"
        )
    longest = model.config.max_length
    if longest < lesson.task.length:
        raise ValueError(
            f"the model's rows have at most {longest} tokens, the task's {lesson.task.length}, so it cannot hold the "
            "prompts; train one on the task first: anyorder train --task TASK"
        )
    right = take_rows(lesson.valid, torch.arange(min(2, len(lesson.valid.x0))))
    lesson.reward(Samples.of(right.x0, right, task=lesson.task))


def digest(model: nn.Module) -> str:
    """SHA-256 of a model's weights and their names."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
