"""Runs killed at many moments, and runs of several ranks, for the tests of resuming; "slow" as second word: all.

A program of its own: it loads the libraries once and forks, before it has computed anything, for every run. Prints one
JSON object: for each scenario the processes it took, the weights' SHA-256, the metrics and what lies in the folder.
"""

import hashlib
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch
from safetensors.torch import save
from toy import config, data

import anyorder.core.files
import anyorder.hub.save
import anyorder.train.checkpoint
import anyorder.train.loop
from anyorder.core.log import read_records
from anyorder.train.loop import Run, train

torch.set_num_threads(1)
TIMES = ("seconds", "tokens_per_second")  # of metrics; all else must be equal


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def before_call(module, name, number, act):
    """Let `act` happen instead of call `number` of a function; it gets the arguments and need not return."""
    original, calls = getattr(module, name), []

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == number:
            act(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(module, name, counted)


def half_a_file(tensors, path, metadata=None):
    whole = save(tensors, metadata)
    Path(path).write_bytes(whole[: len(whole) // 2])
    die()


def half_a_line(path, record):
    with path.open("a") as f:
        f.write(json.dumps(record)[:25])
        f.flush()
        die()


def half_a_deletion(path, *args, **kwargs):
    (Path(path) / "model.safetensors").unlink()
    die()


def next_deletion_stops(path):
    before_call(FILES.shutil, "rmtree", 1, half_a_deletion)


def after_step(number):
    def kill(*args):
        original(*args)
        if args[1] == number:
            die()

    original = Run.after
    Run.after = kill


def killed(*args, **kwargs):
    die()


CHECKPOINT, SAVE, FILES, LOOP = anyorder.train.checkpoint, anyorder.hub.save, anyorder.core.files, anyorder.train.loop
KILLS = {
    **{f"before step {n}": [lambda n=n: before_call(Run, "step", n, killed)] for n in (1, 5, 12)},
    **{f"after step {n}": [lambda n=n: after_step(n)] for n in (2, 3, 11, 12)},
    **{  # three files a checkpoint: model, optimizer, average
        f"inside file {n} of the checkpoints": [lambda n=n: before_call(CHECKPOINT, "save_file", n, half_a_file)]
        for n in (1, 5, 12)
    },
    "before a checkpoint gets its name": [lambda: before_call(FILES, "_swap_in", 2, killed)],
    "before an old checkpoint is deleted": [lambda: before_call(CHECKPOINT, "remove_folder", 1, killed)],
    "while an old checkpoint is deleted": [lambda: before_call(FILES.shutil, "rmtree", 7, half_a_deletion)],
    "inside a line of metrics": [lambda: before_call(LOOP, "append_record", 5, half_a_line)],
    "while publishing": [lambda: before_call(SAVE, "save_file", 1, half_a_file)],
    "before publishing, twice": [lambda: before_call(Run, "finish", 1, killed)] * 2,
    "at every third step": [lambda: before_call(Run, "step", 4, killed)] * 4,
    "while resuming": [lambda: after_step(7), lambda: before_call(LOOP, "keep_records", 1, killed)],
}
ONE_OF_EACH = [  # of one run, which goes on a little further every time
    lambda: before_call(LOOP, "append_record", 2, half_a_line),
    lambda: before_call(CHECKPOINT, "save_file", 5, half_a_file),
    lambda: before_call(LOOP, "keep_records", 1, killed),
    lambda: before_call(Run, "step", 4, killed),
    lambda: before_call(FILES, "_swap_in", 1, killed),
    lambda: before_call(CHECKPOINT, "remove_folder", 1, next_deletion_stops),
    lambda: before_call(SAVE, "save_file", 1, half_a_file),
]


def process(kind, folder, prepare=None, **settings):
    """One training process, forked; whether it came to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if prepare is not None:
                prepare()
            train(config(kind, **settings), data(), folder, quiet=True)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def ended(child):
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("a run failed")
    return True


def result(folder, processes):
    published = folder / "model" / "model.safetensors"
    records = [{k: v for k, v in r.items() if k not in TIMES} for r in read_records(folder / "metrics.jsonl")]
    return {
        "processes": processes,
        "sha256": hashlib.sha256(published.read_bytes()).hexdigest(),
        "metrics": records,
        "files": sorted(p.name for p in folder.iterdir()),
    }


def interrupted(kind, folder, kills):
    """The same run again and again, killed by each of `kills` in turn, then left alone until it ends."""
    for number, kill in enumerate([*kills, None], start=1):
        if ended(process(kind, folder, kill)):
            return result(folder, number)
    raise SystemExit("the last run was killed")


def ranks(kind, folder, world, num_micro):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]

    def join(rank):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))

    batch = {"rows": 16, "num_micro": num_micro}
    children = [process(kind, folder, lambda r=r: join(r), batch=batch) for r in range(world)]
    done = [ended(child) for child in children]
    assert all(done)
    return result(folder, world)


def scenarios(slow):
    """For each kind of process the kills by name, and the worlds: ranks and micro-batches."""
    if not slow:
        return {"mdm": ({"one of each": ONE_OF_EACH}, [(1, 1), (2, 2)])}
    worlds = [(1, 1), (1, 4), (2, 1), (2, 2)]
    return {"mdm": (KILLS, worlds), "arm": ({"after step 11": KILLS["after step 11"]}, worlds)}


def main(folder, slow):
    importlib.import_module("torch._dynamo")  # the first optimiser step would load it, in every process anew
    out = {}
    for kind, (kills, worlds) in scenarios(slow).items():
        for name, moments in {"alone": [], **kills}.items():
            out[f"{kind} {name}"] = interrupted(kind, folder / kind / name.replace(" ", "_"), moments)
        for world, micro in worlds:
            out[f"{kind} {world} ranks {micro} micro"] = ranks(kind, folder / kind / f"{world}x{micro}", world, micro)
    print(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]), slow="slow" in sys.argv)
