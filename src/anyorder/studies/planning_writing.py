"""What the models of the study of planning write, in which order, and how likely they find the right answers."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core import dist
from anyorder.core.noise import Noise, ranks
from anyorder.core.protocols import Denoiser, Sampler
from anyorder.core.types import Canvas, Sample, moved, take_rows
from anyorder.data.loader import in_order
from anyorder.data.rows import TaskRows
from anyorder.data.tasks import Problems, Star, make_task
from anyorder.data.tasks.layout import Layout
from anyorder.hub.load import load_model
from anyorder.processes.thin import end_of
from anyorder.samplers.base import generate
from anyorder.samplers.causal import Causal
from anyorder.samplers.count import One
from anyorder.samplers.insertion import Insert
from anyorder.samplers.position import Confidence
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask
from anyorder.studies.planning_runs import INSERTS, Kind
from anyorder.train.config import RunConfig
from anyorder.train.data import task_noise
from anyorder.train.loop import MODEL
from anyorder.train.watch import score

GREEDY: Final = TokenRule(temperature=0.0)
CLOSED: Final = 0.9  # an Insertion Transformer ends when every gap gives end-of-document so much
SPARE: Final = 4  # tokens an insertion model has room for beyond the longest answer
SAMPLERS: Final[dict[Kind, Sampler]] = {
    "arm": Causal(GREEDY, stop_at_eos=True),
    "mdm": Unmask(One(), Confidence("prob"), GREEDY),
    "ilm": Insert(position=GREEDY, token=GREEDY, stop=0.5),
    "it": Insert(position=GREEDY, token=GREEDY, stop=CLOSED),
}


@dataclass(frozen=True)
class Subject:
    """A finished run's model and where it computes, its task, and the noise its instances are made of."""

    kind: Kind
    task: Star
    model: Denoiser
    noise: Noise
    device: torch.device

    @property
    def layout(self) -> Layout:
        return self.task.layout


def subject(config: RunConfig, folder: Path) -> Subject:
    """The model of a finished run, on a GPU if there is one."""
    device = dist.device()
    assert config.task is not None
    task = make_task(config.task)
    assert isinstance(task, Star)
    model = load_model(folder / MODEL, device=device).model
    return Subject(config.process.kind, task, model, task_noise(config), device)


@dataclass(frozen=True)
class Attempt:
    """What a model wrote for B problems whose longest answer has A tokens.

    Args:
        right: whether it is the whole path and nothing else.
        rank: when each token of what was written came, from 0, without end-of-document; -1 behind its end.
    """

    right: Bool[Tensor, " B"]
    rank: Int[Tensor, "B A"]


def attempt(who: Subject, problems: Problems, *, told: bool = False, noise: Noise, at_once: int = 500) -> Attempt:
    """Greedy writing: an ARM from the left to end-of-document, an MDM where it is surest, insertion models at the
    likeliest place the likeliest token, until they find the answer complete.

    Args:
        told: an MDM sees what follows the answer, and so how many tokens it has.
        at_once: problems of a pass.
    """
    right, rank = [], []
    for rows in torch.split(torch.arange(len(problems.x0)), at_once):
        part = take_rows(problems, rows)
        sample = generate(SAMPLERS[who.kind], who.model, begin(who, part, told=told), noise=noise)
        right.append(who.task.correct(part, sample.canvas.x.cpu()))
        rank.append(written_when(sample, who.layout).cpu())
    return Attempt(torch.cat(right), torch.cat(rank))


def begin(who: Subject, problems: Problems, *, told: bool) -> Canvas:
    """What writing starts from; an insertion model has more room than any answer takes."""
    canvas = who.layout.to_insert(problems, spare=SPARE) if who.kind in INSERTS else problems.canvas
    if told:
        ends = problems.x0 == end_of(who.layout.vocab)
        canvas = dataclasses.replace(canvas, x=torch.where(ends, problems.x0, canvas.x), fixed=canvas.fixed | ends)
    return Canvas(
        x=canvas.x.to(who.device),
        fixed=canvas.fixed.to(who.device),
        window=canvas.window.to(who.device),
        segment=None if canvas.segment is None else canvas.segment.to(who.device),
        row_id=canvas.row_id.to(who.device),
    )


def written_when(sample: Sample, layout: Layout) -> Int[Tensor, "B A"]:
    """The rank of each written token's step among those of its row, from the left; -1 where there is none."""
    written = (sample.order >= 0) & (sample.canvas.x != end_of(layout.vocab))
    rank = ranks(sample.order.double(), written).masked_fill(~written, -1)
    front = (~written).long().argsort(dim=-1, stable=True)[:, : layout.answer]
    return rank.gather(1, front)


@dataclass(frozen=True)
class Score:
    """How many problems a run's model solves.

    Args:
        told: whether it was told how long the answers are.
        by_distance: edges from the junction to the goal; how many problems there are, and how many it solves.
    """

    level: str
    kind: Kind
    told: bool
    lr: float
    seed: int
    problems: int
    solved: int
    by_distance: dict[int, tuple[int, int]]

    @property
    def share(self) -> float:
        return self.solved / self.problems


@dataclass(frozen=True)
class Order:
    """When the tokens of the longest answers are written, where those are right.

    Args:
        rank: mean rank of each token, from 1.
    """

    level: str
    kind: Kind
    seed: int
    answers: int
    rank: tuple[float, ...]


def scored(who: Subject, problems: Problems, found: Attempt, config: RunConfig, *, told: bool) -> Score:
    """An attempt as figures."""
    distance = who.task.junction_distance(problems)
    return Score(
        level=who.task.level,
        kind=who.kind,
        told=told,
        lr=config.optim.lr,
        seed=config.seed,
        problems=len(found.right),
        solved=int(found.right.sum()),
        by_distance={
            d: (int((distance == d).sum()), int(found.right[distance == d].sum()))
            for d in sorted(set(distance.tolist()))
        },
    )


def order_of(who: Subject, found: Attempt, *, seed: int) -> Order | None:
    """Mean ranks; None if no answer of the longest is right."""
    whole = found.right & (found.rank >= 0).all(-1)
    if not bool(whole.any()):
        return None
    mean = (found.rank[whole].double() + 1).mean(0)
    return Order(who.task.level, who.kind, seed, int(whole.sum()), tuple(mean.tolist()))


@dataclass(frozen=True)
class Likelihood:
    """How likely a run's model finds the right answers, with where they end, given their prompts.

    Args:
        nats: per token of the answers, end-of-document not counted; exact for an ARM, else an upper bound.
        stderr: over answers.
        guess: what knowing everything but the way out of the junction costs.
    """

    level: str
    kind: Kind
    seed: int
    nats: float
    stderr: float
    guess: float


def likelihood(who: Subject, problems: Problems, *, draws: int, seed: int, noise: Noise) -> Likelihood:
    """Nats of all right answers over tokens of all of them.

    Args:
        draws: network rows of an answer, for a bound.
    """
    layout, device = who.layout, who.device
    rows = TaskRows(tokens=problems.x0, target=layout.is_answer.expand_as(problems.x0), vocab=layout.vocab)
    with torch.no_grad():
        parts = [
            score(who.model, moved(batch, device), kind=who.kind, draws=draws, noise=noise)[0].double().cpu()
            for batch in in_order(rows, rows=64)
        ]
    nats, tokens = torch.cat(parts), lengths(problems.x0, layout).double()
    per_token = nats.sum() / tokens.sum()
    spread = (nats - per_token * tokens).std() * math.sqrt(len(nats))
    guess = len(nats) * math.log(who.task.law.degree)
    return Likelihood(
        level=who.task.level,
        kind=who.kind,
        seed=seed,
        nats=float(per_token),
        stderr=float(spread / tokens.sum()),
        guess=guess / float(tokens.sum()),
    )


def lengths(x0: Int[Tensor, "B L"], layout: Layout) -> Int[Tensor, " B"]:
    """Tokens of each answer."""
    held = layout.is_answer & (x0 != layout.vocab.pad_id) & (x0 != end_of(layout.vocab))
    return held.sum(-1)
