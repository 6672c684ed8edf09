"""What unsupervised classifier-free guidance does to answers chosen by likelihood, and to text after a prompt."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.core.config import load_config
from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.types import Canvas
from anyorder.data.loader import in_order
from anyorder.evaluation.gen_ppl import Judge
from anyorder.evaluation.judges import find_twin, load_judge
from anyorder.evaluation.quality import Figures, measure
from anyorder.guidance.classifier_free import ClassifierFree
from anyorder.hub.find import model_folder
from anyorder.hub.load import LoadedModel, load_model
from anyorder.likelihood.conditional import Question, score_answers
from anyorder.samplers.base import generate
from anyorder.samplers.presets import make_sampler
from anyorder.studies import Check, Findings
from anyorder.studies.plot_svg import Line, Plot, line_plots
from anyorder.studies.text import columns
from anyorder.train.config import RunConfig
from anyorder.train.data import run_data
from anyorder.train.loop import CONFIG

SCALES = (0.0, 0.25, 0.5, 1.0, 2.0)
PROMPT, ANSWER, CHOICES = 32, 12, 4
WRITTEN = 32  # tokens after a prompt, which the judge reads too


@dataclass(frozen=True)
class Accuracy:
    """Questions answered rightly at one scale: of the half that chose the scale, and of the other."""

    scale: float
    dev: float
    test: float
    questions: int

    @property
    def stderr(self) -> float:
        """Of `test`."""
        return math.sqrt(self.test * (1 - self.test) / (self.questions / 2))


@dataclass(frozen=True)
class Written:
    """Text written after prompts at one scale and number of steps, as a judge reads it."""

    scale: float
    steps: int
    nfe: float
    figures: Figures


@torch.no_grad()
def study(*, quick: bool, run: Path | None, seed: int) -> Findings:
    """Accuracy of a trained model on continuations of held-out text, and quality of what it writes, by scale.

    Raises:
        ValueError: no run, one that is no masked diffusion model of text, or none beside it that could judge.
    """
    if run is None:
        raise ValueError("study guidance: needs a trained model; name one with --run, as runs/quickstart")
    folder = model_folder(run)
    loaded = load_model(folder)
    config = load_config(RunConfig, folder.parent / CONFIG)
    if loaded.kind != "mdm" or config.task is not None:
        raise ValueError(f"{run}: guidance is of masked diffusion models of text; name such a run")
    twin = find_twin(run)
    if twin is None:
        raise ValueError(f"{run}: no autoregressive twin lies beside it to judge what it writes; name a quickstart run")
    count = 64 if quick else 400
    rows = whole_rows(run_data(config).valid, count)
    noise = Noise.of(seed).at("guidance")
    accuracies = answer_all(loaded.model, questions_of(rows), draws=8 if quick else 16, noise=noise)
    judge = load_judge(str(twin))
    some = rows[: 16 if quick else 96]
    steps = WRITTEN // 4 if quick else WRITTEN // 2
    scales = SCALES if not quick else (0.0, 1.0)
    texts = [write(loaded, some, scale, steps, judge, noise) for scale in scales]
    texts.append(write(loaded, some, 0.0, 2 * steps, judge, noise))
    return findings(accuracies, texts, measure(some, tokenizer=loaded.tokenizer, judge=judge))


def whole_rows(source: Any, count: int) -> Int[Tensor, "B L"]:
    """Held-out rows of one document, long enough for a prompt and what follows."""
    batch = next(in_order(source, rows=4 * count, limit=4 * count))
    length = PROMPT + WRITTEN
    whole = batch.target[:, :length].all(-1)
    if batch.segment is not None:
        whole = whole & (batch.segment[:, :length] == batch.segment[:, :1]).all(-1)
    return batch.tokens[whole][:count, :length]


def questions_of(rows: Int[Tensor, "B L"], size: int = ANSWER) -> list[Question]:
    """For each row: which of four continuations of `size` tokens follows its prompt? The right one stands first; the
    others are of rows further on.
    """
    questions = []
    for i in range(len(rows)):
        others = [rows[(i + 7 * k) % len(rows)] for k in range(CHOICES)]
        answers = tuple(tuple(row[PROMPT : PROMPT + size].tolist()) for row in others)
        questions.append(Question(tuple(rows[i, :PROMPT].tolist()), answers))
    return questions


def answer_all(model: Denoiser, questions: list[Question], *, draws: int, noise: Noise) -> list[Accuracy]:
    """The share of questions answered rightly at each scale; even ones may choose the scale, odd ones judge it."""
    found = []
    for scale in SCALES:
        guided = ClassifierFree(model, scale) if scale else model
        answered = score_answers(guided, questions, draws=draws, noise=noise)
        right = torch.tensor([float(a.best == 0) for a in answered])
        found.append(Accuracy(scale, float(right[::2].mean()), float(right[1::2].mean()), len(questions)))
    return found


def write(
    loaded: LoadedModel, rows: Int[Tensor, "B L"], scale: float, steps: int, judge: Judge, noise: Noise
) -> Written:
    """What is written after the prompts of the rows, and what the judge makes of the whole."""
    mask_id = loaded.model.vocab.mask_id
    body = torch.nn.functional.pad(rows[:, :PROMPT], (0, WRITTEN), value=mask_id)
    guided: Denoiser = ClassifierFree(loaded.model, scale) if scale else loaded.model
    sampler = make_sampler("first-hitting", num_steps=steps)
    made = generate(sampler, guided, Canvas.of(body, vocab=loaded.model.vocab), noise=noise.at("write"))
    figures = measure(made.canvas.x, tokenizer=loaded.tokenizer, judge=judge)
    return Written(scale, steps, float(made.nfe.double().mean()), figures)


def findings(accuracies: list[Accuracy], texts: list[Written], real: Figures) -> Findings:
    """Tables, checks and the plot."""
    rows = [
        [f"{a.scale:g}", f"{100 * a.dev:.1f} %", f"{100 * a.test:.1f} ± {100 * a.stderr:.1f} %"] for a in accuracies
    ]
    chosen = max(accuracies, key=lambda a: a.dev)
    plain = accuracies[0]
    written = [[f"{t.scale:g}", str(t.steps), f"{t.nfe:.1f}", _both(t.figures)[0], _both(t.figures)[1]] for t in texts]
    written.append(["held-out text", "-", "-", *_both(real)])
    text = (
        f"{accuracies[0].questions} questions: which of {CHOICES} continuations of {ANSWER} tokens follows\n\n"
        + columns("scale|half that chooses|other half", rows, left=0)
        + f"\n\nchosen on the first half: {chosen.scale:g}\n\n"
        + f"prompts of {PROMPT} tokens with {WRITTEN} written after them\n\n"
        + columns("scale|steps|passes|perplexity under the twin|entropy, nats", written)
    )
    checks = [
        Check("accuracy without guidance over chance", plain.test * CHOICES, "> 1", plain.test * CHOICES > 1),
        Check("accuracy at the chosen scale less without", chosen.test - plain.test, ">= 0", chosen.test >= plain.test),
    ]
    one, double = next(t for t in texts if t.scale == 1.0), texts[-1]
    ratio = one.figures.gen_ppl / double.figures.gen_ppl
    checks.append(Check("perplexity at scale 1 over unguided of as many passes", ratio, "< 1", ratio < 1))
    payload: dict[str, Any] = {
        "accuracy": [a.__dict__ for a in accuracies],
        "chosen": chosen.scale,
        "written": [
            {
                "scale": t.scale,
                "steps": t.steps,
                "nfe": t.nfe,
                "gen_ppl": t.figures.gen_ppl,
                "entropy": t.figures.entropy,
            }
            for t in texts
        ],
    }
    plots = [
        Plot(
            [Line("test half", [(a.scale + 0.1, 100 * a.test) for a in accuracies])],
            "Questions answered rightly",
            "scale + 0.1",
            "%",
        ),
        Plot(
            [
                Line("perplexity", [(t.scale + 0.1, t.figures.gen_ppl) for t in texts[:-1]]),
                Line("held-out text", [(t.scale + 0.1, real.gen_ppl) for t in texts[:-1]], dashed=True),
            ],
            "Written text under the twin",
            "scale + 0.1",
            "perplexity",
        ),
    ]
    return Findings(text=text, payload=payload, checks=checks, svg=line_plots(plots))


def _both(figures: Figures) -> tuple[str, str]:
    return (
        f"{figures.gen_ppl:.1f} ± {figures.gen_ppl_stderr:.1f}",
        f"{figures.entropy:.2f} ± {figures.entropy_stderr:.2f}",
    )
