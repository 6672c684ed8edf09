"""Documents of any length in text: how likely each is, all of them scored together."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from anyorder.evaluation.answers import Scoring, key_of
from anyorder.evaluation.subject import Subject, name_of, stream
from anyorder.likelihood.rolling import Rolled, rolling

DRAWS = 32  # masked copies of each window where no number is given


@torch.no_grad()
def score_documents(subject: Subject, texts: Sequence[str], scoring: Scoring, *, context: int = 0) -> list[Rolled]:
    """The likelihood of each text, or the bound on it. A text's values do not depend on the others.

    Args:
        context: tokens that each window but the first reads without scoring them.
    Raises:
        ValueError: a text without tokens, as `rolling`, or guidance for an autoregressive model.
    """
    how = _settled(subject, scoring)
    encoded = [subject.encode(text) for text in texts]
    return rolling(
        subject.guided(how.guidance),
        [subject.after_bos(ids) for ids in encoded],
        names=[name_of(ids) for ids in encoded],
        estimator=str(how.estimator),
        length=subject.max_length,
        context=context,
        given=0 if subject.bos_id is None else 1,
        draws=how.draws or DRAWS,
        noise=stream(how.seed, "rolling"),
        rows_at_once=subject.rows_per_pass,
        device=subject.device,
    )


def document_key(subject: Subject, text: str, scoring: Scoring, *, context: int) -> str:
    """The name of a text's result."""
    return key_of(subject, "document", text, sorted(asdict(_settled(subject, scoring)).items()), context)


def _settled(subject: Subject, scoring: Scoring) -> Scoring:
    """The settings with nothing left open."""
    return replace(
        scoring,
        estimator=scoring.estimator_of(subject.kind),
        draws=scoring.draws or DRAWS,
        guidance=float(scoring.guidance),
    )
