"""How well a network predicts a text: windows of the text through an estimator of `anyorder.likelihood`."""

from collections.abc import Sequence

from anyorder.api.values import Score
from anyorder.core.device import canvas_device
from anyorder.core.noise import Noise
from anyorder.data.tokenizer import Tokenizer
from anyorder.likelihood.rolling import rolling
from anyorder.models.network import Network, kind_of

ESTIMATORS = {"mdm": "count", "arm": "causal", "ilm": "insertion"}
REPLICATES = 4  # independent groups of draws behind a standard error
LOGITS_AT_ONCE = 1 << 26  # numbers; bounds the memory of one pass
ROWS_AT_ONCE = 64


def rows_at_once(length: int, *, vocab_size: int) -> int:
    """How many rows of this length go through a network together."""
    return max(1, min(ROWS_AT_ONCE, LOGITS_AT_ONCE // (length * vocab_size)))


def score_texts(
    model: Network, tokenizer: Tokenizer, texts: Sequence[str], *, draws: int, context: int, seed: int
) -> list[Score]:
    """The score of each text; values and errors as in `LanguageModel.score`."""
    if isinstance(texts, str):
        raise ValueError("texts: must be a list of texts, as in score([text])")
    if draws < REPLICATES or draws % REPLICATES:
        raise ValueError(f"draws={draws}: must be a positive multiple of {REPLICATES}, which gives the error")
    noise, made = Noise.of(seed).at("score"), []
    for index, text in enumerate(texts):
        ids = tokenizer.encode(text)
        if not ids:
            raise ValueError(f"texts[{index}]: is empty; there is nothing to score")
        size = len(text.encode())
        made.append(score_tokens(model, ids, num_bytes=size, draws=draws, context=context, noise=noise.at(index)))
    return made


def score_tokens(
    model: Network, ids: list[int], *, num_bytes: int, draws: int, context: int = 0, noise: Noise
) -> Score:
    """The score of a text of these tokens in windows of the model's length.

    Args:
        draws: masked or thinned copies of each window; not used for a causal network.
        context: tokens of each window but the first that were scored before and are only read.
    Raises:
        ValueError: a context outside 0..length-1.
    """
    kind = kind_of(model.config)
    length = model.config.max_length - int(kind == "ilm")  # where end-of-document stands for the beginning
    (made,) = rolling(
        model,
        [ids],
        names=[0],
        estimator=ESTIMATORS[kind],
        length=length,
        context=context,
        draws=draws,
        noise=noise,
        replicates=REPLICATES,
        rows_at_once=rows_at_once(min(length, len(ids)), vocab_size=model.vocab.size),
        device=canvas_device(model.rope_cos.device),
    )
    return Score(
        nats=made.nats,
        stderr=made.stderr,
        num_tokens=len(ids),
        num_bytes=num_bytes,
        estimator=made.estimator,
        draws=1 if kind == "arm" else draws,
        nfe=made.nfe,
        windows=made.windows,
    )
