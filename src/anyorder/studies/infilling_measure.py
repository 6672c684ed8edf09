"""How good filled gaps are: against what stood there, and as a left-to-right judge reads the whole text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from anyorder.data.infill import Infill
from anyorder.data.tokenizer import Tokenizer
from anyorder.evaluation.diversity import unigram_entropy
from anyorder.evaluation.gen_ppl import Judge
from anyorder.studies.infilling_fill import Filled
from anyorder.studies.infilling_write import Mean


@dataclass(frozen=True)
class Score:
    """Means over texts, with their standard errors.

    Args:
        num_gaps: of each text.
        exact: 100 where the text is the true one, else 0.
        edits: least number of characters changed, inserted or deleted to get the true gaps, in % of theirs.
        against_truth: 100 (nats - nats of the true text) / nats of the true text, nats being those of a token under the
            judge: "dNLL_gt %".
        against_input: likewise with what is left of the text when its gaps close up: "dNLL_inp %".
        tokens: written into the gaps of a text.
        off: by how many tokens that differs from the truth, up or down.
        entropy: of the whole text's own token frequencies, nats.
    """

    num_gaps: int
    model: str
    sees: str
    told: str
    decoding: str
    texts: int
    exact: Mean
    edits: Mean
    against_truth: Mean
    against_input: Mean
    tokens: Mean
    off: Mean
    entropy: Mean


def truth(items: Sequence[Infill]) -> Filled:
    """The gaps as they were."""
    return Filled("truth", "-", "-", "-", [item.gaps for item in items])


def score(filled: Filled, items: Sequence[Infill], *, tokenizer: Tokenizer, judge: Judge) -> Score:
    """Measure the gaps of some texts."""
    whole = [item.filled(gaps) for item, gaps in zip(items, filled.gaps, strict=True)]
    texts, true = [tokenizer.decode(w) for w in whole], [tokenizer.decode(item.tokens) for item in items]
    rest = [tokenizer.decode(chain.from_iterable(item.texts)) for item in items]
    said, of_truth, of_rest = (per_token(judge, some) for some in (texts, true, rest))
    edits = [
        sum(distance(tokenizer.decode(a), tokenizer.decode(b)) for a, b in zip(gaps, item.gaps, strict=True))
        / sum(len(tokenizer.decode(gap)) for gap in item.gaps)
        for item, gaps in zip(items, filled.gaps)
    ]
    tokens, wanted = (_counts(gaps) for gaps in (filled.gaps, [item.gaps for item in items]))
    return Score(
        num_gaps=len(items[0].gaps),
        model=filled.model,
        sees=filled.sees,
        told=filled.told,
        decoding=filled.decoding,
        texts=len(items),
        exact=Mean.of(torch.tensor([100.0 * (a == b) for a, b in zip(texts, true)]).double()),
        edits=Mean.of(100 * torch.tensor(edits).double()),
        against_truth=Mean.of(100 * (said - of_truth) / of_truth),
        against_input=Mean.of(100 * (said - of_rest) / of_rest),
        tokens=Mean.of(tokens),
        off=Mean.of((tokens - wanted).abs()),
        entropy=Mean.of(unigram_entropy([torch.tensor(w) for w in whole])),
    )


def per_token(judge: Judge, texts: Sequence[str]) -> Float[Tensor, " N"]:
    """Nats of a token of each text under the judge."""
    said = judge.nll(texts)
    return said.nats / said.scored


def distance(a: str, b: str) -> int:
    """Least number of characters to insert, delete or change that makes one text of the other (Levenshtein)."""
    above = list(range(len(b) + 1))
    for i, mine in enumerate(a, start=1):
        row = [i]
        for j, theirs in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (mine != theirs)))
        above = row
    return above[-1]


def _counts(many: Sequence[Sequence[Sequence[int]]]) -> Float[Tensor, " N"]:
    return torch.tensor([sum(map(len, gaps)) for gaps in many], dtype=torch.float64)
