"""What a generation pays: every question to the network goes through here, is counted, and is asked only once."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from anyorder.core.dedup import unique_rows
from anyorder.core.protocols import Denoiser, Priced
from anyorder.core.types import Canvas, Vocab, take_rows


@dataclass(frozen=True)
class Answers:
    """What the network said of some rows.

    Args:
        content: what it read (`content_of`).
        at: the positions it was asked about.
        logits: of these positions, row-major.
    """

    row_id: Int[Tensor, " R"]
    content: Int[Tensor, "R M"]
    at: Bool[Tensor, "R L"]
    logits: Float[Tensor, "N V"]

    def only(self, rows: Bool[Tensor, " R"]) -> "Answers":
        """Those of some rows."""
        if bool(rows.all()):
            return self
        here = rows[self.at.nonzero()[:, 0]]
        return Answers(self.row_id[rows], self.content[rows], self.at[rows], self.logits[here])

    def of(self, place: Int[Tensor, " N"], position: Int[Tensor, " N"]) -> Float[Tensor, "N V"]:
        """The logits at named positions of the rows standing there."""
        return self.logits[number(self.at)[place, position]]


class Passes:
    """A denoiser around a denoiser, for one generation: equal canvases are evaluated once.

    Rows of one call that read the same share one row of the pass, rows that have not changed since the last step are
    answered from memory, and rows of which nothing is asked stay out. A row pays for every pass its answers come from,
    shared or not, so that its cost does not depend on its batch.
    """

    def __init__(self, model: Denoiser) -> None:
        self.model = model
        self._priced = model if isinstance(model, Priced) else None
        self._paid: list[tuple[Int[Tensor, " R"], Int[Tensor, " R"]]] = []  # row ids, and passes each
        self._memory: Answers | None = None

    @property
    def nfe(self) -> int:
        return self.model.nfe

    @property
    def vocab(self) -> Vocab:
        return self.model.vocab

    def __call__(self, canvas: Canvas, at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        content = content_of(canvas)
        known = self._known(canvas.row_id, content, at)
        new = at.any(-1) & (known < 0)
        all_new = bool(new.all())
        logits = self._ask(canvas, content, at) if all_new else self._partly(canvas, content, at, known)
        price = torch.full_like(known, self.nfe) if self._priced is None else self._priced.price(canvas)
        answers = Answers(canvas.row_id, content, at, logits)
        self._paid.append((canvas.row_id, price) if all_new else (canvas.row_id[new], price[new]))
        self._remember(answers if all_new else answers.only(new))
        return logits

    def settle(self, row_id: Int[Tensor, " B"], *, changed: Bool[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Passes each of the rows has paid since this was last called; what changed rows read is forgotten."""
        paid = torch.zeros_like(row_id)
        for rows, price in self._paid:
            if not torch.equal(rows, row_id):
                place = places(row_id, among=rows)
                price = torch.where(place >= 0, torch.cat([price, price.new_zeros(1)])[place], 0)
            paid = paid + price
        self._paid = []
        if self._memory is not None:
            same = torch.equal(self._memory.row_id, row_id)
            kept = ~(changed if same else torch.isin(self._memory.row_id, row_id[changed]))
            self._memory = self._memory.only(kept) if bool(kept.any()) else None
        return paid

    def _remember(self, answers: Answers) -> None:
        """New answers take the place of old ones of the same rows."""
        old = self._memory
        if old is not None and old.content.shape[1] == answers.content.shape[1]:
            rest = old.only(~torch.isin(old.row_id, answers.row_id))
            answers = Answers(
                torch.cat([rest.row_id, answers.row_id]),
                torch.cat([rest.content, answers.content]),
                torch.cat([rest.at, answers.at]),
                torch.cat([rest.logits, answers.logits]),
            )
        self._memory = answers

    def _known(
        self, row_id: Int[Tensor, " B"], content: Int[Tensor, "B M"], at: Bool[Tensor, "B L"]
    ) -> Int[Tensor, " B"]:
        """For each row its place in the memory, or -1 if the answer is not there."""
        memory = self._memory
        if memory is None or memory.content.shape[1] != content.shape[1]:
            return torch.full_like(row_id, -1)
        place = places(row_id, among=memory.row_id)
        kept = (place >= 0) & (memory.content[place] == content).all(-1) & ~(at & ~memory.at[place]).any(-1)
        return torch.where(kept, place, -1)

    def _partly(
        self, canvas: Canvas, content: Int[Tensor, "B M"], at: Bool[Tensor, "B L"], known: Int[Tensor, " B"]
    ) -> Float[Tensor, "N V"]:
        """Logits at the named positions, from a pass over some rows and the memory of others."""
        row, position = at.nonzero(as_tuple=True)
        old = known[row] >= 0
        rows = (at.any(-1) & (known < 0)).nonzero().squeeze(-1)
        parts = []
        if len(rows):
            parts.append(self._ask(take_rows(canvas, rows), content[rows], at[rows]))
        if self._memory is not None and bool(old.any()):
            parts.append(self._memory.of(known[row[old]], position[old]))
        if not parts:
            return torch.zeros(0, self.vocab.size, device=at.device)
        order = torch.cat([(~old).nonzero(), old.nonzero()]).squeeze(-1)
        return torch.cat(parts)[order.argsort()]

    def _ask(self, canvas: Canvas, content: Int[Tensor, "B M"], at: Bool[Tensor, "B L"]) -> Float[Tensor, "N V"]:
        """One pass over the different rows among these."""
        if len(at) == 1:
            return self.model(canvas, at)
        first, copy_of = unique_rows(content)
        if len(first) == len(at):
            return self.model(canvas, at)
        union = torch.zeros(len(first), at.shape[1], dtype=torch.int64, device=at.device)
        union = union.index_add(0, copy_of, at.long()) > 0
        said = self.model(take_rows(canvas, first), union)
        row, position = at.nonzero(as_tuple=True)
        return said[number(union)[copy_of[row], position]]


def places(row_id: Int[Tensor, " B"], *, among: Int[Tensor, " R"]) -> Int[Tensor, " B"]:
    """Where each row stands among others; -1 if it is not there."""
    if not len(among):
        return torch.full_like(row_id, -1)
    ids = among.sort()
    found = ids.indices[torch.searchsorted(ids.values, row_id).clamp(max=len(among) - 1)]
    return torch.where(among[found] == row_id, found, -1)


def number(at: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """The place of each named position in a row-major answer."""
    return (at.flatten().cumsum(0) - 1).view_as(at)


def content_of(canvas: Canvas) -> Int[Tensor, "B M"]:
    """All that a network reads of each row; not its name, and not where it may be written."""
    parts = [canvas.x, canvas.fixed.long()]
    return torch.cat(parts if canvas.segment is None else [*parts, canvas.segment], -1)
