"""Sampling speed: ours against textbook ancestral sampling, which draws a B x L x V noise tensor a step; all presets.

    python benchmarks/sampling.py [--quick] [--threads N] [--rows B]

Textbook: N steps on the uniform linear grid; each runs the network on all positions and takes one Gumbel-max per
position over the V tokens and the mask (arXiv:2406.07524). Cached: the network is skipped while no token has changed.
Ours: positions first, then one uniform per written token, logits at written positions only.

Law. Ancestral (ours) and the textbook with float64 noise follow the same N-step law; first-hitting follows its limit of
infinitely many steps. The textbook with float32 noise is faulty (arXiv:2409.02908, section 5: rare tokens vanish); it
is timed because it is what is commonly run. The laws are tested on a two-bit example before anything is timed.

Each textbook step costs the same, so a few are timed and the run is their median times N. All ratios are of one run.

The second table has a row per preset; `presets.py` makes it, alone too, and says how.
"""

import argparse
import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor

from anyorder.core.noise import Noise
from anyorder.core.protocols import Denoiser
from anyorder.core.schedule import Linear
from anyorder.core.types import Canvas
from anyorder.samplers.base import generate, steps
from anyorder.samplers.count import Binomial, expected_passes
from anyorder.samplers.unmask import Unmask
from anyorder.testing.contracts import blank, observed
from anyorder.testing.laws import chi_square_p
from anyorder.testing.tiny import oracle_a
from common import Row, at_least, median, report, seconds
from presets import SURE, VOCAB, Lookup, measured, network

LENGTH, NUM_STEPS = 1024, 1024
AIM = 20.0  # where draws dominate
NETWORK_AIM = 3.0


def textbook_probs(model: Denoiser, x: Tensor) -> Tensor:
    """Token probabilities at every position, B x L x V."""
    everywhere = torch.ones_like(x, dtype=torch.bool)
    canvas = Canvas.of(x, vocab=model.vocab)
    return model(canvas, everywhere).softmax(-1).unflatten(0, x.shape)


def textbook_draw(x: Tensor, probs: Tensor, t: float, s: float, mask_id: int, dtype: torch.dtype) -> Tensor:
    """One ancestral step from t to s < t (alpha = 1 - t): Gumbel-max over tokens and mask, at every position."""
    joint = torch.cat([probs.to(dtype) * (t - s), torch.full_like(probs[..., :1], s, dtype=dtype)], -1)
    noise = 1e-10 - (torch.rand(joint.shape, dtype=dtype) + 1e-10).log()
    drawn = (joint / noise).argmax(-1)
    drawn = torch.where(drawn == probs.shape[-1], mask_id, drawn)
    return torch.where(x == mask_id, drawn, x)


def textbook(model: Denoiser, x: Tensor, num_steps: int, dtype: torch.dtype) -> Tensor:
    """The whole run, for the test of its law."""
    for i in range(num_steps):
        t, s = 1 - i / num_steps, 1 - (i + 1) / num_steps
        x = textbook_draw(x, textbook_probs(model, x), t, s, model.vocab.mask_id, dtype)
    return x


def law_checks(rows: int) -> dict[str, dict[str, float | bool]]:
    """Chi-square p-values on two dependent bits, 2 steps, where the law has a closed form."""
    model, two_steps = oracle_a(), torch.tensor([0.425, 0.275, 0.075, 0.225], dtype=torch.float64)
    canvas, noise = blank(model.vocab, rows, 2), Noise.of(0).at("law")
    ours = observed(generate(Unmask(Binomial(2)), model, canvas, noise=noise), model.vocab)
    hitting = observed(generate(Unmask(), model, canvas, noise=noise), model.vocab)
    full = textbook(model, canvas.x, 2, torch.float64)
    theirs = torch.bincount(full[:, 0] * 2 + full[:, 1], minlength=4)
    return {
        "law: ancestral (ours), p": at_least(chi_square_p(ours, two_steps), 1e-4),
        "law: ancestral (textbook, float64), p": at_least(chi_square_p(theirs, two_steps), 1e-4),
        "law: first-hitting, p": at_least(chi_square_p(hitting, model.table), 1e-4),
    }


def time_ours(sampler: Unmask, model: Denoiser, rows: int, most: int) -> tuple[float, float]:
    """Seconds and passes per row of a whole run; from its first `most` steps if it has more (they cost the same)."""
    first = next(steps(sampler, model, blank(VOCAB, rows, LENGTH), noise=Noise.of(1)))  # warm up
    assert first.canvas.x.shape == (rows, LENGTH)
    start = time.perf_counter()
    taken = list(itertools.islice(steps(sampler, model, blank(VOCAB, rows, LENGTH), noise=Noise.of(0)), most))
    scale = (LENGTH if sampler == Unmask() else NUM_STEPS) / most if len(taken) == most else 1.0
    passes = sum(float(step.nfe.double().mean()) for step in taken)
    return (time.perf_counter() - start) * scale, passes * scale


def time_textbook(model: Denoiser, rows: int, dtype: torch.dtype, n: int) -> tuple[float, float]:
    """Seconds of one network pass with its softmax, and of one draw."""
    x = blank(VOCAB, rows, LENGTH).x
    with torch.no_grad():
        network = median(seconds(lambda: textbook_probs(model, x), n=n))
        probs = textbook_probs(model, x)
        draw = median(seconds(lambda: textbook_draw(x, probs, 0.5, 0.499, VOCAB.mask_id, dtype), n=n))
    return network, draw


def compare(name: str, model: Denoiser, rows: int, most: int, n: int) -> list[dict[str, str | int | float]]:
    """All samplers with one denoiser."""
    cached = expected_passes(Linear(), NUM_STEPS, LENGTH * rows)
    table: list[dict[str, str | int | float]] = []

    def add(sampler: str, law: str, nfe: float, total: float) -> None:
        speed = rows * LENGTH / total
        table.append({"denoiser": name, "sampler": sampler, "law": law, "nfe": nfe, "seconds": total, "tok/s": speed})

    for dtype, law in ((torch.float32, "N-step, faulty tail"), (torch.float64, "N-step")):
        network, draw = time_textbook(model, rows, dtype, n)
        label = f"textbook {str(dtype).removeprefix('torch.')}"
        add(label, law, float(NUM_STEPS), NUM_STEPS * (network + draw))
        add(f"{label}, cached", law, cached, cached * network + NUM_STEPS * draw)
    add("ancestral", "N-step", *reversed(time_ours(Unmask(Binomial(NUM_STEPS)), model, rows, most)))
    add("first-hitting", "limit N = inf", *reversed(time_ours(Unmask(), model, rows, most)))
    slowest = {row["sampler"]: float(row["seconds"]) for row in table}
    for row in table:
        row["x float32"] = slowest["textbook float32, cached"] / float(row["seconds"])
        row["x float64"] = slowest["textbook float64, cached"] / float(row["seconds"])
    return table


def speed_checks(name: str, part: list[Row]) -> dict[str, dict[str, float | bool]]:
    """The aims of one denoiser; with the network, of ancestral at equal law alone."""
    *_, ancestral, hitting = part
    if name == "6M":
        aim = at_least(float(ancestral["x float64"]), NETWORK_AIM)
        return {"6M: ancestral, cached, against textbook float64, cached": aim}
    return {
        f"{row['sampler']} against textbook {dtype}, cached": at_least(float(row[f"x {dtype}"]), AIM)
        for row in (ancestral, hitting)
        for dtype in ("float32", "float64")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps timed")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--rows", type=int, default=1, help="B")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    most, n = (32, 1) if args.quick else (128, 5)
    makers: dict[str, Callable[[], Denoiser]] = {"lookup": lambda: Lookup.of(VOCAB), "6M": network}
    checks = law_checks(20_000 if args.quick else 200_000)
    rows: list[Row] = []
    for name, make in makers.items():
        part = compare(name, make(), args.rows, LENGTH if name == "lookup" and not args.quick else most, n)
        rows += part
        checks |= speed_checks(name, part)
    table, bare = measured(quick=args.quick, rows=args.rows)
    rows += table
    checks |= bare
    setup = {"B": args.rows, "L": LENGTH, "V": VOCAB.size, "N": NUM_STEPS, "dtype": "float32 logits, float64 draws"}
    setup["sure"] = SURE
    report("sampling", rows, checks=checks, setup=setup)


if __name__ == "__main__":
    main()
