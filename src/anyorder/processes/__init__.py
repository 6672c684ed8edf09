"""Training objectives: each a `Process`, each its own file; `PROCESSES` names them, `OPTIONS` how to train."""

from anyorder.processes.autoregressive import Autoregressive
from anyorder.processes.config import ProcessConfig
from anyorder.processes.dreamon import DreamOn
from anyorder.processes.flexmdm import FlexMDM
from anyorder.processes.insertion import Insertion
from anyorder.processes.masked import MaskedDiffusion, smdm
from anyorder.processes.slots import Slots

PROCESSES = {
    "mdm": MaskedDiffusion,
    "smdm": smdm,
    "arm": Autoregressive,
    "ilm": Insertion,
    "it": Slots,
    "flexmdm": FlexMDM,
    "dreamon": DreamOn,
}

OPTIONS = {  # of `anyorder train`; the others are for Python only
    "mdm": "--process.kind mdm",
    "smdm": "--process.form time --process.draw independent --process.t_min 1e-3",
    "arm": "--process.kind arm",
    "ilm": "--process.kind ilm",
    "it": "--process.kind it",
}

__all__ = [
    "OPTIONS",
    "PROCESSES",
    "Autoregressive",
    "DreamOn",
    "FlexMDM",
    "Insertion",
    "MaskedDiffusion",
    "ProcessConfig",
    "Slots",
    "smdm",
]
