"""TinyGenEval: draw what a prompt asks for on a grid of tokens; a checker that errs never says whether it is there.

A row is the six slots of a prompt, then the cells of a G x G image, the only targets. What a prompt leaves open, a
place, a colour, is drawn anew for each image and object: four cells then hang together that no prompt tells apart,
which is what writing many tokens at once breaks.

Source:
    arXiv:2310.11513 (GenEval): its six generators and its `evaluate`; grid, blocks and strictness are ours.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from anyorder.core.config import nearest
from anyorder.core.noise import Noise
from anyorder.core.types import Canvas
from anyorder.data.geneval import Found, clause_scores, evaluate
from anyorder.data.rows import TaskRows
from anyorder.data.tasks.base import Problems, check_counts
from anyorder.data.tasks.scenes_grid import draw_places, most_objects, paint, parse, related, separate
from anyorder.data.tasks.scenes_png import pictures, sheet
from anyorder.data.tasks.scenes_prompts import COLORS, GENERATORS, MOST, SHAPES, SLOTS, Palette, Prompt, every_prompt
from anyorder.data.tokenizer import PLACEHOLDER, SymbolTokenizer

SMALLEST, LARGEST = 4, 12
ALL: Final = "all"
FREE: Final = -1  # a colour nobody asks for


@dataclass(frozen=True)
class Shown:
    """What an image shows: its objects, cells that hold anything, and those among them that are of no object."""

    found: tuple[Found, ...]
    filled: int
    artefacts: int


@final
@dataclass(frozen=True)
class Scenes:
    """The task. Of the generators trained on, row i asks for what the (i mod their number)-th asks for.

    A prompt is uniform on those of its generator, an image on those that show what it asks for and nothing else. No
    row that is held out is trained on: of few images, as of one object on a small grid, a part is then missing.

    Args:
        grid: G, 4 to 12 cells a side; on 4 only one object has room.
        shapes, colors: how many there are, 2 to 6.
        tasks: generators of training and validation rows, joined by "+", or "all". Test rows are of all that fit the
            grid, in equal numbers; `kinds` tells them apart.
        drop: share of training rows whose prompt holds masks, as the unprompted pass of `ClassifierFree` reads it.
        num_train: rows drawn to train on; those that are held out are then left out.
        num_valid, num_test: rows held out to choose settings with, and to report.
    """

    grid: int = 6
    shapes: int = 4
    colors: int = 4
    tasks: str = ALL
    drop: float = 0.1
    num_train: int = 50_000
    num_valid: int = 120
    num_test: int = 600
    summary: ClassVar[str] = "images of coloured shapes on a grid, as prompts of six kinds ask (TinyGenEval)"

    def __post_init__(self) -> None:
        if not SMALLEST <= self.grid <= LARGEST:
            raise ValueError(f"scenes grid={self.grid}: must be between {SMALLEST} and {LARGEST} cells a side")
        for name, value, known in (("shapes", self.shapes, SHAPES), ("colors", self.colors, COLORS)):
            if not 2 <= value <= len(known):
                raise ValueError(f"scenes {name}={value}: must be between 2 and {len(known)}")
        if not 0.0 <= self.drop < 1.0:
            raise ValueError(f"scenes drop={self.drop}: must be >= 0 and < 1, a share of the training rows")
        check_counts(self, "scenes", ("num_train", "num_valid", "num_test"))
        for i, kind in enumerate(self.trained):
            if kind not in GENERATORS:
                raise ValueError(f"scenes tasks={self.tasks!r}: {kind!r} is unknown; {nearest(kind, GENERATORS)}")
            if kind in self.trained[:i]:
                raise ValueError(f"scenes tasks={self.tasks!r}: names {kind!r} twice; name each once")
            if kind not in self.fitting:
                fit = "+".join(self.fitting)
                raise ValueError(f"scenes grid={self.grid}: too small for {kind!r}; take tasks={fit} or a larger grid")

    @cached_property
    def palette(self) -> Palette:
        return Palette(shapes=self.shapes, colors=self.colors)

    @cached_property
    def tokenizer(self) -> SymbolTokenizer:
        return self.palette.tokenizer

    @property
    def length(self) -> int:
        return SLOTS + self.grid**2

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """All prompts that fit the grid, generator by generator."""
        most = most_objects(self.grid)
        return tuple(p for kind in GENERATORS for p in every_prompt(kind, self.palette, most=most))

    @property
    def fitting(self) -> tuple[str, ...]:
        """Generators of which some prompt fits the grid."""
        return tuple(dict.fromkeys(p.kind for p in self.prompts))

    @property
    def trained(self) -> tuple[str, ...]:
        """Generators of training rows; test rows have others too."""
        return self.fitting if self.tasks == ALL else tuple(self.tasks.split("+"))

    def train(self, *, noise: Noise) -> TaskRows:
        """Rows to train on, a share of them without their prompt."""
        number, rows = self._new("train", noise)
        dropped = noise.at("scenes drop").uniform(number) < self.drop
        is_image = torch.arange(self.length) >= SLOTS
        tokens = rows.masked_fill(dropped[:, None] & ~is_image, self.tokenizer.vocab.mask_id)
        return TaskRows(tokens=tokens, target=is_image.expand(len(tokens), -1), vocab=self.tokenizer.vocab)

    def train_problems(self, *, noise: Noise) -> Problems:
        """The training rows with all their prompts and no image: what a policy that learns from rewards starts from."""
        return self._asked(self._new("train", noise)[1])

    def valid(self, *, noise: Noise) -> Problems:
        """Held-out rows of the trained generators, to choose settings with."""
        return self._asked(self._new("valid", noise)[1])

    def test(self, *, noise: Noise) -> Problems:
        """Held-out rows of all generators, to report; `x0` is one right image of many."""
        return self._asked(self._rows("test", noise))

    def kinds(self, problems: Problems) -> list[str]:
        """The generator of each problem."""
        return [p.kind for p in self._prompts(problems)]

    def correct(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps its prompt and shows what it asks for, no artefact and no object more."""
        right = [
            evaluate(shown.found, p.request) and shown.artefacts == 0 and len(shown.found) == len(p.objects)
            for p, shown in zip(self._prompts(problems), self.shown(x))
        ]
        return torch.tensor(right, dtype=torch.bool, device=x.device) & _keeps(problems, x)

    def formed(self, problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
        """Whether each row keeps its prompt and is an image without artefacts, right or wrong; masks are artefacts."""
        whole = [shown.artefacts == 0 for shown in self.shown(x)]
        return torch.tensor(whole, dtype=torch.bool, device=x.device) & _keeps(problems, x)

    def dense(self, problems: Problems, x: Int[Tensor, "B L"]) -> Float[Tensor, " B"]:
        """How near each row is to a right one, in [0, 1], and 1 for right ones only; 0 if it changed its prompt.

        The mean over the clauses of the prompt (`clause_scores`) and one more: the share of the filled cells that
        belong to objects of a shape asked for.
        """
        scores = []
        for p, shown in zip(self._prompts(problems), self.shown(x)):
            asked = {clause.name for clause in p.request.include}
            useful = 4 * sum(f.name in asked for f in shown.found)
            clauses = [*clause_scores(shown.found, p.request), useful / max(shown.filled, 1)]
            scores.append(sum(clauses) / len(clauses))
        return torch.tensor(scores, dtype=torch.float64, device=x.device) * _keeps(problems, x)

    def shown(self, x: Int[Tensor, "B L"]) -> list[Shown]:
        """What the image of each row shows."""
        image = self._image(x)
        parsed = parse(image, objects=self.palette.objects)
        filled, artefacts = (image != 0).sum((1, 2)).tolist(), parsed.artefact.sum((1, 2)).tolist()
        found = []
        for row in parsed.objects:
            names = [self.palette.name(token) for token, _ in row]
            found.append(tuple(Found(shape, box, color) for (shape, color), (_, box) in zip(names, row)))
        return [Shown(*one) for one in zip(found, filled, artefacts)]

    def caption(self, row: Int[Tensor, " L"]) -> str:
        """The prompt of a row in words; "no prompt" for one that is masked or is none of the task's."""
        known = self._index.get(tuple(row[:SLOTS].tolist()))
        return "no prompt" if known is None else self.prompts[known].text

    def render(self, row: Int[Tensor, " L"]) -> str:
        """The prompt in words, then the image, two characters a cell; masks are ░, tokens of no object ?."""
        shown = {0: " ·", self.tokenizer.vocab.mask_id: 2 * PLACEHOLDER}
        for token in range(1, 1 + self.palette.objects):
            shape, color = self.palette.name(token)
            shown[token] = COLORS[color] + SHAPES[shape]
        cells = row[SLOTS:].reshape(self.grid, self.grid).tolist()
        return "\n".join([self.caption(row), *("".join(shown.get(t, " ?") for t in line) for line in cells)])

    def picture(self, row: Int[Tensor, " L"]) -> UInt8[Tensor, "H W 3"]:
        """Red, green and blue of each pixel of a row's image."""
        return pictures(self._image(row[None]), self.palette)[0]

    def png(self, x: Int[Tensor, "B L"], *, right: Bool[Tensor, " B"] | None = None) -> bytes:
        """The images of rows as one PNG, their prompts in its metadata (`sheet`)."""
        return sheet(self._image(x), self.palette, captions=[self.caption(row) for row in x], right=right)

    @cached_property
    def _index(self) -> dict[tuple[int, ...], int]:
        return {tuple(self.tokenizer.encode(p.words)): i for i, p in enumerate(self.prompts)}

    def _prompts(self, problems: Problems) -> list[Prompt]:
        asked = problems.x0[:, :SLOTS].tolist()
        for i, words in enumerate(asked):
            if tuple(words) not in self._index:
                raise ValueError(
                    f"scenes: problem {i} has no prompt of this task; take `train_problems`, `valid` or `test`"
                )
        return [self.prompts[self._index[tuple(words)]] for words in asked]

    def _image(self, x: Int[Tensor, "B L"]) -> Int[Tensor, "B G G"]:
        return x[:, SLOTS:].reshape(-1, self.grid, self.grid)

    def _asked(self, x0: Int[Tensor, "B L"]) -> Problems:
        vocab = self.tokenizer.vocab
        is_image = torch.arange(self.length) >= SLOTS
        return Problems(canvas=Canvas.of(x0.masked_fill(is_image, vocab.mask_id), vocab=vocab), x0=x0)

    def _new(self, split: str, noise: Noise) -> tuple[Int[Tensor, " B"], Int[Tensor, "B L"]]:
        """The rows of a split that are in none reported on or, for training, chosen by; and their numbers."""
        rows = self._rows(split, noise)
        held_out = [self._rows(other, noise) for other in ("test", "valid") if other != split]
        known = {row.tobytes() for row in torch.cat(held_out if split == "train" else held_out[:1]).numpy()}
        number = torch.tensor(
            [i for i, row in enumerate(rows.numpy()) if row.tobytes() not in known], dtype=torch.int64
        )
        if not len(number):
            raise ValueError(f"scenes num_test={self.num_test}: every {split} row is held out; lower it")
        return number, rows[number]

    def _rows(self, split: str, noise: Noise) -> Int[Tensor, "B L"]:
        count = {"train": self.num_train, "valid": self.num_valid, "test": self.num_test}[split]
        kinds = self.fitting if split == "test" else self.trained
        row, own = torch.arange(count), noise.at("scenes").at(split)
        choices = [[i for i, p in enumerate(self.prompts) if p.kind == kind] for kind in kinds]
        first, size = torch.tensor([[c[0], len(c)] for c in choices])[row % len(kinds)].T
        prompt = first + (own.at("prompt").uniform(row) * size).long()
        words = torch.tensor(list(self._index))
        return torch.cat([words[prompt], self.draw(prompt, row, noise=own)], 1)

    def draw(self, prompt: Int[Tensor, " B"], row: Int[Tensor, " B"], *, noise: Noise) -> Int[Tensor, "B C"]:
        """An image for each prompt, given by number: uniform on those that show it and nothing else.

        Args:
            row: numbers the images, which name their noise: each is the same alone or among others.
        """
        shape, color = self._objects[prompt].unbind(-1)  # (B, K)
        u = noise.at("color").uniform(row[:, None], 0, torch.arange(MOST))
        token = 1 + shape * self.colors + torch.where(color == FREE, (u * self.colors).long(), color)
        side = self.grid - 1
        image = torch.zeros(len(row), side * side, dtype=torch.int64)
        laws = [(len(p.objects), p.relation) for p in self.prompts]
        for count, relation in dict.fromkeys(laws):
            of_law = torch.tensor([law == (count, relation) for law in laws])
            here = of_law[prompt].nonzero()[:, 0]
            if len(here):
                fits = separate(self.grid) if relation is None else related(self.grid, relation)
                place = draw_places(fits, count, row[here], noise=noise)
                image[here] = image[here].scatter(1, place, token[here, :count])
        return paint(image.view(-1, side, side)).flatten(1)

    @cached_property
    def _objects(self) -> Int[Tensor, "Q K 2"]:
        """Shape and colour, if it is asked for, of each object of each prompt; zeros behind the last."""
        shape, color = self.palette.shape_names.index, self.palette.color_names.index
        asked = torch.zeros(len(self.prompts), MOST, 2, dtype=torch.int64)
        for i, p in enumerate(self.prompts):
            pairs = [(shape(c.name), FREE if c.color is None else color(c.color)) for c in p.objects]
            asked[i, : len(pairs)] = torch.tensor(pairs)
        return asked


def _keeps(problems: Problems, x: Int[Tensor, "B L"]) -> Bool[Tensor, " B"]:
    same: Tensor = (x[:, :SLOTS] == problems.x0[:, :SLOTS]).all(-1)
    return same
