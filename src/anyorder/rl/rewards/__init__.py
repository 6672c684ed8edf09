"""Rewards by name, by import path, or as a sum. A new one is a file here, a test and a line in `REWARDS`."""

import importlib
from collections.abc import Callable
from math import isfinite
from typing import Any, Final

from anyorder.core.config import nearest, parse_spec, spec_options
from anyorder.data.tasks import TASKS, Task
from anyorder.data.tasks.base import DenseTask, FormedTask, PicturedTask
from anyorder.rl.rewards.base import Checked, Reward, Samples, malformed
from anyorder.rl.rewards.cells import Cells
from anyorder.rl.rewards.correct import Correct
from anyorder.rl.rewards.dense import Dense
from anyorder.rl.rewards.form import Form
from anyorder.rl.rewards.scorers import Dpg, GenEval, Hps, ImageReward
from anyorder.rl.rewards.weighted import Weighted

REWARDS: Final[dict[str, Callable[..., Reward]]] = {
    "correct": Correct,
    "cells": Cells,
    "dense": Dense,
    "format": Form,
    "image-reward": ImageReward,
    "hps": Hps,
    "geneval": GenEval,
    "dpg": Dpg,
}
NEEDS: Final[dict[str, Any]] = {
    "dense": DenseTask,
    "format": FormedTask,
    "image-reward": PicturedTask,
    "hps": PicturedTask,
    "geneval": PicturedTask,
    "dpg": PicturedTask,
}  # what a task must be able to do, beyond being one
PARTIAL: Final = ("cells", "dense", "format")  # how near a row is: they judge rows that are no whole answer, too


def make_reward(spec: str, *, task: Task | None) -> Reward:
    """The reward a configuration names.

    A name, "correct"; with options, "hps:version=v2.1"; an import path "package.module:function" of a callable that
    takes `Samples`; or a sum of these with weights, "correct+0.1*format". Rows that are no whole answer get 0, except
    from rewards of how near a row is (`PARTIAL`): hardly any row is whole when those are needed.

    Raises:
        ValueError: no task, an unknown name, option or import path, a task that lacks what a reward needs, a weight
            that is no number.
    """
    if task is None:
        raise ValueError(f"reward={spec!r}: needs a task with a checker; name one of {', '.join(sorted(TASKS))}")
    terms = []
    for term in spec.split("+"):
        weight, star, name = term.rpartition("*")
        terms.append((_weight(weight, spec) if star else 1.0, _checked(name.strip(), task)))
    if len(terms) == 1 and terms[0][0] == 1.0:
        return terms[0][1]
    return Weighted(tuple(terms))


def _weight(text: str, spec: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = float("nan")
    if not isfinite(weight):
        raise ValueError(f"reward={spec!r}: weight {text.strip()!r} is no number; write 0.1*{spec.rpartition('*')[2]}")
    return weight


def _checked(spec: str, task: Task) -> Checked:
    name, given = parse_spec(spec)
    if name not in REWARDS:
        return Checked(spec, _imported(spec), task)
    need = NEEDS.get(name, Task)
    if not isinstance(task, need):
        able = ", ".join(sorted(t for t, made in TASKS.items() if isinstance(made(), need))) or "none"
        raise ValueError(f"reward={name!r}: {type(task).__name__} has no such measure; tasks that have it: {able}")
    options = spec_options(REWARDS[name], given, source=f"reward={spec!r}")
    return Checked(name, REWARDS[name](task=task, **options), task, partial=name in PARTIAL)


def _imported(spec: str) -> Reward:
    """The callable at "package.module:function"."""
    module, colon, name = spec.partition(":")
    if not colon:
        raise ValueError(f"reward={spec!r}: unknown; {nearest(spec, REWARDS)}, or write package.module:function")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(f"reward={spec!r}: cannot import {module} ({error}); is its folder on PYTHONPATH?") from None
    if not callable(found):
        raise ValueError(f"reward={spec!r}: {module} has no function {name!r}; name one that takes Samples")
    reward: Reward = found
    return reward


__all__ = ["REWARDS", "Checked", "Reward", "Samples", "Weighted", "make_reward", "malformed"]
