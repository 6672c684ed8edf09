"""The runs of the study of Co-GRPO: base models, and what is learned from each, one arm like the other."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anyorder.core.config import parse_config
from anyorder.core.files import locked
from anyorder.core.noise import Noise
from anyorder.hub.find import model_folder
from anyorder.hub.load import load_model
from anyorder.models.config import ModelConfig
from anyorder.processes.config import ProcessConfig
from anyorder.rl.config import RlConfig
from anyorder.rl.loop import SCHEDULE, learn
from anyorder.rl.make import make_lesson, make_steered, make_table
from anyorder.rl.search import Search
from anyorder.samplers.schedules import write_schedule
from anyorder.train.config import BatchConfig, EvalConfig, OptimConfig, RunConfig

BASE: Final = "base"
SEARCH: Final = "search"
EXACT: Final = "augmented"  # the likelihood of every arm that does not name another
HELD: Final = {"beta_schedule": 0.01}  # to the schedule made by hand; explored ones freeze, or boil
OTHER: Final = {"hand": "adanat", "guidance": 0.0}  # another start, of as many passes
ARMS: Final[dict[str, dict[str, Any]]] = {
    "model": {"mode": "model_only"},
    "schedule": {"mode": "schedule_only"},
    "joint": {"mode": "joint"},
    "alternating": {"mode": "alternate"},
    "joint-fill": {"mode": "joint", "likelihood": "fill", "schedule": {"explore": "all"}, "objective": HELD},
    "model-adanat": {"mode": "model_only", "schedule": OTHER},
    "joint-adanat": {"mode": "joint", "schedule": OTHER},
}


@dataclass(frozen=True)
class Topic:
    """A task, its base model, and how much is learned from it.

    Args:
        name: of its folders.
        task: what the base is trained on, and what all is measured on.
        practice: the task whose training problems are answered for rewards; its held-out ones watch the progress.
        steps: of the base's training, `rows` rows each.
        num_steps: of the sampler, T, for which schedules are learned.
        arms: what is learned, names of `ARMS` and SEARCH, and how many seeds of it, the first ones: each has its own
            problems, base model and noise of learning.
        learning: keys of `RlConfig` that all arms share.
    """

    name: str
    task: str
    practice: str
    model: ModelConfig
    steps: int
    rows: int
    lr: float
    num_steps: int
    arms: dict[str, int]
    learning: dict[str, Any]

    def learned_at(self, number: int) -> list[str]:
        """The arms that the seed of this number, from 0, has."""
        return [arm for arm, seeds in self.arms.items() if number < seeds]

    def base(self, seed: int) -> RunConfig:
        """The training of the base model."""
        return RunConfig(
            seed=seed,
            task=self.task,
            process=ProcessConfig(kind="mdm"),
            model=self.model,
            optim=OptimConfig(schedule="wsd", warmup_steps=50, weight_decay=0.01, lr=self.lr, betas=(0.9, 0.98)),
            batch=BatchConfig(rows=self.rows),
            num_steps=self.steps,
            evaluate=EvalConfig(every=self.steps, rows=256, draws=4),
            save_every=max(1, self.steps // 4),
            log_every=max(1, self.steps // 10),
        )

    def learned(self, arm: str, seed: int) -> RlConfig:
        """What an arm learns; the search takes its task, reward and schedule from here too."""
        above = ARMS.get(arm, {})
        schedule = {"num_steps": self.num_steps, "explore": "ratio"}
        schedule |= self.learning.get("schedule", {}) | above.get("schedule", {})
        values = (
            {"seed": seed, "task": self.practice, "likelihood": EXACT} | self.learning | above | {"schedule": schedule}
        )
        return parse_config(RlConfig, values, source=f"study cogrpo, {self.name}")

    def search(self) -> Search:
        """As many answers as an arm is given, or the few that a whole number of updates leaves over."""
        c = self.learned(SEARCH, 0)
        one = dataclasses.replace(Search(), updates=1).rollouts(make_table(c.schedule))
        return Search(updates=max(1, c.iterations * c.prompts * c.group // one))


def learn_arm(config: RlConfig, base: Path, folder: Path, *, quiet: bool) -> None:
    """An arm, gone on with where it was killed."""
    loaded = load_model(model_folder(base))
    learn(config, loaded.model, loaded.tokenizer, make_lesson(config), folder, quiet=quiet)  # type: ignore[arg-type]


def search_arm(config: RlConfig, search: Search, base: Path, folder: Path, *, quiet: bool) -> None:
    """The schedule that finite differences find; begun anew where it was killed."""
    del quiet  # it is over in minutes
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not (folder / SCHEDULE).exists():
            sampler = make_steered(config)
            model = load_model(model_folder(base)).model
            tables = search.run(model, sampler, make_lesson(config), noise=Noise.of(config.seed).at("search"))
            write_schedule(folder / SCHEDULE, dataclasses.replace(sampler, steering=tables[-1]))
