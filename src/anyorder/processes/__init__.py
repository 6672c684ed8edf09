"""Training objectives: each a `Process`, each its own file; `PROCESSES` names them."""

from anyorder.processes.autoregressive import Autoregressive
from anyorder.processes.config import ProcessConfig
from anyorder.processes.masked import MaskedDiffusion, smdm

PROCESSES = {"mdm": MaskedDiffusion, "smdm": smdm, "arm": Autoregressive}

__all__ = ["PROCESSES", "Autoregressive", "MaskedDiffusion", "ProcessConfig", "smdm"]
