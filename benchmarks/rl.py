"""Reinforcement learning: roll-outs and updates a second, and the memory of an update, by the number of steps.

    python benchmarks/rl.py [--quick]

A masked model with random weights answers 144 prompts of the task `scenes` (guided, so two passes a step) and is
updated once by the recorded steps. Each number of steps is a process of its own. Memory is what the process grows by at
its most during the update, above what it held before; gradients are added up a step at a time, so it should be the same
for all numbers of steps.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from anyorder.core.noise import Noise
from anyorder.models import ModelConfig, Transformer
from anyorder.rl.advantage import group_advantages
from anyorder.rl.config import ObjectiveConfig, RlConfig
from anyorder.rl.make import asked, make_lesson, make_policy, make_steered
from anyorder.rl.rollout import roll_out
from anyorder.rl.update import model_gradients
from common import Row, at_most, median, report

NOISE = Noise.of(0)
MODEL = ModelConfig(num_layers=4, num_heads=4, d_model=80, d_ff=216, max_length=64)
STEPS = (2, 4, 8, 16)
FLAT = 1.2  # most memory, over all numbers of steps, over that with four


def measure(num_steps: int, *, rows: int, repeat: int) -> dict[str, float]:
    """In this process: seconds of a roll-out and of an update, MiB an update grows by."""
    config = RlConfig(schedule={"num_steps": num_steps}, prompts=rows // 12, group=12)  # type: ignore[arg-type]
    lesson = make_lesson(config)
    model = Transformer(MODEL, lesson.task.tokenizer.vocab)
    model.init_weights(NOISE)
    sampler, policy = make_steered(config), make_policy(config, model, lesson.task)
    _, canvas = asked(lesson.train, torch.arange(config.prompts), group=config.group)
    rolling, updating, grown = [], [], 0.0
    for _ in range(1 + repeat):
        began = time.perf_counter()
        taken = roll_out(model, sampler, canvas, noise=NOISE, policy=policy, explore=True)
        rolling.append(time.perf_counter() - began)
        reward = (taken.final == 0).double().mean(-1)
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        model_gradients(
            model,
            sampler,
            taken,
            group_advantages(reward, size=config.group),
            kind="augmented",
            config=ObjectiveConfig(),
            rows_per_pass=config.rows_per_pass,
        )
        updating.append(time.perf_counter() - began)
        grown = max(grown, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024)
    return {"rolling": median(rolling[1:]), "updating": median(updating[1:]), "grown": grown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="24 rows, once")
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)  # a process of its own
    found = parser.parse_args()
    rows, repeat = (24, 1) if found.quick else (144, 3)
    if found.steps:
        print(json.dumps(measure(found.steps, rows=rows, repeat=repeat)))
        return
    table: list[Row] = []
    for num_steps in STEPS:
        command = [sys.executable, __file__, "--steps", str(num_steps), *(["--quick"] if found.quick else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        one = json.loads(done.stdout.splitlines()[-1])
        table.append(
            {
                "steps": num_steps,
                "roll-outs a second": rows / one["rolling"],
                "updates a second": 1 / one["updating"],
                "answers updated a second": rows / one["updating"],
                "memory of an update, MiB": one["grown"],
            }
        )
    grown = [float(row["memory of an update, MiB"]) for row in table]
    four = max(grown[STEPS.index(4)], 1.0)  # with two, the rows of a group share the first step, which is the largest
    checks = {"memory of an update, most over that with 4 steps": at_most(max(grown) / four, FLAT)}
    report("rl", table, checks=checks, setup={"rows": rows, "parameters": sum(_sizes()), "repeat": repeat})


def _sizes() -> list[int]:
    vocab = make_lesson(RlConfig()).task.tokenizer.vocab
    return [p.numel() for p in Transformer(MODEL, vocab).parameters()]


if __name__ == "__main__":
    main()
