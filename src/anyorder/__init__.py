"""Language models that generate in any order: `anyorder.load(path)`, then `sample`, `infill`, `score` and `answer`.

Importing this package loads nothing heavy; the names below bring PyTorch with them when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyorder.api import GAP, Answers, Generation, LanguageModel, Score, load

    __version__: str

__all__ = ["GAP", "Answers", "Generation", "LanguageModel", "Score", "load"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("anyorder")
    if name in __all__:
        from anyorder import api

        return getattr(api, name)
    raise AttributeError(f"module 'anyorder' has no attribute {name!r}; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
