"""Updates by recorded generations: gradients of model and schedule, added up a sampler step at a time.

One step of some rows is scored, differentiated and dropped before the next: peak memory does not grow with the number
of steps. Rows of a step that read the same, as a group's before its first, share a network pass here as they did when
they were written.
"""

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import take_rows
from anyorder.likelihood.bound import Rows
from anyorder.rl.advantage import Advantages
from anyorder.rl.config import ObjectiveConfig
from anyorder.rl.diagnostics import Diagnostics
from anyorder.rl.estimators import Estimator
from anyorder.rl.likelihood import counted, recorded, rescored
from anyorder.rl.objective import Extent, Objective, row_weights
from anyorder.rl.policy import SchedulePolicy
from anyorder.rl.trajectory import Trajectory
from anyorder.samplers.passes import Passes
from anyorder.samplers.steered import Steered


def objective_of(config: ObjectiveConfig) -> Objective:
    """The model's."""
    return Objective(config.eps_low, config.eps_high, config.level, config.kl, config.beta)


def lengths(kind: str, taken: Trajectory) -> Int[Tensor, " B"]:
    """Scored tokens of each row, over all steps."""
    return torch.stack([counted(kind, taken, t).sum(-1) for t in range(taken.num_steps)]).sum(0)


def parts(taken: Trajectory, rows: Int[Tensor, " N"], *, rows_per_pass: int) -> Iterator[tuple[int, Int[Tensor, " N"]]]:
    """Every step, with some of the rows that took part in it at a time."""
    chosen = torch.zeros(len(taken.final), dtype=torch.bool, device=rows.device).index_fill(0, rows, True)
    for step in range(taken.num_steps):
        live = (taken.live(step) & chosen).nonzero().squeeze(-1)
        for part in torch.split(live, rows_per_pass):
            if len(part):
                yield step, part


def model_gradients(
    model: Denoiser,
    sampler: Steered,
    taken: Trajectory,
    advantages: Advantages,
    *,
    kind: str,
    config: ObjectiveConfig,
    rows_per_pass: int,
    whole: Extent | None = None,
    reference: Denoiser | None = None,
    policy: SchedulePolicy | None = None,
) -> Diagnostics | None:
    """Add the gradients of the model's loss; None if no group has any variance.

    Args:
        policy: whose gradients are added, too, through the knobs it did not explore.
        whole: what the step holds on all ranks; None: these rows are all.
        reference: the model that the KL penalty holds on to, where `config.beta` > 0.
    """
    rows = advantages.live_rows.nonzero().squeeze(-1)
    if not len(rows):
        return None
    objective = objective_of(config)
    length = lengths(kind, taken)
    longest = int(taken.open(0).sum(-1).max())
    extent = whole or Extent(rows=len(rows), tokens=int(length[rows].sum()), max_length=longest)
    weight = torch.zeros_like(advantages.value)
    weight[rows] = row_weights(length[rows], normaliser=config.normaliser, whole=extent)
    ratio = None
    if config.level == "sequence":
        ratio = row_log_ratio(model, sampler, taken, rows, kind=kind, rows_per_pass=rows_per_pass, policy=policy)
    found: Diagnostics | None = None
    for step, at in parts(taken, rows, rows_per_pass=rows_per_pass):
        some = taken.rows(at)
        logp = rescored(kind, sampler, Passes(model), _learning(policy, some, step), step)
        ref_logp = None
        if reference is not None and config.beta > 0:
            with torch.no_grad():
                ref_logp = rescored(kind, sampler, Passes(reference), some, step)
        part = objective.part(
            logp,
            old_logp=recorded(kind, some, step),
            mask=counted(kind, some, step),
            advantage=advantages.value[at],
            weight=weight[at],
            row_log_ratio=None if ratio is None else ratio[at],
            ref_logp=ref_logp,
        )
        part.loss.backward()  # type: ignore[no-untyped-call]
        found = part.diagnostics if found is None else found + part.diagnostics
    return found


def _learning(policy: SchedulePolicy | None, taken: Trajectory, step: int) -> Trajectory:
    """The same rows, the step's knobs as they are learned; as they were, if no policy learns."""
    if policy is None:
        return taken
    setting = taken.setting.clone()
    setting[step] = policy.again(setting[step], taken.feature[step], torch.full_like(taken.row_id, step))
    return dataclasses.replace(taken, setting=setting)


def row_log_ratio(
    model: Denoiser,
    sampler: Steered,
    taken: Trajectory,
    rows: Int[Tensor, " N"],
    *,
    kind: str,
    rows_per_pass: int,
    policy: SchedulePolicy | None = None,
) -> Float[Tensor, " B"]:
    """The mean over each row's tokens of log p - log p_old, over all its steps; a pass of its own, without gradient."""
    change = torch.zeros(len(taken.final), dtype=torch.float64, device=rows.device)
    for step, at in parts(taken, rows, rows_per_pass=rows_per_pass):
        some = taken.rows(at)
        with torch.no_grad():
            now = rescored(kind, sampler, Passes(model), _learning(policy, some, step), step)
            change[at] += (now - recorded(kind, some, step)).sum(-1)
    return change / lengths(kind, taken).clamp(min=1)


def schedule_terms(policy: SchedulePolicy, taken: Trajectory) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Log-density of each step's action under the policy, and its divergence from the schedule made by hand; nats."""
    start = taken.open(0).sum(-1)
    terms = []
    for t in range(taken.num_steps):
        step, left = torch.full_like(start, t), taken.open(t).sum(-1)
        terms.append(policy.log_prob(taken.feature[t], step, taken.action[t], left=left, start=start))
    return torch.stack([logp for logp, _ in terms], -1), torch.stack([away for _, away in terms], -1)


def schedule_gradients(
    policy: SchedulePolicy,
    taken: Trajectory,
    advantages: Advantages,
    *,
    old_logp: Float[Tensor, "B T"],
    config: ObjectiveConfig,
    whole: Extent | None = None,
) -> Diagnostics | None:
    """Add the gradients of the schedule's loss, a mean over rows of means over their steps; None without variance.

    Args:
        old_logp: of the actions, under the policy that drew them.
    """
    rows = advantages.live_rows.nonzero().squeeze(-1)
    if not len(rows):
        return None
    some = taken.rows(rows)
    logp, away = schedule_terms(policy, some)
    live = torch.stack([some.live(t) for t in range(some.num_steps)], -1)
    count = len(rows) if whole is None else whole.rows
    weight = 1.0 / (count * live.sum(-1).clamp(min=1).double())
    objective = Objective(config.eps_low, config.eps_high)
    part = objective.part(logp, old_logp=old_logp[rows], mask=live, advantage=advantages.value[rows], weight=weight)
    penalty = (torch.where(live, away, 0.0) * weight[:, None]).sum()
    (part.loss + config.beta_schedule * penalty).backward()  # type: ignore[no-untyped-call]
    return part.diagnostics


def answer_gradients(
    model: Denoiser,
    estimator: Estimator,
    rows: Rows,
    advantages: Advantages,
    *,
    noise: Noise,
    config: ObjectiveConfig,
    rows_per_pass: int,
    old_logp: Float[Tensor, "B L"] | None,
    whole: Extent | None = None,
    reference: Denoiser | None = None,
) -> Diagnostics | None:
    """As `model_gradients`, from finished answers alone: their log-likelihood is estimated, however they were written.

    Args:
        noise: one name an inner iteration, the same for `old_logp`; `reference` is asked with it, too.
        old_logp: the estimate under the model that wrote them; None: this is that model.
    """
    chosen = advantages.live_rows.nonzero().squeeze(-1)
    if not len(chosen):
        return None
    objective, length = objective_of(config), rows.target.sum(-1)
    extent = whole or Extent(rows=len(chosen), tokens=int(length[chosen].sum()), max_length=int(length.max()))
    weight = torch.zeros_like(advantages.value)
    weight[chosen] = row_weights(length[chosen], normaliser=config.normaliser, whole=extent)
    found: Diagnostics | None = None
    for part in torch.split(chosen, rows_per_pass):
        some: Rows = take_rows(rows, part)
        logp = estimator(model, some, noise=noise).logp
        ref_logp = None
        if reference is not None and config.beta > 0:
            with torch.no_grad():
                ref_logp = estimator(reference, some, noise=noise).logp
        made = objective.part(
            logp,
            old_logp=logp.detach() if old_logp is None else old_logp[part],
            mask=some.target,
            advantage=advantages.value[part],
            weight=weight[part],
            ref_logp=ref_logp,
        )
        made.loss.backward()  # type: ignore[no-untyped-call]
        found = made.diagnostics if found is None else found + made.diagnostics
    return found
