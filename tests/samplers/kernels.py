"""The law of any `Unmask` by enumeration of everything one step can draw: tokens, positions, tokens taken back.

It walks over all canvases a sampler can reach and never draws. What a rule may choose it hears from the rule's own
chances (`CountRule.chance`, `PositionRule.weights`, `ReMDM.chance`); how choices make a step is written here again.
"""

import itertools
from collections import defaultdict
from dataclasses import replace

import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Canvas, Carry
from anyorder.samplers.chances import count_log_prob, position_log_prob
from anyorder.samplers.look import Look
from anyorder.samplers.revise import ReMDM


def output_law(sampler, model, length, *, most=1000):
    """Probability of each of the size**length sequences in lexicographic order."""
    vocab = model.vocab
    canvas = Canvas.of(torch.full((1, length), vocab.mask_id), vocab=vocab)
    carry = sampler.init(canvas, vocab=vocab)
    states = {key(canvas, carry): 1.0}
    law = torch.zeros(vocab.size**length, dtype=torch.float64)
    place = vocab.size ** torch.arange(length - 1, -1, -1)
    for step in range(most):
        after = defaultdict(float)
        for state, mass in states.items():
            now, before = unpack(state, canvas, carry, step)
            full = not bool(now.open(vocab).any())
            if full and not before.more and (sampler.revise.extra or step >= sampler.revise.num_steps):
                law[int((now.x[0] * place).sum())] += mass
                continue
            for later, chance in transitions(sampler, model, now, before).items():
                after[later] += mass * chance
        states = after
        if not states:
            return law
    raise AssertionError(f"{len(states)} states are not finished after {most} steps")


def key(canvas, carry):
    logp = () if carry.logp is None else tuple(carry.logp[0].tolist())
    return tuple(canvas.x[0].tolist()), logp, 0 if carry.more is None else int(carry.more)


def unpack(state, canvas, carry, step):
    x, logp, more = state
    now = replace(canvas, x=torch.tensor([x]))
    logp = torch.tensor([logp], dtype=torch.float64) if logp else None
    more = None if carry.more is None else torch.tensor([more])
    return now, Carry(step=torch.tensor([step]), start=carry.start, logp=logp, more=more)


def transitions(sampler, model, canvas, carry):
    """Chance of every canvas (and what is remembered of it) after one step."""
    out = defaultdict(float)
    spots = canvas.open(model.vocab)[0].nonzero().squeeze(-1).tolist()
    if sampler.order == "draw_first":
        for tokens, again in itertools.product(every(model, len(spots)), redraws(sampler, model, canvas, carry)):
            for chosen in subsets(spots):
                look = fresh(sampler, model, canvas, carry)
                drawn = torch.tensor(tokens, dtype=torch.int64)
                logp = sampler.token.law(look.logits).log_softmax(-1).gather(-1, drawn[:, None])[:, 0]
                own = look.logits.log_softmax(-1).gather(-1, drawn[:, None])[:, 0]
                look.__dict__["drawn"] = (drawn, logp)
                look.__dict__["redrawn"] = again
                visible = sampler.token.law(look.logits_written).log_softmax(-1).gather(-1, again[:, None])
                mass = logp.sum() + visible.sum() + where(sampler, look, chosen)
                finish(out, sampler, look, chosen, dict(zip(spots, zip(tokens, own.tolist()))), mass)
        return out
    for chosen in subsets(spots):
        look = fresh(sampler, model, canvas, carry)
        mass = where(sampler, look, chosen)
        if mass == -torch.inf:
            continue
        law = sampler.token.law(look.logits_at(mask_of(look, chosen))).log_softmax(-1)
        for tokens in itertools.product(range(model.vocab.size), repeat=len(chosen)):
            logp = [float(law[i, token]) for i, token in enumerate(tokens)]
            written = dict(zip(chosen, zip(tokens, logp)))
            finish(out, sampler, look, chosen, written, mass + sum(logp))
    return out


def every(model, count):
    return itertools.product(range(model.vocab.size), repeat=count)


def redraws(sampler, model, canvas, carry):
    """All tokens that can be drawn anew at the visible positions."""
    visible = int(fresh(sampler, model, canvas, carry).written.sum())
    return [torch.tensor(tokens, dtype=torch.int64) for tokens in every(model, visible)]


def finish(out, sampler, look, chosen, written, mass):
    """Write the chosen ones, and add every way in which tokens visible before go back."""
    if mass == -torch.inf:
        return
    x = look.canvas.x[0].clone()
    logp = None if look.carry.logp is None else look.carry.logp[0].clone()
    for i in chosen:
        x[i] = written[i][0]
        if logp is not None:
            logp[i] = written[i][1]
    for revised, chance in taken_back(sampler, look):
        after = torch.where(look.written[0], revised, x)
        remembered = () if logp is None else tuple(logp.tolist())
        more = 0
        if look.carry.more is not None:
            changed = bool((revised != look.canvas.x[0]).any())
            left = int(look.left) - len(chosen)
            more = (int(look.carry.more) - 1) * changed if int(look.left) == 0 else sampler.revise.extra * (left == 0)
            if sampler.revise.num_steps and int(look.carry.step) + 1 >= sampler.revise.num_steps:
                more = 0
        out[tuple(after.tolist()), remembered, more] += float(torch.as_tensor(mass).exp()) * chance


def taken_back(sampler, look):
    """What can become of the tokens that were visible, with its chance."""
    if not isinstance(sampler.revise, ReMDM):  # follows from what was drawn
        return [(sampler.revise(look)[0], 1.0)]
    visible = look.written[0].nonzero().squeeze(-1).tolist()
    chance = sampler.revise.chance(look)[0]
    ways = []
    for back in subsets(visible):
        factors = [float(chance[i] if i in back else 1 - chance[i]) for i in visible]
        mass = float(torch.tensor([1.0, *factors], dtype=torch.float64).prod())
        if mass > 0:
            ways.append((torch.where(mask_of(look, back)[0], look.model.vocab.mask_id, look.canvas.x[0]), mass))
    return ways


def where(sampler, look, chosen):
    """Log-probability of writing exactly these positions."""
    if not bool(look.open.any()):
        return torch.tensor(0.0)
    k = torch.tensor([len(chosen)])
    count = count_log_prob(sampler.count, look, k)
    return (count + position_log_prob(sampler.position, look, mask_of(look, chosen)) if count > -torch.inf else count)[
        0
    ]


def fresh(sampler, model, canvas, carry):
    return Look(model, canvas, carry, Noise.of(0), sampler.token)


def mask_of(look, chosen):
    mask = torch.zeros_like(look.open)
    mask[0, list(chosen)] = True
    return mask


def subsets(items):
    return itertools.chain.from_iterable(itertools.combinations(items, k) for k in range(len(items) + 1))
