"""What a model says of rows that hold masks and may grow: a token for each mask, masks to come, and whether to end.

Such a model is a `Denoiser` with two columns more than its vocabulary: the log-rate at which masks are inserted just
after a position, and the log-odds that nothing is missing. Documents begin with end-of-document, as those of an
`Inserting` model do.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.core.types import Vocab


@dataclass(frozen=True)
class Growth:
    """The answer at N named positions.

    Args:
        tokens: logits of the token behind a mask; mean nothing where no mask stands.
        log_rate: how fast masks are inserted just after the position, against the rate 1 at which a mask is replaced
            by its token.
        stop: log-odds that nothing is missing from a document without masks, at its first position; mean nothing
            elsewhere.
    """

    tokens: Float[Tensor, "N V"]
    log_rate: Float[Tensor, " N"]
    stop: Float[Tensor, " N"]

    def columns(self) -> Float[Tensor, "N W"]:
        """One row a position: tokens, then rate, then stop; W = V + 2."""
        two = torch.stack([self.log_rate, self.stop], -1)
        return torch.cat([self.tokens, two.to(self.tokens.dtype)], -1)


def growth_of(answer: Float[Tensor, "N W"], vocab: Vocab) -> Growth:
    """The parts of an answer; inverse of `Growth.columns`.

    Raises:
        ValueError: an answer of another width: the model's rows do not grow.
    """
    if answer.shape[1] != vocab.size + 2:
        raise ValueError(
            f"the model answers with {answer.shape[1]} columns, not {vocab.size} + 2: its rows do not grow; use one "
            "trained with the process flexmdm"
        )
    return Growth(answer[:, : vocab.size], answer[:, vocab.size], answer[:, vocab.size + 1])
