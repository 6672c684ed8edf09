"""Tables, pictures and aims of the study of Co-GRPO."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyorder.core.log import read_records
from anyorder.rl.loop import METRICS
from anyorder.samplers.steered import KNOBS
from anyorder.studies import Check
from anyorder.studies.cogrpo_measure import Measured, interpolated
from anyorder.studies.cogrpo_runs import BASE, SEARCH
from anyorder.studies.intervals import mean_and_half
from anyorder.studies.plot_svg import Line, Plot, line_plots
from anyorder.studies.text import columns

IMAGES: Final = "scenes"
CO: Final = ("joint", "alternating")
ALONE: Final = ("model", "schedule")
RIVAL: Final = "model-adanat"  # who begins with another schedule
NAMES: Final = {
    BASE: "base, schedule by hand",
    SEARCH: "schedule searched (AutoNAT)",
    "model": "model alone",
    "schedule": "schedule alone",
    "joint": "Co-GRPO, joint",
    "alternating": "Co-GRPO, alternating",
    "joint-fill": "Co-GRPO, joint, likelihood `fill`",
    "model-adanat": "model alone, from AdaNAT's",
    "joint-adanat": "Co-GRPO, joint, from AdaNAT's",
}
SHORT: Final = {
    BASE: "base, by hand",
    SEARCH: "searched",
    "model": "model alone",
    "schedule": "schedule alone",
    "joint": "joint",
    "alternating": "alternating",
    "joint-fill": "joint, `fill`",
    "model-adanat": "model, AdaNAT's",
    "joint-adanat": "joint, AdaNAT's",
}
PILOT: Final = {BASE: 0.058, "model": 0.222, "schedule": 0.320, "joint": 0.528, "alternating": 0.527}  # one seed
PILOT_COUNTING: Final = 0.08


@dataclass(frozen=True)
class Curve:
    """Share of held-out problems answered rightly by roll-outs, of one arm and seed."""

    topic: str
    arm: str
    seed: int
    points: list[tuple[int, float]]


def curve(folder: Path, *, topic: str, arm: str, seed: int) -> Curve:
    """What a finished run's folder says."""
    records = [r for r in read_records(folder / METRICS) if r["kind"] == "evaluation"]
    return Curve(topic, arm, seed, [(r["rollouts"], r["correct"]) for r in records])


def of(found: Sequence[Measured], topic: str, arm: str) -> list[Measured]:
    """All seeds of an arm."""
    return [m for m in found if (m.topic, m.arm) == (topic, arm)]


def arms_of(found: Sequence[Measured], topic: str) -> list[str]:
    return list(dict.fromkeys(m.arm for m in found if m.topic == topic))


def plus_minus(values: Sequence[float], digits: int = 3) -> str:
    """A mean over seeds and half the width of its interval; a number alone of one seed."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    mean, half = mean_and_half(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def show(found: Sequence[Measured], curves: Sequence[Curve]) -> str:
    """The tables for people."""
    parts = ["± is half of a 95 % interval over seeds (Student's t). All arms learn from as many answers."]
    for topic in dict.fromkeys(m.topic for m in found):
        parts += _topic(found, topic)
        parts += _curves([c for c in curves if c.topic == topic], topic)
    return "\n\n".join(parts)


def _topic(found: Sequence[Measured], topic: str) -> list[str]:
    arms, first = arms_of(found, topic), of(found, topic, BASE)[0]
    steps = len(first.knobs)

    def table(heading: str, cells: Callable[[list[Measured]], list[str]]) -> str:
        return columns(f"arm|{heading}", [[NAMES[arm], *cells(of(found, topic, arm))] for arm in arms])

    def reward(own: list[Measured]) -> list[str]:
        over = [m.reward - b.reward for m, b in zip(own, of(found, topic, BASE))]
        pilot = PILOT.get(own[0].arm) if topic == IMAGES else None
        return [
            plus_minus([m.reward for m in own]),
            plus_minus(over) if own[0].arm != BASE else "",
            "" if pilot is None else f"{pilot:.3f}",
            plus_minus([m.distinct for m in own]),
            plus_minus([m.entropy for m in own], 2),
        ]

    parts = [
        f"{topic}: test problems answered rightly in {steps} steps, paired gain over the base, the pilot; share of "
        "different answers to a problem, and their bits a position.",
        table("right|over base|pilot|different|bits", reward),
    ]
    if first.by_kind:
        kinds = list(first.by_kind)
        parts += [
            f"{topic}, {steps} steps, by kind of prompt; position and attribution earn no reward while learning.",
            table("|".join(kinds), lambda own: [plus_minus([m.by_kind[k] for m in own], 2) for k in kinds]),
        ]
    if first.by_steps:
        grid = sorted(first.by_steps)
        parts += [
            f"{topic}: right by number of steps, schedules stretched.",
            table("|".join(map(str, grid)), lambda own: [plus_minus([m.by_steps[t] for m in own], 2) for t in grid]),
        ]
    if first.by_hand:
        rows = [[h, plus_minus([m.by_hand[h] for m in of(found, topic, BASE)])] for h in first.by_hand]
        parts += [f"{topic}: the base under schedules made by hand, {steps} steps.", columns("schedule|right", rows)]
    return [*parts, f"{topic}: learned schedules, means over seeds.", _knobs(found, topic)]


def _knobs(found: Sequence[Measured], topic: str) -> str:
    rows = []
    for arm in arms_of(found, topic):
        for i, name in enumerate(KNOBS):
            rows.append([NAMES[arm] if i == 0 else "", name, *(f"{v:.2f}" for v in knob_of(found, topic, arm, i))])
    steps = len(of(found, topic, BASE)[0].knobs)
    return columns(f"arm|knob|{'|'.join(map(str, range(1, steps + 1)))}", rows, left=2)


def knob_of(found: Sequence[Measured], topic: str, arm: str, knob: int) -> list[float]:
    """A knob of each step, mean over seeds."""
    own = of(found, topic, arm)
    return [sum(m.knobs[t][knob] for m in own) / len(own) for t in range(len(own[0].knobs))]


def _curves(curves: Sequence[Curve], topic: str) -> list[str]:
    if not curves:
        return []
    at = [rollouts for rollouts, _ in curves[0].points]
    rows = [
        [NAMES[arm], *(plus_minus([c.points[i][1] for c in curves if c.arm == arm], 2) for i in range(len(at)))]
        for arm in dict.fromkeys(c.arm for c in curves)
    ]
    heading = f"arm|{'|'.join(map(str, at))}"
    return [f"{topic}: held-out problems answered rightly, by roll-outs.", columns(heading, rows)]


def pictures(found: Sequence[Measured], curves: Sequence[Curve]) -> str:
    """Of the first topic: reward by roll-outs, reward by steps, and each knob by step; means over seeds."""
    topic = found[0].topic
    arms = arms_of(found, topic)

    def line(arm: str, points: list[tuple[float, float]]) -> Line:
        return Line(SHORT[arm], points, colour=list(NAMES).index(arm))

    learned = [c for c in curves if c.topic == topic]
    lines = [
        line(arm, _mean_points([c for c in learned if c.arm == arm])) for arm in dict.fromkeys(c.arm for c in learned)
    ]
    what = f"{topic}: held-out problems while learning"
    plots = [Plot(lines, what, "thousand roll-outs", "right", log_x=False, legend=True)]
    if of(found, topic, BASE)[0].by_steps:
        lines = [
            line(arm, [(float(t), _mean([m.by_steps[t] for m in own])) for t in sorted(own[0].by_steps)])
            for arm in arms
            if (own := of(found, topic, arm))
        ]
        plots.append(Plot(lines, f"{topic}: right by number of steps", "steps", "right", legend=True))
    for i, name in enumerate(KNOBS):
        lines = [
            line(arm, [(t + 1.0, v) for t, v in enumerate(knob_of(found, topic, arm, i))])
            for arm in arms
            if arm not in ("model", RIVAL)  # whose schedules stay those made by hand
        ]
        what = f"{topic}: {name.replace('_', ' ')}, by hand and learned"
        plots.append(Plot(lines, what, "step", name.replace("_", " "), log_x=False, legend=True))
    return line_plots(plots)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_points(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Thousands of roll-outs, and the mean over seeds."""
    together = zip(*(c.points for c in curves))
    return [(points[0][0] / 1000, _mean([right for _, right in points])) for points in together]


def checks(found: Sequence[Measured]) -> list[Check]:
    """On images: both together against either alone against neither, the steps saved, the pilot's figures."""
    rewards = {arm: [m.reward for m in of(found, IMAGES, arm)] for arm in arms_of(found, IMAGES)}
    means = {arm: sum(values) / len(values) for arm, values in rewards.items()}
    co, alone = (max((arm for arm in arms if arm in means), key=means.__getitem__) for arms in (CO, ALONE))

    def least_gain(above: str, below: str) -> float:
        mean, half = mean_and_half([a - b for a, b in zip(rewards[above], rewards[below])])
        return mean - half

    above = [(co, alone), (alone, BASE), *([(co, RIVAL)] if RIVAL in means else [])]
    gains = {pair: least_gain(*pair) for pair in above}
    saved = []
    for own, base in zip(of(found, IMAGES, co), of(found, IMAGES, BASE)):
        reached = interpolated(base.by_steps, own.reward)
        saved.append((max(base.by_steps) if reached is None else reached) / len(base.knobs))
    fewer = sum(saved) / len(saved)
    counting = sum(m.by_kind["counting"] for m in of(found, IMAGES, co)) / len(saved)
    distinct = sum(m.distinct for m in of(found, IMAGES, co)) / len(saved)
    return [
        *(
            Check(
                f"{NAMES[a]}, over {'the base' if b == BASE else NAMES[b]}: lower end of the interval",
                gain,
                "> 0",
                gain > 0,
            )
            for (a, b), gain in gains.items()
        ),
        Check(f"steps the base needs for the reward of {NAMES[co]}, over its own", fewer, ">= 4", fewer >= 4),
        Check(f"{NAMES[co]}: right", means[co], "> .528, the pilot's", means[co] > PILOT["joint"]),
        Check(f"{NAMES[co]}: counting", counting, "> .08, the pilot's", counting > PILOT_COUNTING),
        Check(f"{NAMES[co]}: different answers", distinct, ">= .95, the pilot's", distinct >= 0.95),
    ]
