"""The samplers of insertion models, by name. Their settings are those of `Insert`; 0 means what it leaves out."""

import dataclasses
from collections.abc import Mapping

from anyorder.samplers.insertion import Insert
from anyorder.samplers.preset import Preset, flag, whole
from anyorder.samplers.token import TokenRule

DRAWN: Mapping[str, float] = {
    "stop": 0.0,  # draw the stop with its chance; else stop when the chance reaches this
    "position_temperature": 1.0,
    "position_top_k": 0.0,
    "position_top_p": 1.0,
    "at_once": 1.0,
    "crossing": 1.0,  # whether top-p keeps the token that crosses p
}
EVEN = 0.5  # where the stop becomes likelier than going on


def _insert(token: TokenRule, given: Mapping[str, float]) -> Insert:
    """Temperature 0 is greedy in all three draws: the likeliest position and token, and a stop at even odds.

    Raises:
        ValueError: a value outside its range, by name.
    """
    greedy, crossing = token.temperature == 0.0, flag("crossing", given)
    try:
        position = TokenRule(
            temperature=0.0 if greedy else given["position_temperature"],
            top_k=whole("position_top_k", given),
            top_p=given["position_top_p"],
            crossing=crossing,
        )
    except ValueError as error:
        raise ValueError(str(error).replace("sampler.t", "sampler.position_t")) from None
    token = dataclasses.replace(token, crossing=crossing)
    stop = given["stop"] or (EVEN if greedy else None)
    return Insert(position, token, stop=stop, at_once=whole("at_once", given))


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
        settings={**DRAWN, "stop": 0.9, "position_top_k": 1.0, "crossing": 0.0},
    ),
}
