"""The published samplers by name: what each is made of, where it comes from, what it costs."""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyorder.core.config import nearest, parse_spec
from anyorder.core.protocols import Sampler
from anyorder.core.schedule import LogLinear
from anyorder.samplers.adaptive import EntropyBound, Factor, Threshold
from anyorder.samplers.blockwise import Blockwise
from anyorder.samplers.causal import Causal
from anyorder.samplers.count import Binomial, One, Quota, check_num_steps
from anyorder.samplers.high_order import Corrected, Extrapolated
from anyorder.samplers.inserting import INSERTING
from anyorder.samplers.insertion import Insert, Room
from anyorder.samplers.look import CountRule
from anyorder.samplers.position import Confidence, HighestEntropy, LeftToRight, Moment, Uniform
from anyorder.samplers.preset import ANCESTRAL_STEPS, Preset, flag, whole
from anyorder.samplers.revising import REVISING
from anyorder.samplers.schedules import read_schedule
from anyorder.samplers.sliding import Sliding
from anyorder.samplers.steered import Steered
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask

GROUPS = 64
MDLM_STEPS = 1000
MASKGIT_STEPS = 12
LLADA_EOT = 126348.0  # LLaDA's <|eot_id|>, which ends a turn of a chat


def _one_or_binomial(num_steps: int | None) -> CountRule:
    return One() if num_steps is None else Binomial(num_steps)


def _one_or_quota(num_steps: int | None, curve: str = "even") -> CountRule:
    return One() if num_steps is None else Quota(num_steps, curve)


def _cooled(token: TokenRule, beta: float) -> TokenRule:
    """The token rule at temperature 1/beta of what it was."""
    return dataclasses.replace(token, temperature=token.temperature / beta)


def _low_confidence(num_steps: int | None, token: TokenRule, given: Mapping[str, float]) -> Unmask:
    """LLaDA's low-confidence remasking with the two switches of its evaluation."""
    eos_last = flag("confidence_eos_eot_inf", given)
    without = (whole("eot", given),) if eos_last else ()
    position = Confidence("drawn", given["noise"], eos_last=eos_last, without=without)
    never_eos = flag("logits_eos_inf", given)
    return Unmask(_one_or_quota(num_steps), position, token, order="draw_first", never_eos=never_eos)


PRESETS: dict[str, Preset] = {
    "first-hitting": Preset(
        build=lambda num_steps, token, given: Unmask(_one_or_quota(num_steps), Uniform(), token),
        paper="arXiv:2409.02908",
        about="one token per pass in uniformly random order, the limit of ancestral; or equal groups in N steps",
        nfe="L, or at most N",
        paced=True,
    ),
    "first-hitting-extrapolated": Preset(
        build=lambda num_steps, token, given: Extrapolated(num_steps or GROUPS, token),
        paper="arXiv:2409.02908",
        about=f"first-hitting in N groups ({GROUPS}), tokens from two predictions extrapolated to their times",
        nfe="at most N",
        paced=True,
    ),
    "first-hitting-corrected": Preset(
        build=lambda num_steps, token, given: Corrected(num_steps or GROUPS, token),
        paper="arXiv:2409.02908",
        about=f"experimental: first-hitting in N groups ({GROUPS}), each drawn again with the next prediction",
        nfe="at most N",
        paced=True,
    ),
    "ancestral": Preset(
        build=lambda num_steps, token, given: Unmask(Binomial(num_steps or ANCESTRAL_STEPS), Uniform(), token),
        paper="arXiv:2107.03006, arXiv:2406.07524",
        about=f"each position opens on its own, linear schedule, N steps ({ANCESTRAL_STEPS}); idle ones are free",
        nfe="N (1 - (1 - 1/N)^L)",
        paced=True,
    ),
    "mdlm-cache": Preset(
        build=lambda num_steps, token, given: Unmask(Binomial(num_steps or MDLM_STEPS, LogLinear()), Uniform(), token),
        paper="arXiv:2406.07524",
        about=f"MDLM's ddpm_cache: ancestral on its log-linear schedule, N steps ({MDLM_STEPS}); idle ones are free",
        nfe="at most L",
        paced=True,
    ),
    "llada-random": Preset(
        build=lambda num_steps, token, given: Unmask(
            _one_or_quota(num_steps), Uniform(), token, never_eos=flag("logits_eos_inf", given)
        ),
        paper="arXiv:2502.09992",
        about="LLaDA's random remasking: uniformly random order, one per pass, or equal groups in N steps",
        nfe="L, or at most N",
        paced=True,
        settings={"logits_eos_inf": 0.0},
    ),
    "bd3-lm": Preset(
        build=lambda num_steps, token, given: Unmask(
            _one_or_quota(num_steps), Uniform(), dataclasses.replace(token, crossing=flag("crossing", given))
        ),
        paper="arXiv:2503.09573",
        about="BD3-LM: first-hitting in each of its blocks; top-p drops the token that crosses p, as its code does",
        nfe="L, or at most N",
        paced=True,
        settings={"crossing": 0.0},
    ),
    "top-prob": Preset(
        build=lambda num_steps, token, given: Unmask(
            _one_or_binomial(num_steps), Confidence("prob", given["noise"]), token
        ),
        paper="arXiv:2502.06768",
        about="the positions the model is surest of first: one per pass, or as many as ancestral with N steps",
        nfe="L, or at most N",
        paced=True,
        settings={"noise": 0.0},
    ),
    "margin": Preset(
        build=lambda num_steps, token, given: Unmask(
            _one_or_binomial(num_steps), Confidence("margin", given["noise"]), token
        ),
        paper="arXiv:2502.06768",
        about="first where the best token leads the second best by most; paced as top-prob",
        nfe="L, or at most N",
        paced=True,
        settings={"noise": 0.0},
    ),
    "entropy": Preset(
        build=lambda num_steps, token, given: Unmask(
            _one_or_binomial(num_steps), Confidence("entropy", given["noise"]), token
        ),
        paper="arXiv:2502.06768",
        about="first where the prediction has the lowest entropy; paced as top-prob",
        nfe="L, or at most N",
        paced=True,
        settings={"noise": 0.0},
    ),
    "highest-entropy": Preset(
        build=lambda num_steps, token, given: Unmask(_one_or_quota(num_steps), HighestEntropy(), token),
        paper="arXiv:2411.06438",
        about="first where the prediction has the highest entropy (EAGS): one per pass, or equal groups in N steps",
        nfe="L, or at most N",
        paced=True,
    ),
    "threshold": Preset(
        build=lambda num_steps, token, given: Unmask(Threshold(given["tau"]), Confidence("prob"), token),
        paper="arXiv:2505.22618",
        about="all positions whose best token has probability 0.9 or more, at least one (Fast-dLLM)",
        nfe="1 to L",
        settings={"tau": 0.9},
    ),
    "factor": Preset(
        build=lambda num_steps, token, given: Unmask(Factor(given["f"]), Confidence("prob"), token),
        paper="arXiv:2505.22618",
        about="the n surest positions with (n + 1)(1 - confidence) <= 1, at least one (Fast-dLLM)",
        nfe="1 to L",
        settings={"f": 1.0},
    ),
    "entropy-bound": Preset(
        build=lambda num_steps, token, given: Unmask(EntropyBound(given["gamma"]), Confidence("entropy"), token),
        paper="arXiv:2505.24857",
        about="the positions of lowest entropy while what drawing them together can lose stays within 0.1 nats",
        nfe="1 to L",
        settings={"gamma": 0.1},
    ),
    "low-confidence": Preset(
        build=lambda num_steps, token, given: _low_confidence(num_steps, token, given),
        paper="arXiv:2502.09992",
        about="LLaDA: draw everywhere, keep the likeliest draws: one per pass, or equal groups in N steps",
        nfe="L, or at most N",
        paced=True,
        settings={"noise": 0.0, "logits_eos_inf": 0.0, "confidence_eos_eot_inf": 0.0, "eot": LLADA_EOT},
    ),
    "dream-maskgit-plus": Preset(
        build=lambda num_steps, token, given: Unmask(
            _one_or_quota(num_steps, "dream"),
            Confidence("drawn", given["alg_temp"], linear=True, shaped=True),
            token,
            order="draw_first",
        ),
        paper="arXiv:2508.15487",
        about="Dream: draw everywhere, keep the likeliest draws, in N steps of Dream's own plan",
        nfe="L, or at most N",
        paced=True,
        settings={"alg_temp": 0.0},
    ),
    "dream-margin": Preset(
        build=lambda num_steps, token, given: Unmask(
            _one_or_quota(num_steps, "dream"), Confidence("margin", given["alg_temp"], linear=True, shaped=True), token
        ),
        paper="arXiv:2508.15487",
        about="Dream's topk_margin: largest lead first, in N steps of Dream's own plan",
        nfe="L, or at most N",
        paced=True,
        settings={"alg_temp": 0.0},
    ),
    "dream-entropy": Preset(
        build=lambda num_steps, token, given: Unmask(
            _one_or_quota(num_steps, "dream"), Confidence("entropy", given["alg_temp"], linear=True, shaped=True), token
        ),
        paper="arXiv:2508.15487",
        about="Dream's entropy: lowest entropy first, in N steps of Dream's own plan",
        nfe="L, or at most N",
        paced=True,
        settings={"alg_temp": 0.0},
    ),
    "maskgit": Preset(
        build=lambda num_steps, token, given: Unmask(
            Quota(num_steps or MASKGIT_STEPS, "cosine"),
            Confidence("drawn", noise=given["noise"], anneal=num_steps or MASKGIT_STEPS),
            token,
            order="draw_first",
        ),
        paper="arXiv:2202.04200",
        about=f"draw everywhere, keep by log p + Gumbel noise (4.5, falling), cosine plan, N steps ({MASKGIT_STEPS})",
        nfe="at most N",
        paced=True,
        settings={"noise": 4.5},
    ),
    "moment": Preset(
        build=lambda num_steps, token, given: Unmask(
            Quota(num_steps or MASKGIT_STEPS, "cosine"), Moment(given["beta"]), _cooled(token, given["beta"])
        ),
        paper="arXiv:2510.04525",
        about="MaskGIT, positions chosen first: weight sum p^beta, tokens from p^beta (beta 2), N steps",
        nfe="at most N",
        paced=True,
        settings={"beta": 2.0},
    ),
    **REVISING,
    "left-to-right": Preset(
        build=lambda num_steps, token, given: Unmask(One(), LeftToRight(), token),
        paper="arXiv:2502.06768",
        about="one token per pass from left to right, seeing prompts on both sides",
        nfe="L",
    ),
    "causal": Preset(
        build=lambda num_steps, token, given: Causal(token),
        paper="arXiv:2005.14165",
        about="one token per pass from left to right, seeing the left side only: how an autoregressive model writes",
        nfe="L",
    ),
}

EVERY_PRESET = {**PRESETS, **INSERTING}  # those that write masks, and those that insert


def make_sampler(
    name: str,
    *,
    num_steps: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    block: int | None = None,
    aligned: bool = False,
    window: int | None = None,
    stride: int | None = None,
    gaps: Sequence[Room] | None = None,
) -> Sampler:
    """The named sampler with a token rule.

    Args:
        name: a key of `EVERY_PRESET`, with settings of its own if wanted: "threshold:tau=0.8"; or the .json file of a
            schedule that `anyorder rl` has learned.
        block, aligned: write block by block, so many positions each, as in `Blockwise`; num_steps are then per block.
        window, stride: the network reads `window` positions, which slide along the row by `stride`.
        gaps: of a sampler that inserts, as in `Insert`.
    Raises:
        ValueError: an unknown name, a value outside its range, or one for a sampler that has no such thing.
    """
    spec = name
    name, given = parse_spec(spec)
    preset = preset_of(spec)
    if name in INSERTING:
        _refuse_for_insertion(name, {"num_steps": num_steps, "block": block, "stride": stride})
    if num_steps is not None:
        check_num_steps(num_steps)
        if not preset.paced:
            if name.endswith(".json"):
                raise ValueError(f"sampler.num_steps={num_steps}: {name} has its own number of steps; leave it out")
            paced = ", ".join(n for n, p in PRESETS.items() if p.paced)
            raise ValueError(
                f"sampler.num_steps={num_steps}: {name} writes one token per step; leave it out, or use: {paced}"
            )
    token = TokenRule(temperature=temperature, top_k=top_k, top_p=top_p)
    sampler = preset.build(num_steps, token, _settings(spec, given, preset.settings))
    if isinstance(sampler, Insert):
        return sampler if gaps is None else dataclasses.replace(sampler, gaps=tuple(gaps))
    if gaps is not None:
        raise ValueError(f"sampler.gaps: {name} writes as many tokens as there are masks; leave it out")
    if block is not None:
        sampler = Blockwise(sampler, block, aligned)
    if stride is None:
        return sampler
    if window is None:
        raise ValueError(f"sampler.stride={stride}: needs sampler.window, the number of positions the network reads")
    return Sliding(sampler, window, stride)


def preset_of(spec: str) -> Preset:
    """The preset a name with or without settings belongs to.

    Raises:
        ValueError: an unknown name.
    """
    name = parse_spec(spec)[0]
    if name.endswith(".json"):
        return Preset(
            build=lambda num_steps, token, given: _steered(Path(name), token),
            paper="arXiv:2512.22288",
            about="a schedule from a file",
            nfe="at most N, twice as many where guided",
        )
    if name not in EVERY_PRESET:
        near = difflib.get_close_matches(name, EVERY_PRESET, n=1, cutoff=0.0)[0]
        raise ValueError(f"sampler={name!r}: unknown; did you mean {near!r}? known: {', '.join(EVERY_PRESET)}")
    return EVERY_PRESET[name]


def _steered(path: Path, token: TokenRule) -> Steered:
    """The sampler of a schedule's file, which has temperatures of its own."""
    if token != TokenRule():
        raise ValueError(f"sampler={str(path)!r}: the schedule sets temperatures; leave those, top-k and top-p out")
    return read_schedule(path)


def inserts(spec: str) -> bool:
    """Whether the sampler of this name inserts tokens instead of writing masks; ValueError as `preset_of`."""
    preset_of(spec)
    return parse_spec(spec)[0] in INSERTING


def _refuse_for_insertion(name: str, given: Mapping[str, int | None]) -> None:
    for key, value in given.items():
        if value is not None:
            raise ValueError(
                f"sampler.{key}={value}: {name} inserts tokens where it likes until the model stops; leave it out"
            )


def _settings(spec: str, given: Mapping[str, str], known: Mapping[str, float]) -> dict[str, float]:
    """The published numbers with the user's own in their places."""
    numbers = dict(known)
    for key, value in given.items():
        if key not in known:
            way_out = nearest(key, known) if known else "it has none"
            raise ValueError(f"sampler={spec!r}: unknown setting {key!r}; {way_out}")
        try:
            numbers[key] = float(value)
        except ValueError:
            raise ValueError(f"sampler={spec!r}: {key}={value!r} is no number; give one") from None
        if not math.isfinite(numbers[key]):
            raise ValueError(f"sampler={spec!r}: {key}={value} must be finite; published is {known[key]:g}")
    return numbers
