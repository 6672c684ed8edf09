"""What clues of zebra puzzles allow, and what follows from one of them at a time."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def allowed(houses: int) -> Bool[Tensor, "R H H"]:
    """Which pairs of houses each relation allows: same, other, left of, just left of, side by side, at an end."""
    first, second = torch.arange(houses)[:, None], torch.arange(houses)
    end = (first == 0) | (first == houses - 1)
    step = second - first
    return torch.stack([step == 0, step != 0, step > 0, step == 1, step.abs() == 1, (step == 0) & end])


def rounds_until_known(clues: Int[Tensor, "B K 3"], *, houses: int, attributes: int) -> Int[Tensor, "B S"]:
    """The round (from 0) that tells the house of each value, looking at one clue or value at a time; -1: none does.

    In a round a house is struck off for a value if a clue leaves the other value nowhere to be; a value with one house
    left takes it from the others of its attribute; a house that only one value can be in gets it.

    Args:
        clues: (name, relation, name), names as in `zebra.arrangements`; relation -1 says nothing.
    """
    size = houses * attributes
    numbers = torch.eye(houses, dtype=torch.bool).expand(len(clues), -1, -1)
    can = torch.cat([torch.ones(len(clues), size, houses, dtype=torch.bool), numbers], 1)
    x, relation, y = clues.unbind(-1)
    everything = torch.ones(1, houses, houses, dtype=torch.bool)
    table = torch.cat([allowed(houses), everything])[relation].float()  # (B, K, H, H); -1 allows all
    row = torch.arange(len(clues))[:, None].expand_as(x)
    found, rounds = torch.full((len(clues), size), -1), 0
    while True:
        before = can
        for own, other, between in ((x, y, table), (y, x, table.transpose(-1, -2))):
            left = (between @ can[row, other].float()[..., None])[..., 0] > 0  # (B, K, H)
            can = can.long().index_put((row, own), -(~left).long(), accumulate=True) > 0
        board = can.reshape(-1, attributes + 1, houses, houses)  # (B, attribute, value, house)
        for axis in (-1, -2):
            alone = board & (board.sum(axis, keepdim=True) == 1)
            taken = alone.any(-2 if axis == -1 else -1, keepdim=True)
            board = board & (alone | ~taken)
        can = board.flatten(1, 2)
        known = can[:, :size].sum(-1) == 1
        found = torch.where(known & (found < 0), rounds, found).masked_fill(~known, -1)
        if torch.equal(can, before):
            return found
        rounds += 1


def deduced(clues: Int[Tensor, "B K 3"], *, houses: int, attributes: int) -> Bool[Tensor, " B"]:
    """Whether each puzzle is solved in that way; if so, it has one solution."""
    done: Tensor = (rounds_until_known(clues, houses=houses, attributes=attributes) >= 0).all(-1)
    return done
