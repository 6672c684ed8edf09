"""Which objective to train, as configuration."""

from typing import Literal

from pydantic import BaseModel, Field, PositiveInt

from anyorder.core.config import nearest
from anyorder.core.protocols import Process
from anyorder.core.schedule import SCHEDULES
from anyorder.processes.autoregressive import Autoregressive
from anyorder.processes.cross_entropy import SLICED, NllKernels
from anyorder.processes.insertion import Insertion, LengthWeight
from anyorder.processes.levels import Density, Draw
from anyorder.processes.masked import MaskedDiffusion
from anyorder.processes.slots import Slots


class ProcessConfig(BaseModel, frozen=True, extra="forbid"):
    """`kind` is the objective; the other fields belong to masked diffusion and insertion (see their classes)."""

    kind: Literal["mdm", "arm", "ilm", "it"] = "mdm"  # masked diffusion, autoregression, insertion (it: with slots)
    form: Literal["count", "time"] = "count"  # mask exactly n of a row, or each target with chance 1 - alpha(t)
    schedule: str = "linear"  # alpha(t) of the time form
    draw: Draw = "antithetic"  # how the rows of a step share their mask levels (ilm: numbers of missing tokens)
    t_min: float = Field(0.0, ge=0.0, lt=1.0)  # the time form draws t from [t_min, 1]; SMDM: 1e-3
    weight: Literal["nelbo", "flat"] = "nelbo"  # flat: every masked token counts the same
    density: Density = "uniform"  # of mask levels; bell: 6t(1-t), about half a row masked more often than little or all
    bell_steps: PositiveInt | None = None  # steps that draw from the bell, uniform after them; None: all
    length_weight: LengthWeight = "len_plus_one"  # ilm: of a document of L tokens; "document": 1, as published
    stop_class_weight: float | None = None  # ilm: weight of "nothing is missing", 1 - w of its opposite; None: 1 and 1
    stop_loss_weight: float = 1.0  # ilm: of the stop's loss beside the insertion's
    tau: float | None = None  # it: of a gap's missing tokens the middle one weighs most; None: all the same

    def build(self, *, group: int, kernels: NllKernels = SLICED) -> Process:
        """The objective; `group` rows (those of one optimiser step) share their mask levels evenly."""
        if self.kind == "arm":
            return Autoregressive(kernels)
        if self.kind == "it":
            return Slots(tau=self.tau, draw=self.draw, group=group)
        if self.kind == "ilm":
            return Insertion(
                length_weight=self.length_weight,
                stop_class_weight=self.stop_class_weight,
                stop_loss_weight=self.stop_loss_weight,
                draw=self.draw,
                group=group,
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(f"process.schedule={self.schedule!r}: unknown; {nearest(self.schedule, SCHEDULES)}")
        return MaskedDiffusion(
            form=self.form,
            schedule=SCHEDULES[self.schedule](),
            draw=self.draw,
            group=group,
            t_min=self.t_min,
            weight=self.weight,
            density=self.density,
            bell_groups=self.bell_steps,
            kernels=kernels,
        )
