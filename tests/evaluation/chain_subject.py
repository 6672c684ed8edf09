"""A Markov chain of letters as a model whose every answer is known."""

import torch

from anyorder.core.noise import Noise
from anyorder.data.tokenizer import SymbolTokenizer
from anyorder.evaluation.subject import Subject
from anyorder.testing.oracle import CausalView, MarkovOracle

LETTERS = SymbolTokenizer("abc ")
ORACLE = MarkovOracle.random(5, noise=Noise.of(11).at("chain"))  # the letters, a space and the end of the document


def subject(kind="mdm", *, max_length=24, rows_per_pass=64, model=None):
    asked = model or (ORACLE if kind == "mdm" else CausalView(ORACLE))
    return Subject(kind, asked, LETTERS, max_length, identity="chain", rows_per_pass=rows_per_pass)


def logp(text):
    """log p of a text from its beginning, nats."""
    return float(ORACLE.log_prob(torch.tensor([LETTERS.encode(text)]))) if text else 0.0


def logp_after(context, continuation):
    return logp(context + continuation) - logp(context)


def greedy_after(context, num_tokens):
    """What the chain writes greedily, one token at a time, by its own transition table."""
    ids = LETTERS.encode(context)
    for _ in range(num_tokens):
        law = ORACLE.transition[ids[-1]] if ids else ORACLE.initial
        ids.append(int(law.argmax()))
    return ids[len(LETTERS.encode(context)) :]
