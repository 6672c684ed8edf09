"""Runs of reinforcement learning, killed with SIGKILL and started again until they end, for test_rl_resume.

Part of the program rank_runs.py, which forks for every run. For each scenario: the processes it took, the SHA-256 of
what was learned, the metrics and what lies in the folder.
"""

import dataclasses
import hashlib
import json
import os
import signal
import traceback

import torch

import anyorder.rl.loop as loop
import anyorder.train.checkpoint as checkpoint
from anyorder.core.log import read_records
from anyorder.core.noise import Noise
from anyorder.models import ModelConfig, Transformer
from anyorder.rl.config import RlConfig
from anyorder.rl.make import make_lesson

torch.set_num_threads(1)
ITERATIONS = 6
CONFIG = {
    "task": "scenes:grid=4,num_train=40,num_valid=6,num_test=6",
    "schedule": {"num_steps": 2, "width": 8, "std": 2.0},
    "prompts": 2,
    "group": 4,
    "inner": 2,
    "iterations": ITERATIONS,
    "lr_model": 3e-3,
    "lr_schedule": 3e-2,
    "evaluate_every": 3,
    "evaluate_problems": 4,
    "save_every": 2,
}
MODES = {
    "joint": {"mode": "joint"},
    "alternate": {"mode": "alternate", "model_iterations": 1, "schedule_iterations": 2},
}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def after(number):
    """Die once so many iterations are done, saved or not."""
    original = loop.Run.after

    def dies(self, done):
        original(self, done)
        if done == number:
            die()

    loop.Run.after = dies


def inside_a_line():
    """Die while the third record is written."""
    original, calls = loop.append_record, []

    def dies(path, record):
        calls.append(record)
        if len(calls) == 3:
            with path.open("a") as file:
                file.write(json.dumps(record)[:30])
                file.flush()
                die()
        original(path, record)

    loop.append_record = dies


def inside_a_checkpoint():
    """Die when the second checkpoint's optimizer is half written."""
    original, calls = checkpoint.save_file, []

    def dies(tensors, path, metadata=None):
        calls.append(path)
        original(tensors, path, metadata)
        if len(calls) == 4:
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    checkpoint.save_file = dies


KILLS = {
    "after one iteration": [lambda: after(1)],
    "after a checkpoint": [lambda: after(4)],
    "between checkpoints, twice": [lambda: after(3), lambda: after(5)],
    "inside a line of metrics": [inside_a_line],
    "inside a checkpoint": [inside_a_checkpoint],
}
ONE_OF_EACH = [inside_a_line, lambda: after(3), inside_a_checkpoint, lambda: after(5)]  # of one run


def background(samples):
    """The share of empty cells: never the same in a whole group."""
    return (samples.x[:, 6:] == 0).double().mean(-1)


def learn(config, folder):
    lesson = dataclasses.replace(make_lesson(config), reward=background)
    size = ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=16, max_length=lesson.task.length)
    model = Transformer(size, lesson.task.tokenizer.vocab)
    model.init_weights(Noise.of(3))
    loop.learn(config, model, lesson.task.tokenizer, lesson, folder, quiet=True)


def ended(config, folder, prepare):
    """One process that learns; whether it came to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if prepare is not None:
                prepare()
            learn(config, folder)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if os.waitstatus_to_exitcode(status):
        raise SystemExit("a run failed")
    return True


def result(folder, processes):
    learned = sorted(
        [*folder.glob("model/*.safetensors"), *folder.glob("step_*/*.safetensors"), *folder.glob("*.json")]
    )
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in read_records(folder / loop.METRICS)]
    return {
        "processes": processes,
        "sha256": {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in learned},
        "metrics": records,
        "files": sorted(p.name for p in folder.iterdir()),
    }


def scenarios(slow):
    """The kills of each mode, by name."""
    return dict.fromkeys(MODES, KILLS) if slow else {"alternate": {"one of each": ONE_OF_EACH}}


def results(folder, *, slow):
    """What became of each scenario, and of the same run left alone."""
    out = {}
    for mode, killed in scenarios(slow).items():
        config = RlConfig(**CONFIG, **MODES[mode])
        for name, kills in {"alone": [], **killed}.items():
            place = folder / mode / name.replace(" ", "_")
            number = next(n for n, kill in enumerate([*kills, None], start=1) if ended(config, place, kill))
            out[f"{mode} {name}"] = result(place, number)
    return out
