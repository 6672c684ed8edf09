"""A run of reinforcement learning as a value: everything that decides its weights, and nothing else."""

from typing import Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, model_validator

from anyorder.core.device import DtypeName

MODES = ("model_only", "schedule_only", "joint", "alternate")


class ScheduleConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The schedule the sampler begins with, and what may be learned beside it."""

    hand: str = "adanat"  # a name of samplers.schedules.HANDS, or a schedule's .json file
    num_steps: PositiveInt = 8  # of the sampler
    ranking: float = Field(1.0, ge=0.0)  # times its rank temperatures
    guidance: float = Field(1.0, ge=0.0)  # times its guidance
    body: Literal["table", "figures", "adaptive"] = "figures"  # what a policy sees: the step, canvas figures, states
    width: PositiveInt = 64  # of "figures"
    std: PositiveFloat = 0.3  # of exploration, before squashing
    explore: Literal["all", "ratio", "ratio-only"] = "all"  # "ratio": the others learn through the exact likelihood
    counts: bool = False  # draw how many tokens a step writes (rl.counts) instead of the share that stays masked
    concentration: PositiveFloat = 20.0  # of these counts


class SamplerConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The settings of `samplers.steered.Steered`."""

    order: Literal["draw_first", "choose_first"] = "draw_first"
    score: str = "prob"  # of choose_first
    tempered: bool = False
    without: Literal["masked", "absent"] = "masked"
    may_wait: bool = False
    may_finish: bool = False


class ObjectiveConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How rewards become gradients; see rl.objective, rl.advantage."""

    eps_low: float = Field(0.2, ge=0.0, lt=1.0)  # how far below 1 ratios are followed
    eps_high: float = Field(0.2, ge=0.0)  # and above 1
    level: Literal["token", "sequence"] = "token"
    kl: Literal["k1", "k2", "k3"] = "k3"
    beta: float = Field(0.0, ge=0.0)  # of the model's KL penalty
    beta_schedule: float = Field(0.0, ge=0.0)  # of the schedule policy's
    normaliser: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = "grpo"
    scale: Literal["group", "batch", "none"] = "group"
    std: Literal["sample", "population"] = "sample"
    wd1: bool = False  # weights of both signs instead of ratios


class StopConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """When a run ends before its last iteration; None: never for this reason."""

    max_kl: PositiveFloat | None = None  # nats a token, of one iteration's update
    max_ratio: PositiveFloat | None = None  # mean ratio of new to old, or its inverse
    min_entropy: PositiveFloat | None = None  # nats a written token
    min_distinct: PositiveFloat | None = None  # share of different rows within groups
    max_gap: PositiveFloat | None = None  # reward of training problems over that of held-out ones, both evaluated


class RlConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """One run of `anyorder rl`; the model it begins with comes beside it."""

    seed: int = 0
    dtype: DtypeName = "auto"  # of activations (auto: what this machine is fast in); weights and optimiser are float32
    task: str = "scenes"  # whose training problems are answered, and held-out ones evaluated
    reward: str = "correct"  # rl.rewards: a name, an import path, or a sum of these
    reward_scale: bool = False  # of a sum, bring each term to mean 0 and deviation 1 within groups (GDPO)
    reward_shared: bool = False  # equal answers of a group share what one of them is worth
    step_price: float = Field(0.0, ge=0.0)  # taken off the reward for each network pass, over the number of steps
    step_price_max: PositiveFloat | None = None  # a group's price is drawn between both, and the policy sees it
    evaluate_prices: int = Field(5, ge=2)  # prices between both that are evaluated, each with a schedule of its own
    mode: Literal["model_only", "schedule_only", "joint", "alternate"] = "alternate"
    model_iterations: PositiveInt = 40  # of a phase of "alternate"
    schedule_iterations: PositiveInt = 40
    likelihood: str = "fill"  # rl.likelihood, or an estimator of rl.estimators
    schedule: ScheduleConfig = ScheduleConfig()
    sampler: SamplerConfig = SamplerConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    prompts: PositiveInt = 12  # of an iteration
    group: int = Field(12, ge=2)  # answers to each
    common_noise: bool = True  # in phases of the schedule alone a group shares the noise of its tokens
    inner: PositiveInt = 1  # updates by the same answers
    inner_schedule: PositiveInt | None = None  # of the schedule, which need no network pass; None: as many
    iterations: PositiveInt = 320
    lr_model: PositiveFloat = 1e-4
    lr_schedule: PositiveFloat = 3e-3
    decay: float = Field(0.0, ge=0.0, le=1.0)  # share of the iterations, the last, over which both rates fall to 0
    clip: PositiveFloat = 1.0  # global gradient norm
    lora: int = Field(0, ge=0)  # rank of low-rank updates of the blocks' matrices; 0 trains all weights
    rows_per_pass: PositiveInt = 256  # of an update
    evaluate_every: PositiveInt = 40
    evaluate_problems: int = Field(200, ge=2)
    save_every: PositiveInt = 20
    keep: PositiveInt = 2
    stop: StopConfig = StopConfig()

    @model_validator(mode="after")
    def _price_can_matter(self) -> "RlConfig":
        most = self.step_price_max
        if most is None:
            return self
        if most <= self.step_price:
            raise ValueError(f"step_price_max={most:g}: must be above step_price={self.step_price:g}")
        if not self.sampler.may_finish or self.mode == "model_only":
            raise ValueError(
                f"step_price_max={most:g}: no row can end early, whatever a pass costs; add --sampler.may_finish true, "
                "and a mode that learns the schedule"
            )
        return self

    @property
    def prices(self) -> tuple[float, ...]:
        """What a pass costs in evaluations, from the lowest price."""
        if self.step_price_max is None:
            return (self.step_price,)
        steps = self.evaluate_prices - 1
        return tuple(self.step_price + (self.step_price_max - self.step_price) * i / steps for i in range(steps + 1))

    def pace(self, iteration: int) -> float:
        """What the learning rates of iteration number `iteration` (from 0) are multiplied by: 1, then linearly less."""
        left = (self.iterations - iteration) / self.iterations
        return min(1.0, left / self.decay) if self.decay else 1.0

    def phase(self, iteration: int) -> frozenset[str]:
        """What iteration number `iteration` (from 0) trains: "model", "schedule" or both."""
        if self.mode == "model_only":
            return frozenset({"model"})
        if self.mode == "schedule_only":
            return frozenset({"schedule"})
        if self.mode == "joint":
            return frozenset({"model", "schedule"})
        place = iteration % (self.model_iterations + self.schedule_iterations)
        return frozenset({"model" if place < self.model_iterations else "schedule"})
