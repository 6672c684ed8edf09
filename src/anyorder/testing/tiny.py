"""Small laws with published or hand-checked constants, shared by tests and studies."""

import torch

from anyorder.testing.oracle import MarkovOracle, Oracle


def oracle_a() -> Oracle:
    """Two dependent bits: p(00) = .5, p(01) = .2, p(10) = 0, p(11) = .3; entropy 1.02965, mutual information .27436."""
    return Oracle(torch.tensor([0.5, 0.2, 0.0, 0.3], dtype=torch.float64), 2, 2)


def oracle_b(flip: float = 0.1) -> MarkovOracle:
    """Symmetric two-state Markov chain; entropy 2.31856 at length 6 and flip .1."""
    stay = 1 - flip
    transition = torch.tensor([[stay, flip], [flip, stay]], dtype=torch.float64)
    return MarkovOracle(torch.tensor([0.5, 0.5], dtype=torch.float64), transition)


def oracle_c(length: int) -> Oracle:
    """One fair bit, copied to every position: the law hardest to write in parallel; entropy log 2."""
    table = torch.zeros(2**length, dtype=torch.float64)
    table[[0, -1]] = 0.5
    return Oracle(table, 2, length)
