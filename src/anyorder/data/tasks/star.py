"""Star graphs: given the edges of a few arms through one junction, find the path from a source to a goal.

At the junction every way out looks alike for the next `min_plan` steps: a model that writes the path from its start has
to look ahead, one that begins at the goal does not. In medium and hard graphs some edges lead into the junction too,
and answers have many lengths.

A row is `u v u v ... source goal > s n n m m ... goal`: edges in random order, then the path as edges. The published
rows have `<cls>` in front and `<bos>` for `>`. Published vocabularies, of 28 and 64 ids, have eight special ones beside
20 and 56 nodes; ours has four, of which `>` and EOS have a logit, mask and padding none.

Source:
    arXiv:2505.05755, section 5.1, and its public generators (easy graphs there after Bachmann and Nagarajan 2024).
"""

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from string import ascii_letters, digits
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from anyorder.core.config import nearest
from anyorder.core.noise import Noise
from anyorder.data.rows import TaskRows
from anyorder.data.tasks.base import Problems, check_counts
from anyorder.data.tasks.layout import Layout
from anyorder.data.tokenizer import SymbolTokenizer

NODES: Final = digits + ascii_letters
ASK: Final = ">"  # between prompt and answer
NONE: Final = -1  # where an arm has no node or edge


@dataclass(frozen=True)
class Level:
    """The law of a kind of star graph.

    Args:
        degree: paths through the junction, its arms.
        shortest, longest: nodes of an arm, the junction included; uniform.
        min_plan: least nodes of an arm behind the junction; the junction is uniform on the places with so many.
        nodes: ids that names are drawn from.
    """

    degree: int
    shortest: int
    longest: int
    min_plan: int
    nodes: int

    @property
    def most_edges(self) -> int:
        return self.degree * (self.longest - 1)


LEVELS: Final = {
    "easy": Level(degree=3, shortest=5, longest=5, min_plan=4, nodes=20),
    "medium": Level(degree=3, shortest=3, longest=6, min_plan=2, nodes=20),
    "hard": Level(degree=5, shortest=6, longest=12, min_plan=5, nodes=56),
}


@dataclass(frozen=True)
class Graphs:
    """Star graphs.

    Args:
        node: the nodes of each arm in order, -1 behind its end. Arm 0 leads from the source to the goal.
        junction: its place in each arm.
        order: the place of each edge, arm by arm, in the list of edges; a random permutation.
    """

    node: Int[Tensor, "B K N"]
    junction: Int[Tensor, "B K"]
    order: Int[Tensor, "B E"]

    @property
    def edges(self) -> Int[Tensor, "B E 2"]:
        """The edges in the order of listing; where a graph has fewer than others, -1 before them."""
        pairs = torch.stack([self.node[..., :-1], self.node[..., 1:]], -1).flatten(1, 2)
        pairs = pairs.masked_fill((pairs == NONE).any(-1, keepdim=True), NONE)
        order = self.order.masked_fill(pairs[..., 0] == NONE, NONE).argsort(-1)
        return pairs.gather(1, order[..., None].expand(-1, -1, 2))

    @property
    def path(self) -> Int[Tensor, "B N"]:
        """The nodes from source to goal, -1 behind it."""
        return self.node[:, 0]

    @property
    def ends(self) -> Int[Tensor, "B 2"]:
        """Source and goal."""
        last = (self.path != NONE).sum(-1, keepdim=True) - 1
        return torch.cat([self.path[:, :1], self.path.gather(1, last)], 1)


def draw_graphs(level: Level, row: Int[Tensor, " B"], *, noise: Noise) -> Graphs:
    """The graphs with these numbers; each is the same alone or among others."""
    arm, place = torch.arange(level.degree), torch.arange(level.longest)
    spread = level.longest - level.shortest + 1
    length = level.shortest + (noise.at("length").uniform(row[:, None], 0, arm) * spread).long()
    junction = (noise.at("junction").uniform(row[:, None], 0, arm) * (length - level.min_plan)).long()
    names = noise.at("names").uniform(row[:, None], 0, torch.arange(level.nodes)).argsort(-1)
    held = place < length[..., None]  # (B, K, N)
    other = held & (place != junction[..., None])
    number = other.flatten(1).cumsum(-1).reshape(other.shape) * other  # the junction has number 0
    node = names.gather(1, number.flatten(1)).reshape(other.shape).masked_fill(~held, NONE)
    order = noise.at("order").uniform(row[:, None], 0, torch.arange(level.most_edges)).argsort(-1).argsort(-1)
    return Graphs(node=node, junction=junction, order=order)


def find_path(edges: list[tuple[int, int]], source: int, goal: int) -> list[int]:
    """The nodes of a shortest path from source to goal, by breadth-first search.

    Raises:
        ValueError: no edges lead there.
    """
    after: dict[int, list[int]] = {}
    for u, v in edges:
        after.setdefault(u, []).append(v)
    came_from, waiting = {source: source}, deque([source])
    while waiting and goal not in came_from:
        node = waiting.popleft()
        for v in after.get(node, []):
            if v not in came_from:
                came_from[v] = node
                waiting.append(v)
    if goal not in came_from:
        raise ValueError(f"star graph: no path from node {source} to node {goal}; give edges that lead there")
    path = [goal]
    while path[-1] != source:
        path.append(came_from[path[-1]])
    return path[::-1]


@final
@dataclass(frozen=True)
class Star:
    """The task. No graph is in two of the splits, whatever the order of its edges.

    Args:
        level: "easy", "medium" or "hard"; the published sizes.
        end: what follows an answer (`Layout`): "fill", "once", or "none" for insertion models.
        num_train: graphs drawn to train on; those that are held out are then left out.
        num_valid, num_test: held-out graphs, for choosing and for reporting.
    """

    level: str = "easy"
    end: str = "fill"
    num_train: int = 50_000
    num_valid: int = 100
    num_test: int = 5_000
    summary: ClassVar[str] = "star graphs: the path from source to goal through a junction"

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"star level={self.level!r}: unknown; {nearest(self.level, LEVELS)}")
        check_counts(self, "star", ("num_train", "num_valid", "num_test"))
        _ = self.layout

    @property
    def law(self) -> Level:
        return LEVELS[self.level]

    @cached_property
    def tokenizer(self) -> SymbolTokenizer:
        return SymbolTokenizer(NODES[: self.law.nodes] + ASK)

    @cached_property
    def layout(self) -> Layout:
        return Layout(
            prompt=2 * self.law.most_edges + 3,
            answer=2 * (self.law.longest - 1),
            end=self.end,
            vocab=self.tokenizer.vocab,
        )

    @property
    def length(self) -> int:
        return self.layout.length

    def train(self, *, noise: Noise) -> TaskRows:
        """Rows to train on."""
        graphs = self._graphs("train", noise)
        held_out = _keys(self._graphs("test", noise)) + _keys(self._graphs("valid", noise))
        return self.layout.train(self._rows(graphs)[_new(_keys(graphs), held_out)])

    def train_problems(self, *, noise: Noise) -> Problems:
        """The graphs of the training rows, to be answered."""
        return self.layout.problems(self.train(noise=noise).tokens)

    def valid(self, *, noise: Noise) -> Problems:
        """Held-out graphs to choose settings with."""
        graphs = self._graphs("valid", noise)
        return self.layout.problems(self._rows(graphs)[_new(_keys(graphs), _keys(self._graphs("test", noise)))])

    def test(self, *, noise: Noise) -> Problems:
        """Held-out graphs to report."""
        return self.layout.problems(self._rows(self._graphs("test", noise)))

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row is its prompt and exactly the path, no token more or less."""
        return self.layout.correct(problems, x)

    def formed(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps its prompt and then is edges, each from where the one before leads, that end."""
        return torch.tensor([_is_walk(a) for a in self.layout.answers(problems, x)], dtype=torch.bool, device=x.device)

    def solve(self, row: Int[Tensor, " L"]) -> list[int]:
        """The answer of a row's prompt, found by search.

        Raises:
            ValueError: no path leads to the goal.
        """
        *edges, source, goal, _ = self.layout.parts(row)[0]
        path = find_path(list(zip(edges[::2], edges[1::2])), source, goal)
        return [node for pair in pairwise(path) for node in pair]

    def junction_distance(self, problems: Problems) -> Int[Tensor, " B"]:
        """Edges from the junction to the goal, which a model must look ahead: accuracy is reported by it."""
        start = self.layout.prompt
        from_node = problems.x0[:, : start - 3 : 2]  # (B, E)
        path = problems.x0[:, start : start + self.layout.answer : 2]  # (B, N - 1), where each edge of the path begins
        held = path < self.law.nodes
        leaves = (from_node[:, None] == path[..., None]).sum(-1) * held
        return held.sum(-1) - leaves.argmax(-1)

    def render(self, row: Int[Tensor, " L"]) -> str:
        """The edges, and the path from source to goal; masks are ░."""
        prompt, answer = map(self.tokenizer.decode, self.layout.parts(row))
        edges, source, goal = prompt[:-3], prompt[-3:-2], prompt[-2:-1]
        return f"{_pairs(edges)} | {source} to {goal}: {_pairs(answer)}"

    def _graphs(self, split: str, noise: Noise) -> Graphs:
        count = {"train": self.num_train, "valid": self.num_valid, "test": self.num_test}[split]
        return draw_graphs(self.law, torch.arange(count), noise=noise.at(self.level).at(split))

    def _rows(self, graphs: Graphs) -> Int[Tensor, "B L"]:
        pad = self.tokenizer.vocab.pad_id
        ask = torch.full_like(graphs.path[:, :1], self.law.nodes)
        prompt = torch.cat([graphs.edges.flatten(1), graphs.ends, ask], 1)
        steps = torch.stack([graphs.path[:, :-1], graphs.path[:, 1:]], -1)
        answer = steps.masked_fill(steps[..., 1:] == NONE, NONE).flatten(1)
        return self.layout.rows(prompt.masked_fill(prompt == NONE, pad), answer.masked_fill(answer == NONE, pad))


def _keys(graphs: Graphs) -> list[bytes]:
    """What makes each graph: its edges, sorted, then source and goal."""
    code = (graphs.edges[..., 0] * len(NODES) + graphs.edges[..., 1]).sort(-1).values
    return [row.tobytes() for row in torch.cat([code, graphs.ends], 1).numpy()]


def _new(keys: list[bytes], held_out: list[bytes]) -> Bool[Tensor, " B"]:
    """Which graphs are not among those held out."""
    known = set(held_out)
    return torch.tensor([key not in known for key in keys])


def _is_walk(nodes: list[int] | None) -> bool:
    """Whether tokens are edges that follow each other, at least one."""
    return nodes is not None and len(nodes) > 0 and len(nodes) % 2 == 0 and nodes[1:-1:2] == nodes[2::2]


def _pairs(text: str) -> str:
    return " ".join(text[i : i + 2] for i in range(0, len(text), 2))
