"""Published sets of lm-eval tasks and how their papers scored them: data alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Recipe:
    """How a paper scored a task: estimator and guidance scale for a masked model; None leaves them to the caller."""

    estimator: str | None = None
    guidance: float | None = None


@dataclass(frozen=True)
class Suite:
    """Tasks by their lm-eval names, and where they were put together."""

    about: str
    tasks: Mapping[str, Recipe]


SUITES: Final[dict[str, Suite]] = {
    "smdm": Suite(  # arXiv:2410.18514, section 5, and its evaluation script; chosen there on the test sets themselves
        "the eight tasks of SMDM (arXiv:2410.18514) with the estimator and guidance of its 1.1B model",
        {
            "lambada_standard": Recipe("chain", 1.1),
            "openbookqa": Recipe("chain", 1.6),
            "boolq": Recipe("chain", 1.6),
            "piqa": Recipe("chain", 0.6),
            "arc_easy": Recipe("count", 0.6),
            "social_iqa": Recipe("count", 0.6),
            "race": Recipe("count", 0.7),
            "hellaswag": Recipe("count", 0.7),
        },
    ),
    "gsm8k-family": Suite(
        "grade-school mathematics in its variants, written and compared",
        {
            name: Recipe()
            for name in (
                "gsm8k",
                "gsm8k_cot",
                "gsm8k_cot_zeroshot",
                "gsm8k_cot_llama",
                "gsm8k_platinum",
                "gsm_plus",
            )
        },
    ),
}
