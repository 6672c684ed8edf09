"""Logits to tokens, the only place where it happens: inverse CDF from one float64 uniform per drawn token.

Whether a position is written is decided elsewhere, before its token is drawn, so the mask never shares a categorical
with the tokens: that, with float32 Gumbel noise, is the defect of arXiv:2409.02908, section 5, kept at the end of this
file. All functions are per row: a row's result is the same alone and in any batch.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from anyorder.core.noise import Noise

BLOCK = 256
FEW = 4  # rows on a CPU that are quicker one by one, as Python's numbers, than by 40 tensor operations
CHUNK = 1 << 22  # logits handled at once: 16 MiB of float32 beside the caller's


def wide(logits: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The same values in at least float32: half precision is widened before any arithmetic."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def log_probs(logits: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """Normalised log-probabilities in nats, float64; -inf logits stay -inf, a row of only -inf becomes nan."""
    return torch.log_softmax(logits, -1, dtype=torch.float64)


def log_prob_of(logits: Float[Tensor, "N V"], tokens: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Log-probability of one named token per row, nats, float64, without a float64 copy of the logits.

    Exact to float64 for float64 logits, to 1e-7 nats otherwise; near 0, where the token is all but certain, to 1e-6 of
    its own size (`rest`).
    """
    out = torch.empty(len(logits), dtype=torch.float64, device=logits.device)
    for rows in row_chunks(logits):
        x = below_top(logits[rows])
        chosen = x.gather(-1, tokens[rows, None]).squeeze(-1)
        out[rows] = chosen.double() - rest(x).log1p()
    return out


def entropy(logits: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """Shannon entropy of each row's law, nats, float64."""
    logp = log_probs(logits)
    return -(logp.exp() * logp.clamp(min=torch.finfo(torch.float64).min)).sum(-1)


def below_top(logits: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """Logits less the largest of their row, at least float32: unnormalised log-probabilities <= 0."""
    x = wide(logits)
    return x - x.max(-1, keepdim=True).values  # not amax: among equals the gradient must go where `rest` leaves one out


def total(mass: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """Row sums, float64: of blocks in the dtype of `mass`, then of the blocks in float64."""
    return _blocks(mass).sum(-1, dtype=torch.float64)


def rest(below: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """(1 - p) / p for the largest probability p of each row, float64: the sum over all tokens but the first of the top.

    Summed without the top's own 1, beside which float32 loses everything below 6e-8: log p = -log1p(rest) tells
    p = 1 - 1e-9 from 1 - 1e-20.

    Args:
        below: `below_top` of the logits.
    """
    top = below.max(-1, keepdim=True)
    others = below.scatter(-1, top.indices, -math.inf).exp()
    return total(others) + 0.0 * top.values.squeeze(-1).double()  # nan where the row has one


def greedy(logits: Float[Tensor, "N V"]) -> Int[Tensor, " N"]:
    """The most likely token, the lowest id among equals; the limit of `temperature` towards 0."""
    return logits.argmax(-1)


def temperature(logits: Float[Tensor, "N V"], tau: float) -> Float[Tensor, "N V"]:
    """Logits of the law p^(1/tau), up to normalisation; at least float32.

    Raises:
        ValueError: tau is not a positive finite number.
    """
    if not 0.0 < tau < math.inf:
        raise ValueError(f"temperature={tau}: must be > 0 and finite; use greedy for the limit 0")
    return wide(logits) / tau


def top_k(logits: Float[Tensor, "N V"], k: int) -> Float[Tensor, "N V"]:
    """Logits with all but the k largest set to -inf; tokens tied with the k-th stay, so more than k may survive.

    Raises:
        ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"top_k={k}: must be >= 1; leave it out to keep every token")
    if k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, -1).values[..., -1:]
    return logits.masked_fill(logits < least, -math.inf)


def top_p(logits: Float[Tensor, "N V"], p: float, *, crossing: bool = True) -> Float[Tensor, "N V"]:
    """Nucleus: the most likely tokens whose mass reaches p, the rest -inf.

    The token that crosses p is KEPT, so the nucleus holds at least p and is never empty; equal tokens enter by id.

    Args:
        crossing: False drops the token that crosses p, so that the nucleus holds at most p; of an empty one the most
            likely token is kept. So do the public codes of MDLM, BD3-LM, ReMDM and ILM.
    Raises:
        ValueError: p outside (0, 1].
    Source:
        arXiv:1904.09751, section 3.1: the smallest set with mass >= p.
    """
    if not 0.0 < p <= 1.0:
        raise ValueError(f"top_p={p}: must be in (0, 1]; 1 keeps every token")
    if p == 1.0:
        return logits
    ranked, order = log_probs(logits).sort(stable=True, dim=-1, descending=True)
    mass = ranked.exp()
    upto = mass.cumsum(-1)
    outside = (upto - mass) >= p if crossing else upto > p  # without it, or with it
    outside[..., 0] = False
    return logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -math.inf)


def draw(logits: Float[Tensor, "N V"], u: Float[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The token of each row whose slice of the cumulative distribution holds u; one uniform per draw.

    Law: exact to 1e-6 relative for every token (float64 logits: 1e-15), up to the 2^-53 lattice of u. A token of logit
    -inf is never drawn. Half-precision logits give the draws of float32 logits of equal value.

    Args:
        u: uniforms in (0, 1), float64 (`Noise.uniform`).
    Returns:
        Token ids; -1 in a row that has no law (nan or +inf among the logits, or all of them -inf).
    Raises:
        ValueError: u is not float64: half and single precision have a lattice that erases rare tokens.
    """
    return draw_with_log_prob(logits, u)[0]


def draw_with_log_prob(
    logits: Float[Tensor, "N V"], u: Float[Tensor, " N"]
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """`draw`, and the log-probability of each drawn token (nats, float64, to 1e-6; nan where there is no law)."""
    if u.dtype != torch.float64:
        raise ValueError(f"u.dtype={u.dtype}: must be torch.float64, as Noise.uniform returns; do not cast the noise")
    chunks = list(row_chunks(logits))
    if len(chunks) < 2:
        return _draw_rows(logits, u)
    token, logp = zip(*(_draw_rows(logits[rows], u[rows]) for rows in chunks))
    return torch.cat(token), torch.cat(logp)


def exponential(u: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Standard exponentials -log(1 - u): fine near 0, where the winner of a race is decided."""
    return -torch.log1p(-u)


def row_chunks(logits: Float[Tensor, "N V"]) -> Iterator[slice]:
    """Slices of rows that bound the working memory; results do not depend on them."""
    rows = max(1, (CHUNK if logits.device.type == "cpu" else 16 * CHUNK) // logits.shape[-1])
    return (slice(start, start + rows) for start in range(0, max(1, len(logits)), rows))


def _blocks(mass: Float[Tensor, "N V"]) -> Float[Tensor, "N G"]:
    """Sums over blocks of consecutive columns, the last one shorter."""
    full = mass.shape[-1] // BLOCK * BLOCK
    head = mass[:, :full].view(len(mass), full // BLOCK, BLOCK).sum(-1)
    return torch.cat([head, mass[:, full:].sum(-1, keepdim=True)], -1)


def _draw_rows(logits: Float[Tensor, "N V"], u: Float[Tensor, " N"]) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """Two levels: a block by its mass, then a token inside it by what is left of the same uniform."""
    mass = torch.softmax(wide(logits), -1)
    share = _blocks(mass).double()
    find = _find_one_by_one if 0 < len(mass) <= FEW and mass.device.type == "cpu" else _find_together
    token, chosen = find(mass, share, u)
    return token, (chosen / share.sum(-1)).log()


def _find_together(
    mass: Float[Tensor, "N V"], share: Float[Tensor, "N G"], u: Float[Tensor, " N"]
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """Tokens and their masses, float64; -1 and nan in a row without a law."""
    block, _, rest = _locate(share, u[:, None])
    column = block * BLOCK + torch.arange(min(BLOCK, mass.shape[-1]), device=mass.device)
    inside = mass.gather(-1, column.clamp(max=mass.shape[-1] - 1)).double() * (column < mass.shape[-1])
    index, chosen, _ = _locate(inside, rest)
    token = torch.where(chosen > 0, column.gather(-1, index), -1)
    return token.squeeze(-1), chosen.squeeze(-1)


def _locate(mass: Float[Tensor, "N K"], u: Float[Tensor, "N 1"]) -> tuple[Int[Tensor, "N 1"], Tensor, Tensor]:
    """The column that holds the fraction u of all mass, its mass, and how far u reaches into it, again a fraction.

    It is the first one whose cumulative mass exceeds u's; never a column of mass 0.
    """
    edges = pad(mass.cumsum(-1), (1, 0))
    below = torch.minimum(u * edges[:, -1:], torch.nextafter(edges[:, -1:], edges[:, :1]))
    index = torch.searchsorted(edges, below, right=True).clamp(1, mass.shape[-1]) - 1
    found = mass.gather(-1, index)
    return index, found, (below - edges.gather(-1, index)) / found


def _find_one_by_one(
    mass: Float[Tensor, "N V"], share: Float[Tensor, "N G"], u: Float[Tensor, " N"]
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """`_find_together` of a few rows, bit for bit the same."""
    found = []
    for row, blocks, aim in zip(mass, share.tolist(), u.tolist()):
        if math.isnan(sum(blocks)):  # no distribution
            found.append((-1, math.nan))
            continue
        block, _, rest = _locate_one(blocks, aim)
        index, chosen, _ = _locate_one(row[block * BLOCK : (block + 1) * BLOCK].tolist(), rest)
        found.append((block * BLOCK + index if chosen > 0 else -1, chosen))
    tokens, masses = zip(*found)
    return torch.tensor(tokens), torch.tensor(masses, dtype=torch.float64)


def _locate_one(mass: list[float], u: float) -> tuple[int, float, float]:
    """`_locate` of one row."""
    edges = [0.0, *accumulate(mass)]
    below = min(u * edges[-1], math.nextafter(edges[-1], 0.0))
    index = min(bisect_right(edges, below), len(mass)) - 1
    return index, mass[index], (below - edges[index]) / mass[index]


def gumbel_argmax_float32_faulty(
    probs: Float[Tensor, "N K"], row: Int[Tensor, " N"], *, noise: Noise, step: int = 0, bits: int = 24
) -> Int[Tensor, " N"]:
    """FAULTY on purpose: one Gumbel-max over {tokens, mask} with single-precision noise, as in MDLM-style samplers.

    Uniforms are multiples of 2^-bits in [0, 1), as float32 generators make them, so -log(-log u) cannot exceed
    M = -log(-log(1 - 2^-24)) = 16.64. Where the mask holds nearly all the mass, tokens rarer than about 2^-24 of it
    vanish: a temperature below 1 that nobody asked for. For reproducing that finding; to sample, use `draw`.

    Args:
        probs: K classes, the mask among them.
        row: names each row's noise.
        bits: 24 for float32, 11 and 8 for float16 and bfloat16 noise.
    Source:
        arXiv:2409.02908, section 5.
    """
    group = torch.arange(-(-probs.shape[-1] // 4), device=probs.device)
    words = torch.stack(noise.words(row[:, None], step, group), -1).flatten(-2)[:, : probs.shape[-1]]
    u = (words >> (32 - bits)).float() * 2.0**-bits
    return (probs.float() / (1e-10 - (u + 1e-10).log())).argmax(-1)


def truncated_gumbel_law(probs: Float[Tensor, " K"], m: float) -> Float[Tensor, " K"]:
    """The law of argmax(log probs + Gumbel noise conditioned to be <= m), float64; m = 16.6355 is single precision.

    Source:
        arXiv:2409.02908, Proposition 5.2 (uniforms rescaled to the largest representable one).
    """
    pi, order = probs.double().sort()
    eps = math.exp(-m)
    classes = len(pi) - torch.arange(len(pi), dtype=torch.float64, device=pi.device)  # K + 1 - i
    tail = pi.flip(0).cumsum(0).flip(0)  # S_i
    before = torch.cat([pi.new_zeros(1), pi[:-1]])
    upper = (classes - tail / pi) * eps
    beta = upper.exp() * -torch.expm1((tail / pi - tail / before) * eps) / tail  # exp(-inf) = 0 for i = 1
    law = torch.where(pi > 0, pi * torch.where(pi > 0, beta, 0.0).cumsum(0), 0.0)
    return torch.empty_like(law).scatter(0, order, law)


def lattice_gumbel_law(probs: Float[Tensor, " K"], mask: float, *, bits: int = 24) -> Float[Tensor, " K"]:
    """Chance that each token beats a dominating mask class under noise on the lattice of 2^-bits, float64.

    eps / expm1(eps * mask / p) with eps = 2^-bits; sums to less than `probs` does: rare tokens are revealed too seldom.

    Args:
        probs: joint masses of the tokens, each far below `mask`.
        mask: mass of the mask class, near 1.
    Source:
        derived for `gumbel_argmax_float32_faulty`; tested against it by simulation.
    """
    eps = 2.0**-bits
    return eps / torch.expm1(eps * mask / probs.double())
