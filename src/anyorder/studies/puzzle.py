"""How many held-out instances of its task a finished run solves under a sampler."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from anyorder.core import dist
from anyorder.core.config import load_config
from anyorder.core.device import canvas_device
from anyorder.core.noise import Noise
from anyorder.core.types import Sample, moved
from anyorder.data.tasks import make_task
from anyorder.data.tasks.base import Problems
from anyorder.data.tokenizer import Tokenizer
from anyorder.hub.load import load_model
from anyorder.models.network import Network
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler
from anyorder.train.config import RunConfig
from anyorder.train.data import task_noise
from anyorder.train.loop import CONFIG, MODEL, Measure


@dataclass(frozen=True)
class Solved:
    """The held-out instances of a task as one sampler wrote them.

    Args:
        share: solved, mean over instances and times; `stderr` over instances.
        nfe: mean network passes an instance.
        sample, correct: of the first time.
    """

    label: str
    sampler: str
    share: float
    stderr: float
    nfe: float
    sample: Sample
    correct: Bool[Tensor, " B"]
    tokenizer: Tokenizer

    def pieces(self, row: int) -> list[str]:
        """The text of each position of a row."""
        return [self.tokenizer.decode([i]) for i in self.sample.canvas.x[row].tolist()]


def solve(run: Path, *, sampler: str, label: str, seed: int, times: int = 5) -> Solved:
    """Write every held-out instance of the run's task `times` times and check it.

    Raises:
        ValueError: the run was trained on text.
    """
    config = load_config(RunConfig, run / CONFIG)
    if config.task is None:
        raise ValueError(f"{run}: was trained on text, not on a task; give a run with a task")
    task, loaded = make_task(config.task), load_model(run / MODEL, device=dist.device())
    problems = task.test(noise=task_noise(config))
    samples = _answers(loaded.model, problems, sampler=sampler, seed=seed, times=times)
    correct = torch.stack([task.correct(problems, s.canvas.x.cpu()) for s in samples])
    share, stderr = _mean_over_instances(correct)
    return Solved(
        label=label,
        sampler=sampler,
        share=share,
        stderr=stderr,
        nfe=float(samples[0].nfe.double().mean()),
        sample=samples[0],
        correct=correct[0],
        tokenizer=loaded.tokenizer,
    )


def solved_shares(config: RunConfig, samplers: Sequence[str]) -> Measure:
    """What `train` can measure of a model that learns a task: the held-out instances it solves under each sampler.

    The figures are named `solved SAMPLER` and, their standard errors, `solved SAMPLER stderr`.
    """
    assert config.task is not None
    task = make_task(config.task)
    problems = task.test(noise=task_noise(config))

    def measure(model: Network) -> dict[str, float]:
        figures = {}
        for sampler in samplers:
            (sample,) = _answers(model, problems, sampler=sampler, seed=config.seed, times=1)
            correct = task.correct(problems, sample.canvas.x.cpu())
            figures[f"solved {sampler}"], figures[f"solved {sampler} stderr"] = _mean_over_instances(correct[None])
        return figures

    return measure


def _answers(model: Network, problems: Problems, *, sampler: str, seed: int, times: int) -> list[Sample]:
    """All instances, written `times` times where the model computes."""
    canvas, noise = moved(problems.canvas, canvas_device(dist.device())), Noise.of(seed).at("solve")
    return [generate(make_sampler(sampler), model, canvas, noise=noise.at(i)) for i in range(times)]


def _mean_over_instances(correct: Bool[Tensor, "T B"]) -> tuple[float, float]:
    """The share solved, and its standard error over instances."""
    per_instance = correct.double().mean(0)
    return float(per_instance.mean()), float(per_instance.std() / math.sqrt(len(per_instance)))
