"""Texts of unknown length: how long they become, how likely they are, and gaps filled, by models that insert or do not.

Five models of one size learn the same short documents: insertion with the weight that keeps the law of the data and
with the published one, masked diffusion, left to right, and left to right trained to fill in the middle.
Source: arXiv:2505.05755, sections 5.2 and 5.3.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from anyorder.core.config import nearest
from anyorder.core.noise import Noise
from anyorder.data.infill import infill_sets
from anyorder.evaluation.gen_ppl import ModelJudge
from anyorder.models.config import ModelConfig
from anyorder.studies import Check, Findings
from anyorder.studies.infilling_fill import DRAWN, PUBLISHED, fill
from anyorder.studies.infilling_length import DECODINGS, EXACT, Length, from_oracles, length_of, tilted_mean
from anyorder.studies.infilling_likelihood import Cost, costs
from anyorder.studies.infilling_measure import Score, score, truth
from anyorder.studies.infilling_report import picture, show
from anyorder.studies.infilling_runs import NAMES, Recipe, Trained, swept, trained
from anyorder.studies.infilling_text import Lines, open_lines, sizes, write_lines
from anyorder.studies.infilling_write import Judged, inserted, judged, left_to_right, unmasked
from anyorder.studies.together import workers


@dataclass(frozen=True)
class Plan:
    """How much is trained and measured.

    Args:
        lines: read of each file, None for all.
        texts: written by each model.
        few: written with each other decoding of the insertion models.
        documents: held out, whose likelihood is measured with so many `draws` each where it is estimated.
        items: texts with gaps, by number of gaps.
        copies: masked ones by which the masked model chooses the length of a gap.
        together: whether runs are trained beside each other.
    """

    recipe: Recipe
    lines: int | None
    texts: int
    few: int
    documents: int
    draws: int
    items: Mapping[int, int]
    copies: int
    together: bool = True


LENGTH: Final = 128  # tokens of a row
TINY: Final = Plan(
    Recipe(
        ModelConfig(num_layers=3, num_heads=4, d_model=96, d_ff=256, max_length=LENGTH + 1, qk_norm=True),
        rows=16,
        num_steps=2200,
        rates=(3e-3, 6e-3),
        sweep=0.15,
        vocab_size=512,
        length=LENGTH,
    ),
    lines=None,
    texts=600,
    few=100,
    documents=600,
    draws=16,
    items={1: 200, 2: 100},
    copies=8,
)
PAPER: Final = Plan(
    Recipe(
        ModelConfig(num_layers=12, num_heads=12, d_model=768, d_ff=2048, max_length=LENGTH + 1),
        rows=512,
        num_steps=60_000,
        rates=(3e-5, 1e-4, 3e-4),
        sweep=0.2,
        vocab_size=16_384,
        length=LENGTH,
    ),
    lines=None,
    texts=5000,
    few=1000,
    documents=5000,
    draws=64,
    items={1: 3500, 2: 3500},
    copies=32,
    together=False,
)
QUICK: Final = Plan(
    Recipe(
        ModelConfig(num_layers=1, num_heads=2, d_model=16, d_ff=32, max_length=LENGTH + 1),
        rows=8,
        num_steps=8,
        rates=(2e-3, 5e-3),
        sweep=0.5,
        vocab_size=300,
        length=LENGTH,
    ),
    lines=6,
    texts=16,
    few=4,
    documents=12,
    draws=4,
    items={1: 4, 2: 2},
    copies=2,
    together=False,
)
SCALES: Final = {"tiny": TINY, "paper": PAPER}
SHORTEST: Final = 12  # tokens of a text with gaps
SHARE: Final = 0.2  # of its tokens, in the gaps


def study(*, quick: bool = False, run: Path | None = None, seed: int = 0, out: Path, scale: str = "tiny") -> Findings:
    """Train the five models (or go on with them), then write, score and fill held-out documents with each.

    Args:
        quick: toy models, trained for seconds, of which nothing is expected.
        out: its folder; corpus and runs lie in folders below it.
        scale: "tiny", or "paper": its sizes and steps.
    Raises:
        ValueError: `run` is given, an unknown scale, or `out` holds runs of other settings.
    """
    if run is not None:
        raise ValueError(f"--run {run}: infilling compares models that it trains alike; leave --run out")
    if scale not in SCALES:
        raise ValueError(f"--scale {scale}: unknown; {nearest(scale, SCALES)}")
    plan, noise = QUICK if quick else SCALES[scale], Noise.of(seed).at("infilling")
    exact = from_oracles(plan.texts, noise=noise.at("oracle"))
    corpus = write_lines(out / "corpus", most=plan.lines)
    lines = open_lines(plan.recipe.data(corpus))  # before the runs, which find it made
    at_once = workers() if plan.together else 1
    tried = swept(plan.recipe, corpus, out / "sweep", seed=seed, at_once=at_once)
    models = trained(plan.recipe, corpus, out, tried=tried, seed=seed, at_once=at_once)
    made = Made(plan, lines, models)
    lengths, texts = from_nothing(made, noise=noise.at("texts"))
    likely = likelihoods(made, noise=noise.at("score"))
    scores = [s for number in plan.items for s in infilled(made, number, noise=noise.at("gaps").at(number))]
    payload: dict[str, Any] = {
        "quick": quick,
        "scale": scale,
        "seed": seed,
        "plan": asdict(plan) | {"recipe": asdict(plan.recipe) | {"model": plan.recipe.model.model_dump()}},
        "sweep": [asdict(s) for s in tried],
        "training": {k: {"lr": t.lr, "tokens": t.tokens, "seconds": t.seconds} for k, t in made.models.items()},
        "oracle": [asdict(x) for x in exact],
        "lengths": [asdict(x) for x in lengths],
        "texts": [asdict(x) for x in texts],
        "likelihood": [asdict(x) for x in likely],
        "infilling": [asdict(x) for x in scores],
    }
    aims = exact_checks(exact) + ([] if quick else trained_checks(lengths, texts, scores))
    return Findings(show(tried, models, exact, lengths, texts, likely, scores), payload, aims, picture(lengths))


@dataclass(frozen=True)
class Made:
    """Everything that is measured: the lines, and the models trained on them."""

    plan: Plan
    lines: Lines
    models: dict[str, Trained]

    @property
    def judge(self) -> ModelJudge:
        """The plain ARM, to which text of its own kind looks better than it is."""
        arm = self.models["arm"]
        return ModelJudge("the plain ARM", arm.model, self.lines.tokenizer, arm.max_length)

    def documents(self, most: int) -> list[list[int]]:
        """Evenly spaced test lines in tokens, without end-of-document."""
        test = self.lines.test
        count = min(most, test.num_documents)
        return [test.document(i * test.num_documents // count)[:-1].tolist() for i in range(count)]


def from_nothing(made: Made, *, noise: Noise) -> tuple[list[Length], list[Judged]]:
    """Texts written by every model: their lengths, and what the judge says of them."""
    plan, known = made.plan, sizes(made.lines.data.train)
    longest = made.models["ilm"].max_length - 1  # one position stands for the beginning
    mean, short = sum(known) / len(known), tilted_mean(known)
    held = made.documents(plan.texts)
    wrote = {("test lines", "-"): held}
    lengths = [length_of(known, model="training lines", decoding="-", expected=mean)]
    lengths.append(length_of(list(map(len, held)), model="test lines", decoding="-", expected=mean))
    for kind, expected in (("ilm", mean), ("ilm-document", short)):
        for decoding, sampler in DECODINGS.items():
            number = plan.texts if decoding == EXACT else plan.few
            stream = noise.at(kind).at(decoding)
            rows = inserted(made.models[kind].model, sampler, number, length=longest, noise=stream)
            lengths.append(length_of(list(map(len, rows)), model=NAMES[kind], decoding=decoding, expected=expected))
            wrote[NAMES[kind], decoding] = rows
    mdm, arm = made.models["mdm"].model, made.models["arm"].model
    wrote["MDM", "length from a table"] = unmasked(mdm, plan.texts, lengths=known, noise=noise.at("mdm"))
    wrote["ARM", EXACT] = left_to_right(arm, plan.texts, length=longest, noise=noise.at("arm"))
    tokenizer, judge = made.lines.tokenizer, made.judge
    return lengths, [
        judged(rows, model=m, decoding=d, tokenizer=tokenizer, judge=judge) for (m, d), rows in wrote.items()
    ]


def likelihoods(made: Made, *, noise: Noise) -> list[Cost]:
    """Nats of test lines under every model."""
    documents = made.documents(made.plan.documents)
    return costs(made.models, documents, lengths=sizes(made.lines.data.train), draws=made.plan.draws, noise=noise)


def infilled(made: Made, num_gaps: int, *, noise: Noise) -> list[Score]:
    """Test lines with so many gaps, filled in every way; the true gaps first."""
    tokenizer, judge, number = made.lines.tokenizer, made.judge, made.plan.items[num_gaps]
    most = made.plan.recipe.length - 1
    items = infill_sets(
        made.lines.test,
        noise=noise.at("items"),
        num_valid=0,
        num_test=number,
        share=SHARE,
        num_gaps=num_gaps,
        least=SHORTEST,
        most=most,
    ).test
    ways = [truth(items), *fill(made.models, items, draws=made.plan.copies, noise=noise)]
    return [score(way, items, tokenizer=tokenizer, judge=judge) for way in ways]


def exact_checks(exact: Sequence[Length]) -> list[Check]:
    """Oracles write the law that was derived for their weight, whatever is trained."""
    made = []
    for x in exact:
        if x.decoding == EXACT:
            off = abs(x.mean - x.expected) / x.stderr
            made.append(
                Check(f"{x.model}: mean length from {x.expected:.4f}, in standard errors", off, "<= 3", off <= 3)
            )
    return made


def trained_checks(lengths: Sequence[Length], texts: Sequence[Judged], scores: Sequence[Score]) -> list[Check]:
    """What should hold of models that have learned something."""
    data = lengths[0]
    drawn = {x.model: x for x in lengths if x.decoding == EXACT}
    ours, theirs = drawn[NAMES["ilm"]], drawn[NAMES["ilm-document"]]
    off = abs(ours.mean - data.mean)
    allowed = max(3 * ours.stderr, 0.05 * data.mean)
    nearer = abs(theirs.mean - theirs.expected) / abs(theirs.mean - data.mean)
    nats = {(x.model, x.decoding): x.nats.value for x in texts}
    better = nats[NAMES["ilm"], EXACT] - nats["MDM", "length from a table"]
    ratio, due = theirs.mean / ours.mean, theirs.expected / ours.expected  # whatever both models do alike cancels
    error = ratio * math.hypot(ours.stderr / ours.mean, theirs.stderr / theirs.mean)
    apart = abs(ratio - due) / error
    made = [
        Check(f"mean lengths, document weight / L+1: from {due:.3f}, in standard errors", apart, "<= 3", apart <= 3),
        Check("L+1 weight: mean length from the data's", off, f"<= {allowed:.3g}", off <= allowed),
        Check("document weight: distance from the predicted mean / from the data's", nearer, "< 1", nearer < 1),
        Check("texts from nothing: judge's nats, ILM - MDM", better, "< 0", better < 0),
    ]
    of = {(s.num_gaps, s.model, s.told, s.decoding): s for s in scores}
    for number in sorted({s.num_gaps for s in scores}):
        mdm = of[number, "MDM", "true length", DRAWN]
        for decoding in (DRAWN, PUBLISHED):
            lead = of[number, "ILM", "nothing", decoding].against_truth.value - mdm.against_truth.value
            made.append(Check(f"gaps {number}: dNLL_gt %, ILM {decoding} - MDM drawn", lead, "< 0", lead < 0))
    return made
