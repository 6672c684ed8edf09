"""What joint draws do to a trained model: its closed form, and samples drawn well and badly under a judge."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from anyorder.core import categorical
from anyorder.core.noise import Noise
from anyorder.core.protocols import Sampler
from anyorder.core.types import Canvas
from anyorder.evaluation.diversity import unigram_entropy
from anyorder.evaluation.gen_ppl import Judge
from anyorder.evaluation.judges import find_twin, load_judge
from anyorder.evaluation.quality import Figures, measure
from anyorder.hub.find import model_folder
from anyorder.hub.load import LoadedModel, load_model
from anyorder.samplers.base import generate
from anyorder.samplers.count import Binomial
from anyorder.samplers.unmask import Unmask
from anyorder.studies.numerics_faulty import JointGumbel

HALF_BITS = 11  # of float16


@dataclass(frozen=True)
class Way:
    """Samples of one way of drawing.

    Args:
        entropy: unigram entropy, nats, mean over rows; its standard error.
        gen_ppl: generative perplexity under the judge and its standard error; None without a judge.
    """

    entropy: float
    entropy_error: float
    gen_ppl: float | None
    gen_ppl_error: float | None


@dataclass(frozen=True)
class Written:
    """What joint draws do to a trained model.

    Args:
        before, after: entropy (nats, mean over positions) of the prediction on an empty canvas, and of the tokens that
            the first of N steps draws from it, by closed form.
        exact, joint, half: samples drawn our way, jointly with float32 noise, and jointly with float16's 11 bits.
        judge: the run that judged them; None where no autoregressive twin lies beside the model.
    """

    num_steps: int
    rows: int
    before: float
    after: float
    exact: Way
    joint: Way
    half: Way
    judge: str | None


def written_by(run: Path, *, quick: bool, noise: Noise) -> list[Written]:
    """Samples of a trained model, drawn our way and jointly with coarse noise, for 64 to 1024 steps.

    Raises:
        ValueError: no finished masked diffusion model there.
    """
    loaded = load_model(model_folder(run))
    if loaded.kind != "mdm":
        raise ValueError(f"{run}: is an autoregressive model, which has no mask; name a masked diffusion model")
    twin = find_twin(run)
    judge = None if twin is None else load_judge(str(twin))
    model, rows = loaded.model, 2 if quick else 16
    length = min(loaded.model.config.max_length, 64 if quick else 128)
    canvas = Canvas.of(torch.full((rows, length), model.vocab.mask_id), vocab=model.vocab)
    with torch.no_grad():
        law = torch.softmax(model(canvas, canvas.window), -1, dtype=torch.float64)
    found = []
    for n in (64,) if quick else (64, 256, 1024):
        first = categorical.lattice_gumbel_law((law / n).flatten(), 1.0).view_as(law)
        before, after = (float(categorical.entropy(p.log()).mean()) for p in (law, first))
        exact, joint, half = (
            _way(sampler, loaded, canvas, judge=judge, noise=noise.at(n))
            for sampler in (Unmask(Binomial(n)), JointGumbel(n), JointGumbel(n, HALF_BITS))
        )
        name = None if judge is None else judge.name
        found.append(Written(n, rows, before, after, exact, joint, half, name))
    return found


def _way(sampler: Sampler, loaded: LoadedModel, canvas: Canvas, *, judge: Judge | None, noise: Noise) -> Way:
    x = generate(sampler, loaded.model, canvas, noise=noise).canvas.x
    if judge is None:
        entropy = unigram_entropy(x)
        return Way(float(entropy.mean()), float(entropy.std() / math.sqrt(len(x))), None, None)
    f: Figures = measure(x, tokenizer=loaded.tokenizer, judge=judge)
    return Way(f.entropy, f.entropy_stderr, f.gen_ppl, f.gen_ppl_stderr)
