"""The Python API: `load` a trained model; it writes (`sample`), fills gaps (`infill`) and measures text (`score`)."""

from anyorder.api.model import LanguageModel, load
from anyorder.api.values import GAP, Generation, Score
from anyorder.evaluation.answers import Answers

__all__ = ["GAP", "Answers", "Generation", "LanguageModel", "Score", "load"]
