"""A run as a value: everything that decides its weights, and nothing else."""

from typing import Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, model_validator

from anyorder.core.config import nearest
from anyorder.core.device import DtypeName
from anyorder.data.config import DataConfig
from anyorder.models.config import SIZES, ModelConfig
from anyorder.processes.config import ProcessConfig


class OptimConfig(BaseModel, frozen=True, extra="forbid"):
    """AdamW or Muon; norms and embeddings are not decayed (SMDM, arXiv:2410.18514, decays them)."""

    kind: Literal["adamw", "muon"] = "adamw"  # muon: for matrices inside blocks, adamw for the rest
    lr: PositiveFloat = 2e-3  # peak
    min_lr_ratio: float = Field(0.1, ge=0.0, le=1.0)  # of the peak, at the last step
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"  # wsd: warm-up, stable, linear decay
    warmup_steps: int = Field(100, ge=0)  # linear, from near 0 to the peak
    decay_share: float = Field(0.2, gt=0.0, le=1.0)  # of the steps, the tail of wsd
    betas: tuple[float, float] = (0.9, 0.95)  # of AdamW
    weight_decay: float = Field(0.1, ge=0.0)  # of matrices
    clip: PositiveFloat = 1.0  # global gradient norm
    ema: float = Field(0.0, ge=0.0, lt=1.0)  # decay of the averaged weights, 0 for none


class BatchConfig(BaseModel, frozen=True, extra="forbid"):
    """Rows of one optimiser step over all ranks, in `num_micro` forward passes a rank."""

    rows: PositiveInt = 16  # of one optimiser step, all ranks together
    num_micro: PositiveInt = 1  # forward passes a rank splits its rows into

    @model_validator(mode="after")
    def _enough_rows(self) -> "BatchConfig":
        if self.rows < self.num_micro:
            raise ValueError(f"batch.num_micro={self.num_micro}: more passes than batch.rows={self.rows}; lower it")
        return self


class EvalConfig(BaseModel, frozen=True, extra="forbid"):
    """Held-out validation: every how many steps, on how many rows, with how many draws a row (MDM)."""

    every: PositiveInt = 500  # steps
    rows: PositiveInt = 64  # held-out rows, evenly spaced
    draws: int = Field(4, ge=2, multiple_of=2)  # masked copies of each row (MDM), in two independent halves


class RunConfig(BaseModel, frozen=True, extra="forbid"):
    """One training run. `size` names a row of `anyorder.models.SIZES`; `model` replaces it when given."""

    seed: int = 0  # of weights, data order and noise
    data: DataConfig = DataConfig()
    task: str | None = None  # train on a made task (anyorder.data.tasks.TASKS) instead of `data`
    process: ProcessConfig = ProcessConfig()
    size: str = "1M"  # a name of anyorder.models.SIZES
    model: ModelConfig | None = None
    dtype: DtypeName = "auto"  # of activations (auto: what this machine is fast in); weights and optimiser are float32
    optim: OptimConfig = OptimConfig()
    batch: BatchConfig = BatchConfig()
    num_steps: PositiveInt = 1000  # optimiser steps
    evaluate: EvalConfig = EvalConfig()
    save_every: PositiveInt = 500  # steps between checkpoints
    keep: PositiveInt = 2  # newest checkpoints kept
    log_every: PositiveInt = 10  # steps between lines of metrics.jsonl
    compile: bool = False  # torch.compile the blocks; needs a C++ compiler, pays from about a minute of training on

    @model_validator(mode="after")
    def _known_size(self) -> "RunConfig":
        if self.size not in SIZES:
            raise ValueError(f"size={self.size!r}: unknown; {nearest(self.size, SIZES)}")
        return self

    @model_validator(mode="after")
    def _whole_documents(self) -> "RunConfig":
        if self.process.kind not in ("ilm", "it") or self.task is not None:
            return self
        what = f"process.kind={self.process.kind}: an insertion model learns from whole documents; "
        if self.data.packing != "documents":
            raise ValueError(f"{what}set data.packing=documents")
        if self.data.random_length:
            raise ValueError(f"{what}set data.random_length=0, which cuts none")
        return self

    def resolved_model(self, *, length: int) -> ModelConfig:
        """The network's configuration: a named size reads rows as long as those it is trained on."""
        inserts = self.process.kind in ("ilm", "it")
        does = {"causal": self.process.kind == "arm", "insertion": inserts, "slots": self.process.kind == "it"}
        if self.model is not None:
            return self.model.model_copy(update=does)
        longest = length + 1 if inserts else length  # an end-of-document stands before each document
        return SIZES[self.size].model_copy(update=does | {"max_length": longest})
