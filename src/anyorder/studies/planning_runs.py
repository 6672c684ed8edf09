"""The models of the study of planning: how they are trained, one like the other, and what a finished run says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from anyorder.core.device import DtypeName
from anyorder.core.log import last_record
from anyorder.models.config import ModelConfig
from anyorder.processes.config import ProcessConfig
from anyorder.train.config import BatchConfig, EvalConfig, OptimConfig, RunConfig
from anyorder.train.loop import METRICS

Kind = Literal["arm", "mdm", "ilm", "it"]
KINDS: Final[tuple[Kind, ...]] = ("arm", "mdm", "ilm", "it")
INSERTS: Final = ("ilm", "it")


@dataclass(frozen=True)
class Recipe:
    """How every model of a level is trained; only the objective, the steps and the learning rate differ.

    Args:
        task: options of the task besides its level and what ends an answer.
        optim: the rate in it is replaced by those of the sweep.
        num_steps: of each kind.
    """

    model: ModelConfig
    optim: OptimConfig
    rows: int
    num_steps: dict[Kind, int]
    dtype: DtypeName = "float32"
    compile: bool = False
    task: str = ""

    def config(self, kind: Kind, *, level: str, lr: float, seed: int, share: float = 1.0) -> RunConfig:
        """A run of that share of the steps; the held-out answers it validates on are those that choose the rate."""
        end = "none" if kind in INSERTS else "fill"
        steps = max(1, round(share * self.num_steps[kind]))
        return RunConfig(
            seed=seed,
            task=f"star:level={level},end={end}{self.task}",
            process=ProcessConfig(kind=kind),
            model=self.model,
            dtype=self.dtype,
            optim=self.optim.model_copy(update={"lr": lr}),
            batch=BatchConfig(rows=self.rows),
            num_steps=steps,
            evaluate=EvalConfig(every=max(1, steps // 8), rows=256, draws=8),
            save_every=max(1, steps // 8),
            log_every=max(1, min(100, steps // 4)),
            compile=self.compile,
        )


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Args:
        valid_nats: of held-out answers that choose the rate, per token; of an Insertion Transformer its loss.
        seconds: it was trained, over all restarts.
    """

    kind: Kind
    level: str
    lr: float
    seed: int
    num_steps: int
    folder: Path
    valid_nats: float
    seconds: float


def finished(config: RunConfig, folder: Path, *, level: str) -> Trained:
    """What a finished run's folder says of it."""
    last = last_record(folder / METRICS, "valid")
    return Trained(
        kind=config.process.kind,
        level=level,
        lr=config.optim.lr,
        seed=config.seed,
        num_steps=config.num_steps,
        folder=folder,
        valid_nats=last["nats_per_token"],
        seconds=last["seconds"],
    )
