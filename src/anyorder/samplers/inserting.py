"""The samplers of insertion models, by name. Their settings are those of `Insert`; 0 means what it leaves out."""

from collections.abc import Mapping

from anyorder.samplers.insertion import Insert
from anyorder.samplers.preset import Preset
from anyorder.samplers.token import TokenRule

DRAWN: Mapping[str, float] = {
    "stop": 0.0,  # draw the stop with its chance; else stop when the chance reaches this
    "position_temperature": 1.0,
    "position_top_k": 0.0,
    "position_top_p": 1.0,
    "at_once": 1.0,
}


def _insert(token: TokenRule, given: Mapping[str, float]) -> Insert:
    """Values that are no good are refused by name: ValueError."""
    try:
        position = TokenRule(
            temperature=given["position_temperature"],
            top_k=_whole("position_top_k", given),
            top_p=given["position_top_p"],
        )
    except ValueError as error:
        raise ValueError(str(error).replace("sampler.t", "sampler.position_t")) from None
    return Insert(position, token, stop=given["stop"] or None, at_once=_whole("at_once", given))


def _whole(key: str, given: Mapping[str, float]) -> int:
    if not given[key].is_integer():
        raise ValueError(f"sampler: {key}={given[key]:g}: must be a whole number")
    return int(given[key])


INSERTING: dict[str, Preset] = {
    "insertion": Preset(
        build=lambda num_steps, token, given: _insert(token, given),
        paper="arXiv:2505.05755",
        about="one token per pass, its position first, until the model says that nothing is missing; all of it drawn",
        nfe="at most L + 1",
        settings=DRAWN,
    ),
    "ilm": Preset(
        build=lambda num_steps, token, given: _insert(token, given),
        paper="arXiv:2505.05755",
        about="as published: the likeliest position, an end where its chance is 0.9 (texts: --top-p 0.2 to 0.9 too)",
        nfe="at most L + 1",
        settings={**DRAWN, "stop": 0.9, "position_top_k": 1.0},
    ),
}
