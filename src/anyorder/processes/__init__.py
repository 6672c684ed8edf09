"""Training objectives: each a `Process`, each its own file; `PROCESSES` names them."""

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

__all__ = [
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
