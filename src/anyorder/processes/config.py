"""Which objective to train, as configuration."""

from typing import Literal

from pydantic import BaseModel, Field

from anyorder.core.config import nearest
from anyorder.core.protocols import Process
from anyorder.core.schedule import SCHEDULES
from anyorder.processes.autoregressive import Autoregressive
from anyorder.processes.cross_entropy import SLICED, NllKernels
from anyorder.processes.masked import Draw, MaskedDiffusion


class ProcessConfig(BaseModel, frozen=True, extra="forbid"):
    """`kind` is the objective; the other fields belong to masked diffusion (see `MaskedDiffusion`)."""

    kind: Literal["mdm", "arm"] = "mdm"  # masked diffusion, or autoregression
    form: Literal["count", "time"] = "count"  # mask exactly n of a row, or each target with chance 1 - alpha(t)
    schedule: str = "linear"  # alpha(t) of the time form
    draw: Draw = "antithetic"  # how the rows of a step share their mask levels
    t_min: float = Field(0.0, ge=0.0, lt=1.0)  # the time form draws t from [t_min, 1]; SMDM: 1e-3
    weight: Literal["nelbo", "flat"] = "nelbo"  # flat: every masked token counts the same

    def build(self, *, group: int, kernels: NllKernels = SLICED) -> Process:
        """The objective; `group` rows (those of one optimiser step) share their mask levels evenly."""
        if self.kind == "arm":
            return Autoregressive(kernels)
        if self.schedule not in SCHEDULES:
            raise ValueError(f"process.schedule={self.schedule!r}: unknown; {nearest(self.schedule, SCHEDULES)}")
        return MaskedDiffusion(
            form=self.form,
            schedule=SCHEDULES[self.schedule](),
            draw=self.draw,
            group=group,
            t_min=self.t_min,
            weight=self.weight,
            kernels=kernels,
        )
