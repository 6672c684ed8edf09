"""Co-GRPO's loop: roll out, reward, update model or schedule or both; killed and resumed at will, bit for bit.

An iteration is a function of its number, the configuration, the problems and the weights before it.
"""

import contextlib
import copy
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anyorder.core import dist
from anyorder.core.config import claim_folder, load_config
from anyorder.core.device import pick_dtype
from anyorder.core.files import locked, sweep_temporaries
from anyorder.core.log import append_record, keep_records
from anyorder.core.noise import Noise
from anyorder.data.tokenizer import Tokenizer
from anyorder.hub.save import save_model
from anyorder.models.transformer import Transformer
from anyorder.rl.config import RlConfig
from anyorder.rl.diagnostics import Diagnostics
from anyorder.rl.estimators import ESTIMATORS
from anyorder.rl.examine import examine, schedules
from anyorder.rl.judge import reason_to_stop
from anyorder.rl.lora import add_lora, merged
from anyorder.rl.make import Lesson, make_policy, make_steered
from anyorder.rl.parts import answers, check_lesson, check_parity, digest
from anyorder.rl.practice import Stage, Taken, share, take
from anyorder.rl.update import answer_gradients, model_gradients, schedule_gradients, schedule_terms
from anyorder.samplers.schedules import write_schedule
from anyorder.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from anyorder.train.loop import settle_dtype, tell_dtype
from anyorder.train.progress import Progress

METRICS, CONFIG, MODEL, SCHEDULE = "metrics.jsonl", "rl.yaml", "model", "schedule.json"


class Actor(nn.Module):
    """Both policies, whose weights are saved together."""

    def __init__(self, model: nn.Module, policy: nn.Module) -> None:
        super().__init__()
        self.model, self.policy = model, policy


def schedule_name(config: RlConfig, price: float) -> str:
    """The file of the mean schedule at a price: schedule.json for the lowest, schedule-p0.25.json for others."""
    return SCHEDULE if price == config.prices[0] else f"schedule-p{price:.6g}.json"


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Nothing of the model learns meanwhile."""
    learning = [p for p in model.parameters() if p.requires_grad]
    try:
        for p in learning:
            p.requires_grad_(False)
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)


def of_all_ranks(found: Diagnostics | None, taken: Taken) -> Diagnostics | None:
    """Figures of an update; None if no rank had anything to learn from."""
    return (found or Diagnostics.none()).of_all_ranks() if taken.whole.rows else None


def learn(
    config: RlConfig, model: Transformer, tokenizer: Tokenizer, lesson: Lesson, folder: Path, *, quiet: bool = False
) -> Path:
    """Learn to the last iteration, resuming from the newest checkpoint in `folder`; returns the learned model's folder.

    Writes rl.yaml, metrics.jsonl, step_*/ and, at the end, model/ and schedule.json, which `--sampler` takes.

    Raises:
        ValueError: the folder holds a run of another configuration, is in use, or its checkpoint was altered; parts
            that do not go together; a reward that fails on right answers.
        RuntimeError: a reward that fails later, a gradient that is not finite, or a trainer that disagrees with the
            sampler.
    """
    dist.start()
    if dist.device().type == "mps":
        raise ValueError("device='mps': rl computes policies in float64, which Apple GPUs have not; use --device cpu")
    kept = load_config(RlConfig, folder / CONFIG).dtype if (folder / CONFIG).exists() else None
    choice = settle_dtype(config.dtype, kept)
    config = config.model_copy(update={"dtype": choice.name})
    run = Run(config, model, tokenizer, lesson, folder)
    with locked(folder) if dist.rank() == 0 else contextlib.nullcontext():
        if dist.rank() == 0:
            sweep_temporaries(folder)
            claim_folder(folder / CONFIG, config)
        dist.barrier()
        first = run.resume()
        tell_dtype(choice, quiet=quiet)
        with Progress(
            config.iterations, first, quiet=quiet or dist.rank() != 0, what="reward {:.3f}", counts="answers"
        ) as progress:
            for iteration in range(first, config.iterations):
                if run.stopped is not None:
                    break
                try:
                    reward = run.iterate(iteration)
                    run.after(iteration + 1)
                except ValueError as error:  # nothing was wrong before the run began
                    raise RuntimeError(
                        f"iteration {iteration + 1}: {error}; then run the same command again"
                    ) from error
                progress.update(iteration + 1, reward, tokens=run.rollouts)
        return run.finish()


class Run:
    """The moving parts of one run."""

    def __init__(
        self, config: RlConfig, model: Transformer, tokenizer: Tokenizer, lesson: Lesson, folder: Path
    ) -> None:
        self.config, self.tokenizer, self.folder = config, tokenizer, folder
        check_lesson(lesson, model, tokenizer)
        share(config.prompts)
        self.noise = Noise.of(config.seed).at("rl")
        self.sampler = make_steered(config)
        model.to(dist.device())
        model.dtype = pick_dtype(config.dtype, dist.device()).dtype
        self.reference = copy.deepcopy(model).requires_grad_(False).eval() if config.objective.beta > 0 else None
        policy = make_policy(config, model, lesson.task)
        model.requires_grad_(True)  # a loaded one is frozen
        if config.lora:
            add_lora(model, config.lora, noise=self.noise.at("lora"))
        self.start = digest(model)
        self.actor, self.model, self.policy = Actor(model.eval(), policy).to(dist.device()), model, policy
        self.parts = {"model": model, "schedule": policy}
        self.stage = Stage(config, lesson, model, self.sampler, policy, self.noise)
        groups = [
            {"params": [p for p in model.parameters() if p.requires_grad], "lr": config.lr_model},
            {"params": list(policy.parameters()), "lr": config.lr_schedule},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        self.rollouts, self.seconds, self._since = 0, 0.0, time.monotonic()
        self.stopped: str | None = None

    def resume(self) -> int:
        """The iteration to go on from; records written after it are dropped, so that none appears twice.

        Raises:
            ValueError: the run began with another model, or its checkpoint was altered.
        """
        saved, iteration = checkpoints(self.folder), 0
        if saved:
            state = load_checkpoint(saved[-1], model=self.actor, optimizer=self.optimizer, ema=None)
            iteration, self.rollouts, self.seconds = state["step"], state["rollouts"], state["seconds"]
            self.stopped = state["stopped"]
            if state.get("start", self.start) != self.start:
                raise ValueError(f"{self.folder}: began with another model; name that RUN, or use another --out")
        if dist.rank() == 0:
            keep_records(self.folder / METRICS, lambda record: record["iteration"] <= iteration)
        self._since = time.monotonic()
        return iteration

    def iterate(self, iteration: int) -> float:
        """Iteration number `iteration` (from 0); its mean reward."""
        phase, noise = self.config.phase(iteration), self.noise.at("iteration").at(iteration)
        for group, rate in zip(self.optimizer.param_groups, (self.config.lr_model, self.config.lr_schedule)):
            group["lr"] = rate * self.config.pace(iteration)
        taken = take(self.stage, iteration, phase, counted=self._counts)
        self.rollouts += self.config.prompts * self.config.group
        old_schedule = old_answers = None
        with torch.no_grad():
            if "schedule" in phase:
                old_schedule = schedule_terms(self.policy, taken.trajectory)[0]
            if self._estimates and "model" in phase and self.config.inner > 1:
                old_answers = [self._estimate(taken, noise, inner) for inner in range(self.config.inner)]
        found: dict[str, Diagnostics | None] = {}
        norm = 0.0
        updates = {"model": self.config.inner, "schedule": self.config.inner_schedule or self.config.inner}
        for inner in range(max(updates[part] for part in phase)):
            parts = frozenset(part for part in phase if inner < updates[part])
            self.optimizer.zero_grad()
            through = "schedule" in parts and self.config.schedule.explore == "ratio"
            if "model" in parts or through:
                old = None if old_answers is None else old_answers[inner]
                with contextlib.nullcontext() if "model" in parts else frozen(self.model):
                    mine = self._model_gradients(taken, noise.at("estimate").at(inner), old, through=through)
                if inner == 0 and not self._estimates:
                    check_parity(taken.trajectory, mine, dtype=self.model.dtype)
                found["model"] = of_all_ranks(mine, taken)
            if "schedule" in parts:
                assert old_schedule is not None
                mine = schedule_gradients(
                    self.policy,
                    taken.trajectory,
                    taken.advantages,
                    old_logp=old_schedule,
                    config=self.config.objective,
                    whole=taken.whole,
                )
                found["schedule"] = of_all_ranks(mine, taken)
            norm = self._step(parts) if taken.whole.rows else 0.0
        self.stopped = reason_to_stop(self.config.stop, taken.judgement, found.get("model"), None)
        self._note(iteration + 1, phase, taken, found, norm)
        return taken.judgement.reward

    def after(self, done: int) -> None:
        """What is due once `done` iterations are done: an evaluation, a checkpoint."""
        last = done == self.config.iterations or self.stopped is not None
        if (done % self.config.evaluate_every == 0 or last) and dist.rank() == 0:
            found = examine(self.stage)
            self.stopped = self.stopped or reason_to_stop(self.config.stop, None, None, found)
            record = {"iteration": done, "kind": "evaluation", "rollouts": self.rollouts, **dataclasses.asdict(found)}
            append_record(self.folder / METRICS, record | {"stopped": self.stopped})
            last = last or self.stopped is not None
        if (done % self.config.save_every == 0 or last) and dist.rank() == 0:
            self.seconds, self._since = self.seconds + time.monotonic() - self._since, time.monotonic()
            state = {"rollouts": self.rollouts, "seconds": self.seconds, "stopped": self.stopped, "start": self.start}
            save_checkpoint(
                self.folder,
                step=done,
                model=self.actor,
                optimizer=self.optimizer,
                ema=None,
                state=state,
                keep=self.config.keep,
            )
        if dist.world() > 1:  # the first rank alone knows the evaluation
            held = dist.all_sum(torch.tensor(float(self.stopped is not None)))
            self.stopped = self.stopped or ("another rank's evaluation" if float(held) else None)

    def finish(self) -> Path:
        """Publish the learned model, and the mean schedule at every price."""
        place = self.folder / MODEL
        if dist.rank() == 0:
            save_model(place, merged(self.model) if self.config.lora else self.model, self.tokenizer)
            for price, table in schedules(self.stage).items():
                sampler = dataclasses.replace(self.sampler, steering=table)
                write_schedule(self.folder / schedule_name(self.config, price), sampler)
        dist.barrier()
        return place

    @property
    def _estimates(self) -> bool:
        """Whether the model's likelihood is estimated from finished answers."""
        return self.config.likelihood in ESTIMATORS

    @property
    def _counts(self) -> str:
        """The likelihood whose tokens are counted; an estimator counts those of the answer, each once."""
        return "fill" if self._estimates else self.config.likelihood

    def _model_gradients(
        self, taken: Taken, noise: Noise, old: Float[Tensor, "B L"] | None, *, through: bool
    ) -> Diagnostics | None:
        c = self.config
        if self._estimates:
            return answer_gradients(
                self.model,
                ESTIMATORS[c.likelihood],
                answers(taken.trajectory),
                taken.advantages,
                noise=noise,
                config=c.objective,
                rows_per_pass=c.rows_per_pass,
                old_logp=old,
                whole=taken.whole,
                reference=self.reference,
            )
        return model_gradients(
            self.model,
            self.sampler,
            taken.trajectory,
            taken.advantages,
            kind=c.likelihood,
            config=c.objective,
            rows_per_pass=c.rows_per_pass,
            whole=taken.whole,
            reference=self.reference,
            policy=self.policy if through else None,
        )

    def _estimate(self, taken: Taken, noise: Noise, inner: int) -> Float[Tensor, "B L"]:
        """The estimate under the model that drew, with the noise of that inner iteration."""
        estimator = ESTIMATORS[self.config.likelihood]
        return estimator(self.model, answers(taken.trajectory), noise=noise.at("estimate").at(inner)).logp

    def _step(self, phase: frozenset[str]) -> float:
        """Sum gradients over ranks, clip, step; the norm before clipping. A rank may have had nothing to add."""
        learning = [p for name in sorted(phase) for p in self.parts[name].parameters() if p.requires_grad]
        for p in learning if dist.world() > 1 else []:
            p.grad = dist.all_sum(torch.zeros_like(p) if p.grad is None else p.grad)
        norm = float(nn.utils.clip_grad_norm_(self.actor.parameters(), self.config.clip))
        if not norm < float("inf"):
            raise RuntimeError(f"the gradient's norm became {norm}; lower lr_model or lr_schedule")
        self.optimizer.step()
        return norm

    def _note(
        self, done: int, phase: frozenset[str], taken: Taken, found: dict[str, Diagnostics | None], norm: float
    ) -> None:
        if dist.rank() != 0:
            return
        record: dict[str, Any] = {
            "iteration": done,
            "kind": "iteration",
            "phase": "+".join(sorted(phase)),
            "rollouts": self.rollouts,
            **dataclasses.asdict(taken.judgement),
            "grad_norm": norm,
            "knobs": taken.knobs.rows,
            "seconds": round(self.seconds + time.monotonic() - self._since, 3),
            "stopped": self.stopped,
        }
        for name, diagnostics in found.items():
            record |= {name: None if diagnostics is None else diagnostics.means()}
        append_record(self.folder / METRICS, record)
