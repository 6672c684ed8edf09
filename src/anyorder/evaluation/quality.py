"""The quality of written text: generative perplexity and entropy together, never one without the other."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from anyorder.data.tokenizer import Tokenizer
from anyorder.evaluation.diversity import distinct, repetition, unigram_entropy
from anyorder.evaluation.gen_ppl import Judge, documents, perplexity

NOISE = "float64 uniforms, one per drawn token"
COLUMNS = ("text", "gen-PPL", "entropy", "distinct-1", "-2", "-3", "repeated-4", "rows", "length", "scored", "passes")


@dataclass(frozen=True)
class Figures:
    """What is measured of a set of rows. Perplexity and entropy come together: one of them is never made alone.

    Args:
        gen_ppl: exp(sum of nats / tokens scored) under the judge; stderr by jackknife over rows.
        entropy: of each row's own token frequencies, nats, mean over rows with a token; stderr over these.
        distinct: different over all n-grams of the set, n = 1, 2, 3.
        repetition: share of a row's 4-grams that stand in it already, mean over rows.
        rows, length: how many, and of how many tokens in the mean, by the writer's tokenizer.
        scored, cut: tokens the judge scored, and those beyond its length that it did not read, by its own tokenizer.
        empty: rows without any text; they count no token.
    Raises:
        ValueError: a perplexity or an entropy that is no number.
    """

    gen_ppl: float
    gen_ppl_stderr: float
    entropy: float
    entropy_stderr: float
    distinct: tuple[float, float, float]
    repetition: float
    rows: int
    length: float
    scored: int
    cut: int
    empty: int

    def __post_init__(self) -> None:
        if math.isnan(self.gen_ppl) or math.isnan(self.entropy):
            raise ValueError(
                f"gen_ppl={self.gen_ppl} entropy={self.entropy}: both must be numbers, as neither is shown alone"
            )

    def cells(self, text: str, *, passes: str) -> list[str]:
        """A row of a table under `COLUMNS`."""
        both = [_with_error(self.gen_ppl, self.gen_ppl_stderr, 2), _with_error(self.entropy, self.entropy_stderr, 3)]
        rest = ["-" if math.isnan(v) else f"{v:.3f}" for v in (*self.distinct, self.repetition)]
        return [text, *both, *rest, str(self.rows), f"{self.length:.5g}", str(self.scored), passes]


@dataclass(frozen=True)
class Sampling:
    """How the rows were written.

    Args:
        model: the run.
        sampler, num_steps, temperature, top_k, top_p, block, seed: as in `LanguageModel.sample`.
        dtype: of the network's activations.
        nfe: network passes per row, mean.
        noise: what tokens are drawn with.
        rejected: rows written and thrown away; none ever are: all rows written are scored.
    """

    model: str
    sampler: str
    num_steps: int | None
    temperature: float
    top_k: int
    top_p: float
    block: int | None
    seed: int
    dtype: str
    nfe: float
    noise: str = NOISE
    rejected: int = 0

    def __str__(self) -> str:
        """The sampler and its settings but the temperature, which a frontier varies."""
        given = {"steps": self.num_steps, "block": self.block, "top-k": self.top_k or None}
        named = [f"{name} {value}" for name, value in given.items() if value is not None]
        cut = [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        return ", ".join([self.sampler, *named, *cut])


@dataclass(frozen=True)
class Quality:
    """Figures of samples with all that belongs to them: how they were made, by whom judged, and real text's figures.

    Args:
        reference: figures of held-out text under the same judge; None where there is none.
        judge, first_token: the judge's name, and what it does with the first token of a text.
        mauve: of samples and held-out text in the judge's hidden states; None if not asked for.
    """

    figures: Figures
    sampling: Sampling
    judge: str
    first_token: str
    reference: Figures | None = None
    mauve: float | None = None

    def __str__(self) -> str:
        f = self.figures
        both = f"gen-PPL {_with_error(f.gen_ppl, f.gen_ppl_stderr, 2)} under {self.judge}"
        entropy = f"entropy {_with_error(f.entropy, f.entropy_stderr, 3)} nats"
        how = f"{self.sampling}, temperature {self.sampling.temperature:g}, {self.sampling.nfe:.1f} passes a row"
        made = f"{f.rows} rows of {f.length:.5g} tokens, {how}"
        return f"{both}, {entropy}, distinct-1/2/3 {'/'.join(f'{v:.3f}' for v in f.distinct)}: {made}"


def measure(rows: Iterable[Int[Tensor, " _"]], *, tokenizer: Tokenizer, judge: Judge) -> Figures:
    """Perplexity, entropy and diversity of written rows.

    The judge reads a row as text, document by document (`documents`); what it reads are therefore its own tokens, not
    the writer's. End-of-document tokens are not scored. Entropy and n-grams are those of the writer's tokens, the whole
    row.

    Args:
        rows: a tensor of them, or a list of tensors where they have different lengths.
        tokenizer: the writer's.
    Raises:
        ValueError: fewer than 2 rows with text, or text that the judge cannot read.
    """
    rows = [row.cpu() for row in rows]
    if len(rows) < 2:
        raise ValueError(
            f"n={len(rows)}: quality is measured on at least 2 samples, and means little below 50; raise n"
        )
    parts = [documents(row.tolist(), eos_id=tokenizer.vocab.eos_id) for row in rows]
    owner = torch.tensor([number for number, found in enumerate(parts) for _ in found], dtype=torch.int64)
    if not len(owner):
        raise ValueError("the samples hold no text at all, only end-of-document tokens; there is nothing to judge")
    said = judge.nll([tokenizer.decode(part) for found in parts for part in found])
    nats = torch.zeros(len(rows), dtype=torch.float64).index_add(0, owner, said.nats)
    scored = torch.zeros(len(rows), dtype=torch.int64).index_add(0, owner, said.scored)
    ppl, ppl_error = perplexity(nats, scored)
    entropy = unigram_entropy([row for row in rows if len(row)])
    return Figures(
        gen_ppl=ppl,
        gen_ppl_stderr=ppl_error,
        entropy=float(entropy.mean()),
        entropy_stderr=float(entropy.std() / math.sqrt(len(entropy))),
        distinct=(distinct(rows, 1), distinct(rows, 2), distinct(rows, 3)),
        repetition=repetition(rows, 4),
        rows=len(rows),
        length=sum(map(len, rows)) / len(rows),
        scored=int(scored.sum()),
        cut=int(said.cut.sum()),
        empty=sum(not found for found in parts),
    )


def _with_error(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isnan(error) else f"{value:.{digits}f} ± {error:.{digits}f}"
