"""How many held-out instances of its task a finished run solves under a sampler."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from anyorder.core.config import load_config
from anyorder.core.noise import Noise
from anyorder.core.types import Sample
from anyorder.data.tasks import make_task
from anyorder.data.tokenizer import Tokenizer
from anyorder.hub.load import load_model
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler
from anyorder.train.config import RunConfig
from anyorder.train.data import task_noise
from anyorder.train.loop import CONFIG, MODEL


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
    task, loaded = make_task(config.task), load_model(run / MODEL)
    problems = task.test(noise=task_noise(config))
    samples = [
        generate(make_sampler(sampler), loaded.model, problems.canvas, noise=Noise.of(seed).at("solve").at(i))
        for i in range(times)
    ]
    correct = torch.stack([task.correct(problems, s.canvas.x) for s in samples])
    per_instance = correct.double().mean(0)
    return Solved(
        label=label,
        sampler=sampler,
        share=float(per_instance.mean()),
        stderr=float(per_instance.std() / math.sqrt(len(per_instance))),
        nfe=float(samples[0].nfe.double().mean()),
        sample=samples[0],
        correct=correct[0],
        tokenizer=loaded.tokenizer,
    )
