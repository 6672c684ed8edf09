"""The models of the infilling study: five of one size, trained on the same lines for the same number of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyorder.core.log import last_record
from anyorder.core.noise import Noise
from anyorder.data.config import DataConfig
from anyorder.data.fim import fim_rows
from anyorder.data.pack import packed_rows
from anyorder.data.shards import Shards
from anyorder.data.side_by_side import SideBySide, side_by_side
from anyorder.hub.load import load_model
from anyorder.models.config import ModelConfig
from anyorder.models.network import Network
from anyorder.processes.config import ProcessConfig
from anyorder.studies.infilling_text import open_lines
from anyorder.studies.together import train_all
from anyorder.train.config import BatchConfig, EvalConfig, OptimConfig, RunConfig
from anyorder.train.loop import METRICS, MODEL, RunData

KINDS: Final[dict[str, ProcessConfig]] = {
    "ilm": ProcessConfig(kind="ilm"),
    "ilm-document": ProcessConfig(kind="ilm", length_weight="document"),
    "mdm": ProcessConfig(kind="mdm"),
    "arm": ProcessConfig(kind="arm"),
    "arm-fim": ProcessConfig(kind="arm"),
}
NAMES: Final[dict[str, str]] = {
    "ilm": "ILM, weight L+1",
    "ilm-document": "ILM, document weight",
    "mdm": "MDM",
    "arm": "ARM",
    "arm-fim": "ARM-FIM",
}
PROCESSES: Final = ("ilm", "mdm", "arm")  # what a rate is chosen for
GAPS: Final = 2  # at most so many in a text


@dataclass(frozen=True)
class Recipe:
    """What the runs have in common.

    Args:
        rates: learning rates tried for each process, in one run each of `sweep` of the steps.
        length: tokens of a row, which holds several lines.
    """

    model: ModelConfig
    rows: int
    num_steps: int
    rates: tuple[float, ...]
    sweep: float
    vocab_size: int
    length: int

    def data(self, corpus: Path) -> DataConfig:
        """Whole lines side by side; what is held out by `validation` is as good as nothing."""
        return DataConfig(
            corpus=str(corpus),
            vocab_size=self.vocab_size,
            validation=0.001,
            length=self.length,
            packing="documents",
            cache=corpus.parent / "tokens",
        )

    def config(self, kind: str, corpus: Path, *, seed: int, lr: float, share: float = 1.0) -> RunConfig:
        """The run of one kind of model on the lines of `write_lines`, of that share of the steps."""
        steps = max(1, round(share * self.num_steps))
        return RunConfig(
            seed=seed,
            data=self.data(corpus),
            process=KINDS[kind],
            model=self.model,
            batch=BatchConfig(rows=self.rows),
            optim=OptimConfig(lr=lr, warmup_steps=min(50, steps // 5)),
            num_steps=steps,
            evaluate=EvalConfig(every=max(1, steps // 4), rows=64, draws=4),
            save_every=max(1, steps // 8),
        )


@dataclass(frozen=True)
class Swept:
    """A short run that chooses a rate: nats per validation token at its end."""

    kind: str
    lr: float
    num_steps: int
    nats: float
    seconds: float


@dataclass(frozen=True)
class Trained:
    """A finished run: its model, its rate, the tokens it was trained on and the seconds that took."""

    model: Network
    lr: float
    tokens: int
    seconds: float

    @property
    def max_length(self) -> int:
        """Positions of the longest row the model reads."""
        return self.model.config.max_length


def swept(recipe: Recipe, corpus: Path, folder: Path, *, seed: int, at_once: int) -> list[Swept]:
    """Every rate of every process, in short runs; the other kinds take the rate of their process.

    Raises:
        ValueError: a folder holds another run.
    """
    runs = {
        folder / f"{kind}-lr{lr:g}": (kind, recipe.config(kind, corpus, seed=seed, lr=lr, share=recipe.sweep))
        for kind in PROCESSES
        for lr in recipe.rates
    }
    train_all({p: c for p, (_, c) in runs.items()}, at_once=at_once, rows=dict.fromkeys(runs, line_data))
    found = []
    for place, (kind, config) in runs.items():
        last = last_record(place / METRICS, "valid")
        found.append(Swept(kind, config.optim.lr, config.num_steps, last["nats_per_token"], last["seconds"]))
    return found


def trained(
    recipe: Recipe, corpus: Path, folder: Path, *, tried: Sequence[Swept], seed: int, at_once: int
) -> dict[str, Trained]:
    """A model of every kind at the better rate, trained into a folder of its own or gone on with there.

    Args:
        at_once: as in `train_all`.
    Raises:
        ValueError: a folder holds another run.
        RuntimeError: a loss is no longer finite.
    """
    best = {kind: min((s for s in tried if s.kind == kind), key=lambda s: s.nats).lr for kind in PROCESSES}
    rate = {kind: best[process.kind] for kind, process in KINDS.items()}
    configs = {folder / kind: recipe.config(kind, corpus, seed=seed, lr=rate[kind]) for kind in KINDS}
    rows = {place: filling_data if place.name == "arm-fim" else line_data for place in configs}
    train_all(configs, at_once=at_once, rows=rows)
    return {kind: _finished(folder / kind, lr=rate[kind]) for kind in KINDS}


def _finished(folder: Path, *, lr: float) -> Trained:
    last = last_record(folder / METRICS, "train")
    return Trained(load_model(folder / MODEL).model, lr=lr, tokens=last["tokens"], seconds=last["seconds"])


def line_data(config: RunConfig) -> RunData:
    """Whole lines side by side; those watched are of other files."""
    lines = open_lines(config.data)
    vocab, length = lines.tokenizer.vocab, config.data.length
    watched = packed_rows(lines.valid, vocab=vocab, length=length, packing="documents", may_be_short=True)
    return RunData(train=lines.data.rows("train"), valid=watched, tokenizer=lines.tokenizer)


def filling_data(config: RunConfig) -> RunData:
    """The same lines, half of them with gaps that are written behind them."""
    lines, noise = open_lines(config.data), Noise.of(config.seed).at("fim")
    vocab, length = lines.tokenizer.vocab, config.data.length

    def rows(shards: Shards, name: str) -> SideBySide:
        return side_by_side(fim_rows(shards, vocab=vocab, length=length, noise=noise.at(name), num_gaps=GAPS))

    return RunData(rows(lines.data.train, "train"), rows(lines.valid, "valid"), lines.tokenizer)
