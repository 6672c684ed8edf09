"""What the study of orders trains and measures: runs, problems by difficulty, and how many each order solves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.categorical import log_probs
from anyorder.core.config import load_config
from anyorder.core.noise import Noise, ranks
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas
from anyorder.data.tasks import NaeSat, Problems, Sudoku, Task, Zebra, make_task
from anyorder.data.tasks.sudoku import grids, make_puzzles, split
from anyorder.hub.load import load_model
from anyorder.samplers.base import generate
from anyorder.samplers.count import One, Quota
from anyorder.samplers.look import PositionRule
from anyorder.samplers.position import Confidence, LeftToRight, Uniform
from anyorder.samplers.unmask import Unmask
from anyorder.train.config import BatchConfig, EvalConfig, OptimConfig, RunConfig
from anyorder.train.data import run_data, task_noise
from anyorder.train.loop import CONFIG, MODEL, train

ORDERS: Final[dict[str, PositionRule]] = {
    "random": Uniform(),
    "top-prob": Confidence("prob"),
    "margin": Confidence("margin"),
    "entropy": Confidence("entropy"),
    "left-to-right": LeftToRight(),
}
FEWEST: Final = 10  # problems worth a row of their own
CLUES: Final = (4, 6, 8)  # of 4x4 puzzles


@dataclass(frozen=True)
class Recipe:
    """A training run: the task and what differs between tasks."""

    task: str
    size: str
    rows: int
    lr: float
    num_steps: int

    def config(self, seed: int) -> RunConfig:
        return RunConfig(
            seed=seed,
            task=self.task,
            size=self.size,
            batch=BatchConfig(rows=self.rows),
            optim=OptimConfig(lr=self.lr, warmup_steps=min(50, self.num_steps // 5)),
            num_steps=self.num_steps,
            evaluate=EvalConfig(every=max(1, self.num_steps // 4), rows=64, draws=4),
            save_every=max(1, self.num_steps // 8),
        )


@dataclass(frozen=True)
class Trained:
    """A finished run: its task, its model, and the noise its instances were made of."""

    task: Task
    model: Denoiser
    noise: Noise


def trained(recipe: Recipe, folder: Path, *, seed: int, run: Path | None) -> Trained:
    """The recipe's model, trained into `folder` or gone on with there; or that of a finished run of the same task.

    Raises:
        ValueError: `folder` holds another run.
        RuntimeError: the loss is no longer finite.
    """
    if run is None:
        config = recipe.config(seed)
        train(config, run_data(config), folder)
        run = folder
    config = load_config(RunConfig, run / CONFIG)
    assert config.task is not None
    return Trained(make_task(config.task), load_model(run / MODEL).model, task_noise(config))


def task_of(run: Path) -> str:
    """Name of the task of a finished masked diffusion run.

    Raises:
        ValueError: no such run, or one of text, or of an autoregressive model.
    """
    config = load_config(RunConfig, run / CONFIG)
    if config.task is None or config.process.kind != "mdm" or not (run / MODEL).is_dir():
        raise ValueError(f"{run}: is no finished masked diffusion run on a task; give one, or leave --run out")
    return config.task.partition(":")[0]


@dataclass(frozen=True)
class Group:
    """Problems of one planted difficulty; `easy` tells those with simple solutions where the task knows, else None."""

    name: str
    problems: Problems
    easy: Bool[Tensor, " B"] | None = None


def groups(task: Task, *, noise: Noise, most: int) -> list[Group]:
    """Held-out problems by difficulty, at most `most` of each: clues of sudoku, what is given in NAE-SAT.

    Args:
        noise: of the task's run, so that held-out problems are those it was not trained on.
    """
    if isinstance(task, Sudoku) and task.size == 4 and task.form == "grid":
        _, grid = split(noise.at("split"), num_train=task.num_train)
        many = grid.repeat(-(-most // len(grid)), 1)[:most]
        made_of = {n: task.problems(make_puzzles(many, clues=n, noise=noise.at(n)), many) for n in CLUES}
        return [Group(f"{n} clues", p, task.easy(p)) for n, p in made_of.items()]
    problems = task.test(noise=noise)
    rows = slice(min(most, len(problems.x0)))
    canvas = problems.canvas
    problems = Problems(Canvas.of(canvas.x[rows], vocab=task.tokenizer.vocab), problems.x0[rows])
    if isinstance(task, NaeSat):
        many = problems.x0[torch.arange(most) % len(problems.x0)]  # where nothing is given, only their number matters
        parts = {"nothing": many, "latents": problems.x0, "observations": problems.x0}
        return [Group(f"{name} given", _asked(task, x0, name)) for name, x0 in parts.items()]
    easy = task.easy(problems) if isinstance(task, Sudoku | Zebra) else None
    return [Group("all", problems, easy)]


def from_nothing(task: Sudoku | NaeSat, count: int) -> Group:
    """Empty boards, or NAE-SAT rows of which nothing is given, so many of them; any right row will do."""
    if isinstance(task, Sudoku):
        x0 = grids()[:1].expand(count, -1)
        return Group("empty board", task.problems(torch.full_like(x0, task.size), x0))
    return Group("nothing given", _asked(task, task.every_row()[:1].expand(count, -1), "nothing"))


def _asked(task: NaeSat, x0: Int[Tensor, "B L"], given: str) -> Problems:
    """NAE-SAT rows with a part of them given."""
    hidden = {"nothing": task.is_bit, "latents": task.is_bit & ~task.is_latent, "observations": task.is_latent}
    vocab = task.tokenizer.vocab
    return Problems(Canvas.of(x0.masked_fill(hidden[given], vocab.mask_id), vocab=vocab), x0)


@dataclass(frozen=True)
class Score:
    """How many of a group's problems an order solves.

    Args:
        passes: network passes allowed, None for one per token.
        share, stderr: solved, mean over problems; standard error over problems.
        agree, agree_stderr: of NAE-SAT, share of observations that are what the row's latents say, mean over rows and
            its standard error; None for other tasks.
        nfe: mean network passes a row.
    """

    task: str
    model: str
    group: str
    order: str
    passes: int | None
    problems: int
    share: float
    stderr: float
    agree: float | None
    agree_stderr: float | None
    nfe: float


def scores(
    task: Task, model: Denoiser, group: Group, *, name: str, passes: Sequence[int | None], times: int, noise: Noise
) -> list[Score]:
    """Every order with every number of passes on a group's problems, and on its easy and hard ones by themselves.

    Args:
        name: of the model.
        times: each problem is written, with noise of its own.
    """
    found = []
    for order, position in ORDERS.items():
        for most in passes:
            sampler = Unmask(One() if most is None else Quota(most), position)
            canvas = group.problems.canvas
            written = [generate(sampler, model, canvas, noise=noise.at(i)) for i in range(times)]
            right = torch.stack([task.correct(group.problems, s.canvas.x) for s in written]).double().mean(0)
            agree = (
                torch.stack([task.agreement(s.canvas.x) for s in written]).mean(0) if isinstance(task, NaeSat) else None
            )
            nfe = torch.stack([s.nfe for s in written]).double().mean(0)
            for label, rows in _parts(group):
                found.append(
                    Score(
                        task=type(task).__name__,
                        model=name,
                        group=label,
                        order=order,
                        passes=most,
                        problems=int(rows.sum()),
                        share=float(right[rows].mean()),
                        stderr=stderr(right[rows]),
                        agree=None if agree is None else float(agree[rows].mean()),
                        agree_stderr=None if agree is None else stderr(agree[rows]),
                        nfe=float(nfe[rows].mean()),
                    )
                )
    return found


def _parts(group: Group) -> list[tuple[str, Bool[Tensor, " B"]]]:
    """All problems, and the easy and the hard ones where there are enough of each."""
    every = torch.ones(len(group.problems.x0), dtype=torch.bool)
    if group.easy is None or min(int(group.easy.sum()), int((~group.easy).sum())) < FEWEST:
        return [(group.name, every)]
    return [(group.name, every), (f"{group.name}, easy", group.easy), (f"{group.name}, hard", ~group.easy)]


def stderr(values: Float[Tensor, " B"]) -> float:
    """Standard error of the mean."""
    return float(values.std() / math.sqrt(len(values)))


@dataclass(frozen=True)
class Excess:
    """How far a model's predictions are from the exact ones, in nats per masked bit.

    Args:
        masked: bits masked of the row's, chosen uniformly.
        kind: "latents" or "observations".
        exact: mean entropy of the exact conditionals, which no model can beat.
        excess, stderr: mean KL divergence of the model's from the exact ones; standard error over rows.
    """

    masked: int
    kind: str
    exact: float
    excess: float
    stderr: float


def imbalance(
    task: NaeSat, model: Denoiser, oracle: Denoiser, *, x0: Int[Tensor, "B L"], counts: Sequence[int], noise: Noise
) -> list[Excess]:
    """The model's error on latents and on observations, by how many bits are masked.

    Source:
        arXiv:2502.06768, section 3: subproblems of masked diffusion are not equally hard, and error follows hardness.
    """
    row, place = torch.arange(len(x0))[:, None], torch.arange(task.length)
    found = []
    for n in counts:
        bits = task.is_bit.expand_as(x0)
        hidden = ranks(noise.uniform(row, n, place), bits) < n  # at most all bits
        canvas = Canvas.of(x0.masked_fill(hidden, task.tokenizer.vocab.mask_id), vocab=task.tokenizer.vocab)
        with torch.no_grad():
            exact, said = (log_probs(m(canvas, hidden)).double() for m in (oracle, model))
        entropy = -torch.special.xlogy(exact.exp(), exact.exp()).sum(-1)
        apart = torch.where(exact.exp() > 0, exact.exp() * (exact - said), 0.0).sum(-1)
        for kind, of_kind in (("latents", task.is_latent), ("observations", task.is_bit & ~task.is_latent)):
            at = (of_kind & hidden)[hidden]
            who = hidden.nonzero()[:, 0][at]
            per_row = _row_means(apart[at], who, len(x0))
            found.append(Excess(n, kind, float(entropy[at].mean()), float(apart[at].mean()), stderr(per_row)))
    return found


def _row_means(values: Float[Tensor, " N"], row: Int[Tensor, " N"], rows: int) -> Float[Tensor, " R"]:
    """Mean of the values of each row that has any."""
    total = values.new_zeros(rows).index_add(0, row, values)
    count = torch.bincount(row, minlength=rows)
    return (total / count)[count > 0]
