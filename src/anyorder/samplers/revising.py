"""The published samplers that take tokens back or replace them, by name."""

import dataclasses
from collections.abc import Mapping

from anyorder.core.schedule import Linear
from anyorder.samplers.adaptive import Threshold
from anyorder.samplers.keep_best import Best, LowestConfidence
from anyorder.samplers.position import Confidence, Uniform
from anyorder.samplers.preset import ANCESTRAL_STEPS, Preset, flag
from anyorder.samplers.remasking import Alpha, Cap, Corrector, During, Plateau, Psi, Remasking, Rescale, Sigma
from anyorder.samplers.revise import Edit, ReMDM, Written
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask

RDM_STEPS = 50


def _remasking(
    num_steps: int | None,
    token: TokenRule,
    given: Mapping[str, float],
    sigma: Sigma,
    *,
    schedule: Alpha | None = None,
    by_confidence: bool = False,
) -> Unmask:
    """Writing and taking back along one path; the public code's top-p drops the token that crosses p: crossing=0."""
    token = dataclasses.replace(token, crossing=flag("crossing", given))
    path = Remasking(num_steps or ANCESTRAL_STEPS, sigma, schedule or Linear(), by_confidence)
    return Unmask(Written(path), Uniform(), token, revise=ReMDM(path))


def _planned(revise: LowestConfidence, token: TokenRule) -> Unmask:
    """Draw everywhere, keep the best of drawn and written tokens."""
    return Unmask(revise.best, Confidence("drawn"), token, "draw_first", revise)


REVISING: dict[str, Preset] = {
    "remdm-cap": Preset(
        build=lambda num_steps, token, given: _remasking(num_steps, token, given, Cap(given["eta"])),
        paper="arXiv:2503.00307",
        about="ancestral, and every written token goes back with chance 0.04 or the most allowed, N steps (256)",
        nfe="at most N",
        paced=True,
        settings={"eta": 0.04, "crossing": 1.0},
    ),
    "remdm-rescale": Preset(
        build=lambda num_steps, token, given: _remasking(num_steps, token, given, Rescale(given["eta"])),
        paper="arXiv:2503.00307",
        about="ancestral, and every written token goes back with 0.04 times the most allowed chance, N steps (256)",
        nfe="at most N",
        paced=True,
        settings={"eta": 0.04, "crossing": 1.0},
    ),
    "remdm-conf": Preset(
        build=lambda num_steps, token, given: _remasking(
            num_steps, token, given, Rescale(given["eta"]), by_confidence=True
        ),
        paper="arXiv:2503.00307",
        about="ancestral, and at most about one token a step goes back, rather the improbable ones, N steps (256)",
        nfe="at most N",
        paced=True,
        settings={"eta": 1.0, "crossing": 1.0},
    ),
    "remdm-switch": Preset(
        build=lambda num_steps, token, given: _remasking(
            num_steps, token, given, During(Cap(given["eta"]), start=given["start"])
        ),
        paper="arXiv:2503.00307",
        about="as remdm-cap in the second half of the steps, ancestral before, N steps (256)",
        nfe="at most N",
        paced=True,
        settings={"eta": 0.04, "start": 0.5, "crossing": 1.0},
    ),
    "remdm-loop": Preset(
        build=lambda num_steps, token, given: _remasking(
            num_steps,
            token,
            given,
            During(Cap(given["eta"]), given["start"], given["end"]),
            schedule=Plateau(given["start"], given["end"], given["level"]),
        ),
        paper="arXiv:2503.00307",
        about="nine tenths written, then half the steps rewriting at that level, then the rest, N steps (256)",
        nfe="at most N",
        paced=True,
        settings={"eta": 0.02, "start": 0.55, "end": 0.05, "level": 0.9, "crossing": 1.0},
    ),
    "forward-backward": Preset(
        build=lambda num_steps, token, given: _remasking(num_steps, token, given, Corrector()),
        paper="arXiv:2503.00307",
        about="as many tokens go back in a step as one step forward writes, N steps (256)",
        nfe="at most N",
        paced=True,
        settings={"crossing": 1.0},
    ),
    "dfm-corrector": Preset(
        build=lambda num_steps, token, given: _remasking(
            num_steps, token, given, Corrector(given["scale"], given["power"])
        ),
        paper="arXiv:2503.00307",
        about="the corrector of discrete flow matching: rewrites most in the middle of the steps, N steps (256)",
        nfe="at most N",
        paced=True,
        settings={"scale": 10.0, "power": 0.25, "crossing": 1.0},
    ),
    "psi": Preset(
        build=lambda num_steps, token, given: _remasking(num_steps, token, given, Psi(given["kappa"])),
        paper="arXiv:2602.21185",
        about="0.95 of the reverse step, 0.05 of noising the prediction anew, N steps (256)",
        nfe="at most N",
        paced=True,
        settings={"kappa": 0.95, "crossing": 1.0},
    ),
    "psi-plateau": Preset(
        build=lambda num_steps, token, given: _remasking(
            num_steps,
            token,
            given,
            During(Psi(given["kappa"]), given["start"], given["end"]),
            schedule=Plateau(given["start"], given["end"], given["level"]),
        ),
        paper="arXiv:2602.21185",
        about="psi in the middle 0.6 of the steps, at half the tokens written; ancestral before and after (256)",
        nfe="at most N",
        paced=True,
        settings={"kappa": 0.95, "start": 0.8, "end": 0.2, "level": 0.5, "crossing": 1.0},
    ),
    "p2": Preset(
        build=lambda num_steps, token, given: _planned(
            LowestConfidence(Best(num_steps or ANCESTRAL_STEPS, given["eta"])), token
        ),
        paper="arXiv:2502.03540",
        about="draw everywhere, keep the likeliest of drawn and written tokens, more in each of N steps (256)",
        nfe="at most N",
        paced=True,
        settings={"eta": 1.0},
    ),
    "rdm": Preset(
        build=lambda num_steps, token, given: _planned(
            LowestConfidence(Best(num_steps or RDM_STEPS, curve="cosine", judge="drawn"), "fallen"), token
        ),
        paper="arXiv:2308.12219",
        about=f"DiffusionLLM: as p2, but only written tokens that lost confidence go back, N steps ({RDM_STEPS})",
        nfe="at most N",
        paced=True,
    ),
    "llada-edit": Preset(
        build=lambda num_steps, token, given: Unmask(
            Threshold(given["tau"]), Confidence("prob"), token, revise=Edit(given["edit"])
        ),
        paper="arXiv:2602.08676",
        about="LLaDA2.1: threshold 0.95, and written tokens are replaced by others of probability above 0.9",
        nfe="1 to L + 16",
        settings={"tau": 0.95, "edit": 0.9},
    ),
}
