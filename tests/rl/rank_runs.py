"""Runs of reinforcement learning in one process and in two that share the prompts (gloo), for test_ranks.

A program of its own that forks for every process. Prints one JSON object: of each pair of runs the exit statuses, the
metrics, the files, and the largest difference between their weights; and what killed_runs.py made. "slow" as second
word: all scenarios.
"""

import dataclasses
import importlib
import json
import os
import socket
import sys
import traceback
from pathlib import Path

import killed_runs
import torch
from safetensors.torch import load_file

import anyorder.rl.loop as loop
from anyorder.core.log import read_records
from anyorder.rl.config import RlConfig

torch.set_num_threads(1)
SMALL = {**killed_runs.CONFIG, "prompts": 3, "iterations": 3, "evaluate_every": 2, "save_every": 2}
SCENARIOS = {
    "recorded steps": {"mode": "joint", "likelihood": "augmented", "objective": {"beta": 0.05, "normaliser": "dapo"}},
    "finished answers": {
        "mode": "model_only",
        "likelihood": "elbo",
        "objective": {"beta": 0.05, "normaliser": "dr_grpo"},
        "group": 3,
    },
    "prices": {"mode": "joint", "step_price_max": 0.5, "evaluate_prices": 2, "sampler": {"may_finish": True}},
}


def some_alike(samples):
    """As killed_runs has it, but nothing for images of every other first word: groups, and ranks, without variance."""
    return killed_runs.ordinary(samples) * (samples.x[:, 0] % 2)


def too_good():
    """Evaluations find more reward on training problems than on held-out ones."""
    original = loop.examine
    loop.examine = lambda stage: dataclasses.replace(original(stage), practice=9.0)


def ranks(number, config, folder, prepare=None):
    """The exit statuses of so many processes that learn together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(number):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if number > 1:
                    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                    os.environ.update(where, RANK=str(rank), WORLD_SIZE=str(number))
                if prepare is not None:
                    prepare()
                killed_runs.learn(config, folder)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def metrics(folder):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in read_records(folder / loop.METRICS)]


def apart(one, other):
    """The largest difference of any weight of the last checkpoints."""
    last = [load_file(sorted(folder.glob("step_*"))[-1] / "model.safetensors") for folder in (one, other)]
    return max(float((last[0][name] - last[1][name]).abs().max()) for name in last[0])


def pair(one, other, statuses):
    """What is known of two runs."""
    return {
        "statuses": statuses,
        "metrics": [metrics(one), metrics(other)],
        "files": [sorted(p.name for p in folder.iterdir()) for folder in (one, other)],
        "apart": apart(one, other),
    }


def main(folder, slow):
    importlib.import_module("torch._dynamo")  # the first optimiser step would load it, in every process anew
    out = killed_runs.results(folder / "one", slow=slow)
    killed_runs.ordinary, killed_runs.background = killed_runs.background, some_alike
    for name in list(SCENARIOS) if slow else ["recorded steps"]:
        config, one, two = RlConfig(**SMALL | SCENARIOS[name]), folder / name / "1", folder / name / "2"
        statuses = [ranks(1, config, one), ranks(2, config, two)]
        out[name] = pair(one, two, statuses)
    config, killed = RlConfig(**SMALL | SCENARIOS["recorded steps"]), folder / "killed"
    statuses = [ranks(2, config, killed, lambda: killed_runs.after(2)), ranks(2, config, killed)]
    out["killed"] = pair(folder / "recorded steps" / "2", killed, statuses)
    config, stopped = RlConfig(**SMALL | {"stop": {"max_gap": 1.0}, "evaluate_every": 1}), folder / "stopped"
    out["stopped"] = {"statuses": [ranks(2, config, stopped, too_good)], "metrics": metrics(stopped)}
    print(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), slow="slow" in sys.argv)
