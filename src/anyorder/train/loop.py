"""The one training loop: any process, any source of rows, killed and resumed at will with bit-identical weights.

A step is a function of its number, the configuration and the weights before it: data order and noise are values.
"""

import contextlib
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anyorder.core import dist
from anyorder.core.config import claim_folder, load_config
from anyorder.core.device import Choice, DtypeName, canvas_device, cpp_compiler, pick_dtype, warn_if_slow
from anyorder.core.files import locked, read_object, sweep_temporaries, write_atomic
from anyorder.core.log import append_record, keep_records
from anyorder.core.noise import Noise
from anyorder.core.types import Batch, moved
from anyorder.data.loader import Loader, in_order
from anyorder.data.rows import RowSource
from anyorder.data.tokenizer import Tokenizer
from anyorder.hub.save import save_model
from anyorder.models.flops import training_flops
from anyorder.models.network import Network, trainable
from anyorder.processes.cross_entropy import SLICED, fused_kernels
from anyorder.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from anyorder.train.config import RunConfig
from anyorder.train.ema import Ema
from anyorder.train.optim import lr_at, make_optimizer
from anyorder.train.progress import Progress
from anyorder.train.step import StepResult, train_step
from anyorder.train.watch import validate

METRICS, CONFIG, DATA, MODEL = "metrics.jsonl", "config.yaml", "data.json", "model"


@dataclass(frozen=True)
class RunData:
    """What a run trains and validates on."""

    train: RowSource
    valid: RowSource
    tokenizer: Tokenizer

    def fingerprint(self) -> dict[str, Any]:
        """What tells these rows from others: the tokenizer, how many rows, and a hash of some of each split."""
        prints: dict[str, Any] = {"tokenizer_sha256": self.tokenizer.hash}
        for name, source in (("train", self.train), ("valid", self.valid)):
            some = torch.linspace(0, source.num_rows - 1, min(64, source.num_rows)).long()
            digest = hashlib.sha256(source.take(some).tokens.numpy().tobytes()).hexdigest()
            prints[name] = {"rows": source.num_rows, "length": source.length, "sha256_of_some": digest}
        return prints


Measure = Callable[[Network], dict[str, float]]


def train(
    config: RunConfig, data: RunData, folder: Path, *, quiet: bool = False, measure: Measure | None = None
) -> Path:
    """Train to the last step, resuming from the newest checkpoint in `folder`; returns the finished model's folder.

    Writes config.yaml, data.json, metrics.jsonl, step_*/ and, at the end, model/ (see `hub.save_model`).

    Args:
        measure: more figures of the model, added to each validation's record.
    Raises:
        ValueError: the folder holds a run of another configuration or data, is in use, or its checkpoint was altered.
        OSError: the disk is full; the newest whole checkpoint is still there.
        RuntimeError: the loss is no longer finite.
    """
    dist.start()
    kept = load_config(RunConfig, folder / CONFIG).dtype if (folder / CONFIG).exists() else None
    choice = settle_dtype(config.dtype, kept)
    config = config.model_copy(update={"dtype": choice.name})
    with locked(folder) if dist.rank() == 0 else contextlib.nullcontext():
        if dist.rank() == 0:
            sweep_temporaries(folder)
        run = Run(config, data, folder, measure=measure)  # first: what it refuses must not claim the folder
        if dist.rank() == 0:
            _claim(folder, config, data)
        dist.barrier()
        first = run.resume()
        tell_dtype(choice, quiet=quiet)
        with Progress(config.num_steps, first, quiet=quiet or dist.rank() != 0) as progress:
            for step in range(first, config.num_steps):
                result = run.step(step)
                run.after(step + 1, result)
                progress.update(step + 1, result.nats / max(1, result.num_tokens), tokens=run.tokens)
        return run.finish()


def settle_dtype(asked: DtypeName, kept: DtypeName | None) -> Choice:
    """The dtype of a run: what it is asked for, with "auto" what it began with or what this machine is fast in.

    A run keeps its dtype on every machine it goes on on, so that it stays one computation.

    Args:
        kept: of the run's configuration, where it has begun.
    """
    if asked == "auto" and kept is not None and kept != "auto":
        return Choice(kept, "as the run began")
    choice = pick_dtype(asked, dist.device())
    if asked == "auto" and dist.world() > 1:  # ranks on unlike machines compute alike
        agreed = int(dist.all_sum(torch.tensor(int(choice.name == "bfloat16")))) in (0, dist.world())
        return choice if agreed else Choice("float32", "the ranks do not all compute faster in bfloat16")
    return choice


def tell_dtype(choice: Choice, *, quiet: bool) -> None:
    """Say on stderr what a run computes in, and warn where that is slow."""
    if dist.rank() != 0:
        return
    slow = warn_if_slow(choice.name, dist.device())
    if slow is not None:
        print(f"anyorder: warning: {slow}", file=sys.stderr, flush=True)
    elif not quiet:
        print(f"  computing in {choice.name} on {dist.device()}: {choice.reason}", file=sys.stderr, flush=True)


class Run:
    """The moving parts of one run: model, optimiser, average, loader and counters."""

    def __init__(self, config: RunConfig, data: RunData, folder: Path, *, measure: Measure | None = None) -> None:
        self.config, self.data, self.folder, self.measure = config, data, folder, measure
        self.noise, self.device = Noise.of(config.seed), dist.device()
        self.dtype = pick_dtype(config.dtype, self.device).dtype
        vocab = data.tokenizer.vocab
        shape = config.resolved_model(length=data.train.length)
        self.model = trainable(shape, vocab, dtype=self.dtype)
        self.model.init_weights(self.noise.at("init"))
        self.model.to(self.device)
        if config.compile:
            if self.device.type == "cpu" and cpp_compiler() is None:
                raise ValueError(
                    "compile=True: no C++ compiler here (g++, clang++, $CXX); install one, or leave it out"
                )
            self.model.compile()
        kernels = fused_kernels() if config.compile else SLICED
        self.process = config.process.build(group=config.batch.rows, kernels=kernels)
        self.optimizer = make_optimizer(self.model, config.optim)
        self.ema = Ema(self.model, decay=config.optim.ema) if config.optim.ema else None
        random_length = 0.0 if config.task else config.data.random_length
        self.loader = Loader(
            data.train, rows=config.batch.rows, noise=self.noise.at("data"), random_length=random_length
        )
        self.tokens, self.seconds = 0, 0.0
        self._since, self._nats, self._counted = time.monotonic(), 0.0, 0

    def resume(self) -> int:
        """The step to go on from; metrics written after it are dropped, so that none appears twice."""
        saved = checkpoints(self.folder)
        step = 0
        if saved:
            state = load_checkpoint(saved[-1], model=self.model, optimizer=self.optimizer, ema=self.ema)
            step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
            self._nats, self._counted = state["nats_since_log"], state["tokens_since_log"]
        if dist.rank() == 0:
            keep_records(self.folder / METRICS, lambda record: record["step"] <= step)
        self._since = time.monotonic()
        return step

    def step(self, step: int) -> StepResult:
        """Optimiser step number `step` (from 0)."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr_at(step, self.config.num_steps, self.config.optim)
        result = train_step(
            self.model,
            self.model,
            process=self.process,
            micro_batches=self._micro_batches(step),
            noise=self.noise.at("corrupt"),
            optimizer=self.optimizer,
            clip=self.config.optim.clip,
        )
        if self.ema is not None:
            self.ema.update(self.model)
        self.tokens += result.num_tokens
        self._nats, self._counted = self._nats + result.nats, self._counted + result.num_tokens
        return result

    def after(self, done: int, result: StepResult) -> None:
        """What is due once `done` steps are done: a metrics line, validation, a checkpoint."""
        last = done == self.config.num_steps
        if done % self.config.log_every == 0 or last:
            self._log(done, result)
        if done % self.config.evaluate.every == 0 or last:
            self._validate(done)
        if (done % self.config.save_every == 0 or last) and dist.rank() == 0:
            self.seconds, self._since = self._clock(), time.monotonic()
            save_checkpoint(
                self.folder,
                step=done,
                model=self.model,
                optimizer=self.optimizer,
                ema=self.ema,
                state={
                    "tokens": self.tokens,
                    "seconds": self.seconds,
                    "nats_since_log": self._nats,
                    "tokens_since_log": self._counted,
                },
                keep=self.config.keep,
            )

    def finish(self) -> Path:
        """Publish the (averaged) weights as a model folder."""
        place = self.folder / MODEL
        if dist.rank() == 0:
            if self.ema is None:
                save_model(place, self.model, self.data.tokenizer)
            else:
                with self.ema.swapped_in(self.model):
                    save_model(place, self.model, self.data.tokenizer)
        dist.barrier()
        return place

    def _micro_batches(self, step: int) -> list[Batch]:
        num = self.config.batch.num_micro
        parts = (
            self.loader.batch_at(step, rank=dist.rank(), world=dist.world(), micro=i, num_micro=num) for i in range(num)
        )
        return [moved(part, canvas_device(self.device)) for part in parts]

    def _clock(self) -> float:
        """Seconds of training so far, over all restarts."""
        return self.seconds + time.monotonic() - self._since

    def _log(self, done: int, result: StepResult) -> None:
        elapsed = self._clock()
        record: dict[str, Any] = {
            "step": done,
            "kind": "train",
            "tokens": self.tokens,
            "nats_per_token": self._nats / max(1, self._counted),
            "lr": self.optimizer.param_groups[0]["lr"],
            "grad_norm": result.grad_norm,
            "seconds": round(elapsed, 3),
            "tokens_per_second": round(self.tokens / elapsed, 1),
            "flops": self._flops(done),
        }
        self._nats, self._counted = 0.0, 0
        if dist.rank() == 0:
            append_record(self.folder / METRICS, record)

    def _flops(self, done: int) -> int:
        """Of so many steps."""
        rows, length = self.config.batch.rows, self.data.train.length
        kind, vocab_size = self.config.process.kind, self.model.vocab.size
        share = 0.5 if kind == "mdm" else 1.0  # an MDM asks for half the logits on average
        asked = round(share * rows * length)
        step = training_flops(self.model.config, rows=rows, length=length, head_positions=asked, vocab_size=vocab_size)
        if kind in ("ilm", "it"):  # an insertion model reads half the tokens on average, and no padding
            return step * self.tokens // (2 * rows * length)
        return step * done

    def _validate(self, done: int) -> None:
        if dist.rank() != 0:
            return
        eager = torch.compiler.set_stance("force_eager")  # validation has shapes of its own, not worth compiling for
        with eager, self.ema.swapped_in(self.model) if self.ema is not None else contextlib.nullcontext():
            value = validate(
                self.model,
                [
                    moved(b, canvas_device(self.device))
                    for b in in_order(self.data.valid, rows=16, limit=self.config.evaluate.rows)
                ],
                kind=self.config.process.kind,
                draws=self.config.evaluate.draws,
                noise=self.noise.at("validate"),
                bytes_per_token=self.data.tokenizer.bytes_per_token,
            )
            more = {} if self.measure is None else self.measure(self.model)
        record = {"step": done, "kind": "valid", "tokens": self.tokens, **dataclasses.asdict(value), **more}
        append_record(self.folder / METRICS, record | {"seconds": round(self._clock(), 3)})


def _claim(folder: Path, config: RunConfig, data: RunData) -> None:
    """Make the folder this configuration's and this data's, or refuse: a folder belongs to one of each."""
    path = folder / CONFIG
    if not path.exists():
        write_atomic(folder / DATA, json.dumps(data.fingerprint(), indent=1) + "\n")
    claim_folder(path, config)
    remedy = "restore it, or use another --out"
    if read_object(folder / DATA, way_out=remedy) != data.fingerprint():
        raise ValueError(
            f"{folder}: was begun on other data (an edited corpus, or the library of another Python); "
            "use another --out, or delete the folder"
        )
