"""TinyGenEval: grids read exactly, layouts uniform by enumeration, prompts, wrong images, splits, pictures."""

import struct
import zlib
from collections import Counter
from itertools import chain, combinations, product
from math import sqrt

import pytest
import torch
from scipy.stats import chisquare

from anyorder.core.noise import Noise
from anyorder.core.types import Vocab
from anyorder.data.geneval import relations
from anyorder.data.loader import Loader
from anyorder.data.tasks import Problems, Scenes, ValidatedTask, make_task
from anyorder.data.tasks.base import DenseTask, FormedTask, PicturedTask, PracticeTask
from anyorder.data.tasks.scenes_grid import box_of, draw_places, most_objects, paint, parse, related, separate, ways
from anyorder.data.tasks.scenes_png import CELL, FIELD, GAP, RGB, RIGHT, UNKNOWN, WRONG
from anyorder.data.tasks.scenes_prompts import SLOTS
from anyorder.guidance.classifier_free import ClassifierFree
from anyorder.processes.masked import MaskedDiffusion
from anyorder.train.config import RunConfig
from anyorder.train.data import task_data

NOISE = Noise.of(8)
KINDS = ("single", "two", "counting", "colors", "position", "attribution")
SMALL = {"num_train": 3000, "num_valid": 60, "num_test": 120}


@pytest.fixture(scope="module")
def task():
    return Scenes(**SMALL)


@pytest.fixture(scope="module")
def problems(task):
    return task.test(noise=NOISE)


def grid(text):
    """One image: `.` background, a and b objects, ? a token that is none."""
    return torch.tensor([[".ab?".index(c) for c in line] for line in text.split()])[None]


@pytest.mark.parametrize(
    ("text", "found", "artefacts"),
    [
        (".... .aa. .aa. ....", {4: 1}, 0),
        ("aa.. aa.. ...b ....", {0: 1}, 1),
        ("aa.. aa.. ..bb ..bb", {}, 8),  # corners touch
        ("aab. aab. .... ....", {}, 6),  # sides touch
        ("aaa. aaa. .... ....", {}, 6),
        ("aa.. ab.. .... ....", {}, 4),
        ("??.. ??.. .... ....", {}, 4),
        ("aa.? aa.. .... ....", {0: 1}, 1),
        ("aa.bb aa.bb ..... bb.aa bb.aa", {0: 1, 3: 2, 12: 2, 15: 1}, 0),
        (".... .... .... ....", {}, 0),
    ],
)
def test_grids_are_read_exactly(text, found, artefacts):
    x = grid(text)
    parsed = parse(x, objects=2)
    assert dict(enumerate(parsed.token[0].tolist())) == {i: found.get(i, 0) for i in range(parsed.token.shape[1])}
    assert int(parsed.artefact.sum()) == artefacts
    assert [t for t, _ in parsed.objects[0]] == list(found.values())


def islands(image, objects):
    """Objects by another definition: four cells that touch nothing else, equal, in a square."""
    size, seen, found = len(image), set(), {}
    for start in product(range(size), repeat=2):
        island, todo = set(), [start] if image[start[0]][start[1]] else []
        while todo:
            y, x = todo.pop()
            if (y, x) in seen or not (0 <= y < size and 0 <= x < size and image[y][x]):
                continue
            seen.add((y, x))
            island.add((y, x))
            todo += [(y + dy, x + dx) for dy, dx in product((-1, 0, 1), repeat=2)]
        if len(island) == 4:
            top, left = min(island)
            tokens = {image[y][x] for y, x in island}
            if island == {(top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)} and len(tokens) == 1:
                (token,) = tokens
                if token <= objects:
                    found[(top, left)] = token
    return found


def test_grids_are_read_as_islands():
    """Random grids, half of them with whole blocks among the crumbs."""
    size, count = 6, 600
    rows = torch.arange(count)
    u = NOISE.at("crumbs").uniform(rows[:, None], 0, torch.arange(2 * size * size))
    crumbs = torch.where(u[:, :36] < 0.06, (u[:, 36:] * 4).long(), 0).view(-1, size, size)
    places = draw_places(separate(size), 3, rows, noise=NOISE)
    blocks = torch.zeros(count, 25, dtype=torch.int64).scatter(1, places, 1 + places % 2)
    x = torch.where((crumbs > 0) & (rows % 3 > 0)[:, None, None], crumbs, paint(blocks.view(-1, 5, 5)))
    parsed = parse(x, objects=2)
    totals = Counter()
    for image, token, artefact in zip(x.tolist(), parsed.token.view(-1, 5, 5).tolist(), parsed.artefact):
        found = islands(image, 2)
        assert {(y, x): token[y][x] for y, x in product(range(5), repeat=2) if token[y][x]} == found
        assert int(artefact.sum()) == sum(map(bool, chain(*image))) - 4 * len(found)
        totals[len(found)] += 1
    assert min(totals[i] for i in range(4)) >= 10


def fits_all(fits, places):
    return all(fits[a, b] for a, b in combinations(places, 2))


@pytest.mark.parametrize("size", [4, 5, 6])
def test_room_and_ways_by_enumeration(size):
    place = range((size - 1) ** 2)
    fits = separate(size).tolist()
    for a, b in product(place, repeat=2):
        (ay, ax), (by, bx) = divmod(a, size - 1), divmod(b, size - 1)
        apart = {(ay + i, ax + j) for i in (-1, 0, 1, 2) for j in (-1, 0, 1, 2)}
        assert fits[a][b] == (not apart & {(by + i, bx + j) for i in (0, 1) for j in (0, 1)})
    sets = [0] * 6
    for k in range(1, 6):
        if k == 1 or sets[k - 1]:
            table = torch.tensor(fits)
            sets[k] = sum(fits_all(table, s) for s in combinations(place, k))
    assert most_objects(size) == max(k for k in range(1, 6) if sets[k])
    free = torch.ones(1, len(place), dtype=torch.bool)
    for more, factorial in ((0, 1), (1, 2), (2, 6), (3, 24)):
        assert int(ways(free, separate(size), more).sum()) == factorial * sets[more + 1]


def every_image(task, count):
    """All images of `count` objects that do not touch, painted cell by cell."""
    size = task.grid
    for places in combinations(range((size - 1) ** 2), count):
        if fits_all(separate(size), places):
            for tokens in product(range(1, 1 + task.palette.objects), repeat=count):
                image = [[0] * size for _ in range(size)]
                for place, token in zip(places, tokens):
                    y, x = divmod(place, size - 1)
                    image[y][x] = image[y + 1][x] = image[y][x + 1] = image[y + 1][x + 1] = token
                yield list(chain(*image))


@pytest.mark.parametrize(
    ("text", "count", "images"),
    [
        ("a circle", 1, 16 * 2),
        ("a red square", 1, 16),
        ("a circle and a square", 2, 60 * 4),
        ("two circles", 2, 30 * 4),
        ("three squares", 3, None),
        ("four circles", 4, 16),
        ("a circle left of a square", 2, None),
        ("a square above a circle", 2, None),
        ("a red square and a green circle", 2, 60),
    ],
)
def test_images_are_uniform_on_those_that_are_right(text, count, images):
    """Chi-square at level 1e-4 over all right images, which are found by the checker among all images."""
    task = Scenes(grid=5, shapes=2, colors=2, **SMALL)
    (number,) = [i for i, p in enumerate(task.prompts) if p.text == text]
    words = torch.tensor(task.tokenizer.encode(task.prompts[number].words))
    tried = torch.tensor(list(every_image(task, count)))
    rows = torch.cat([words.expand(len(tried), -1), tried], 1)
    right = task.correct(Problems(task.test(noise=NOISE).canvas, rows), rows)
    every = {tuple(image) for image in tried[right].tolist()}
    assert len(every) == int(right.sum())
    if images is not None:
        assert len(every) == images
    row = torch.arange(60 * len(every))
    drawn = Counter(map(tuple, task.draw(torch.full_like(row, number), row, noise=NOISE.at(text)).tolist()))
    assert drawn.keys() <= every
    assert chisquare([drawn[image] for image in every]).pvalue > 1e-4


def test_related_places_are_those_of_the_position_rule():
    offsets = Counter()
    for relation, sign in (("left of", 1), ("right of", -1)):
        table = related(6, relation)
        for b, a in table.nonzero().tolist():
            assert relation in relations(box_of(a, 6), box_of(b, 6))
            (ay, ax), (by, bx) = divmod(a, 5), divmod(b, 5)
            offsets[(sign * (bx - ax), abs(by - ay))] += 1
    assert offsets.keys() == {(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (4, 0), (4, 1), (4, 2), (4, 3), (4, 4)}
    assert torch.equal(related(6, "left of"), related(6, "right of").T)


def test_prompts():
    task = Scenes(**SMALL)
    count = Counter(p.kind for p in task.prompts)
    assert count == {"single": 4, "two": 12, "counting": 12, "colors": 16, "position": 48, "attribution": 144}
    assert len({p.words for p in task.prompts}) == len({p.text for p in task.prompts}) == 236
    texts = {p.text: p.words for p in task.prompts}
    assert texts["a red circle and a blue square"] == "_r●_b■"
    assert texts["a triangle left of a circle"] == "__▲←_●"
    assert texts["three crosses"] == "③_✚___"
    assert texts["a circle and a cross"] == "__●__✚"
    assert {len(p.words) for p in task.prompts} == {SLOTS}
    assert all(a != b and c != d for a, c, b, d in _pairs(task))
    orange = Scenes(colors=6, shapes=6, **SMALL)
    assert "an orange ring" in {p.text for p in orange.prompts}
    assert orange.tokenizer.vocab.size == 1 + 36 + 1 + 6 + 6 + 3 + 4 + 1


def _pairs(task):
    for p in task.prompts:
        if p.kind == "attribution":
            a, b = p.request.include
            yield a.name, a.color, b.name, b.color


def test_what_fits_the_grid_is_asked_for():
    assert [most_objects(size) for size in range(4, 13)] == [1, 4, 4, 4, 9, 9, 9, 16, 16]
    tiny = Scenes(grid=4, num_train=2000, num_valid=20, num_test=20)
    assert tiny.trained == tiny.fitting == ("single", "colors")
    assert Counter(tiny.kinds(tiny.test(noise=NOISE))) == {"single": 10, "colors": 10}
    assert Scenes(grid=5).trained == KINDS
    assert Scenes(grid=12, **SMALL).length == 6 + 144


def test_rows_of_every_kind_in_equal_shares_and_right(task, problems):
    assert all(isinstance(task, c) for c in (ValidatedTask, FormedTask, DenseTask, PracticeTask, PicturedTask))
    assert Counter(task.kinds(problems)) == dict.fromkeys(KINDS, 20)
    assert problems.x0.shape == (120, 42)
    assert bool((problems.canvas.fixed == (torch.arange(42) < 6)).all())
    plain = Scenes(**SMALL, drop=0.0)
    trained = plain.train_problems(noise=NOISE)
    assert torch.equal(trained.x0, plain.train(noise=NOISE).tokens)
    for some in (problems, task.valid(noise=NOISE), trained):
        assert bool(task.correct(some, some.x0).all())
        assert bool(task.formed(some, some.x0).all())
        assert bool((task.dense(some, some.x0) == 1.0).all())
        assert not task.correct(some, some.canvas.x).any()
        assert not task.formed(some, some.canvas.x).any()
    drawn = Counter(task.kinds(trained))  # 500 of each, less those held out: some of the 400 images of one object
    assert all(drawn[kind] >= 490 for kind in ("two", "counting", "position", "attribution"))
    assert all(400 <= drawn[kind] < 500 for kind in ("single", "colors"))


def test_prompts_are_dropped_as_guidance_leaves_them_out(task):
    """The unprompted pass of `ClassifierFree` reads the prompts that dropped rows hold."""
    tokens, kept = task.train(noise=NOISE).tokens, task.train_problems(noise=NOISE).x0
    vocab = task.tokenizer.vocab
    dropped = (tokens != kept).any(-1)
    assert torch.equal(tokens[:, SLOTS:], kept[:, SLOTS:])
    assert float(dropped.double().mean()) == pytest.approx(0.1, abs=4 * sqrt(0.09 / len(tokens)))
    read = []

    class Reader:
        nfe = 1

        def __init__(self):
            self.vocab = vocab

        def __call__(self, canvas, at):
            read.append(canvas)
            return torch.zeros(int(at.sum()), vocab.size)

    canvas = task.test(noise=NOISE).canvas
    ClassifierFree(Reader(), 1.0)(canvas, canvas.open(vocab))
    told, blind = (c.x[:, :SLOTS] for c in read)
    assert torch.equal(told, task.test(noise=NOISE).x0[:, :SLOTS])
    assert torch.equal(blind[: int(dropped.sum())], tokens[dropped, :SLOTS][: len(blind)])
    assert read[1].segment is None


def test_a_run_trains_on_images_only(task):
    config = RunConfig(task="scenes:num_train=300,num_valid=60,num_test=60,drop=0.5", seed=3)
    data = task_data(config)
    batch = Loader(data.train, rows=16, noise=NOISE).batch_at(0)
    assert batch.segment is None
    masks = batch.tokens == task.tokenizer.vocab.mask_id
    assert 0 < int(masks[:, 0].sum()) < 16
    assert torch.equal(masks.any(-1), masks[:, :SLOTS].all(-1))
    assert bool((batch.target == (torch.arange(42) >= SLOTS)).all())
    masked, _ = MaskedDiffusion().corrupt(batch, torch.full((16,), 0.99, dtype=torch.float64), noise=NOISE)
    assert bool((masked == batch.target).all())


def test_a_changed_cell_makes_every_image_wrong(task, problems):
    for number, kind in enumerate(KINDS):  # of each kind a third of all changes
        (i, *_) = [i for i, k in enumerate(task.kinds(problems)) if k == kind]
        ids = task.tokenizer.vocab.mask_id + 1
        x = problems.x0[i].repeat(36 * ids, 1)
        cell, token = torch.arange(36).repeat_interleave(ids) + SLOTS, torch.arange(ids).repeat(36)
        x[torch.arange(len(x)), cell] = token
        x = torch.cat([problems.x0[i : i + 1], x[number % 3 :: 3]])
        same = (x == problems.x0[i]).all(-1)
        of = Problems(canvas=problems.canvas, x0=problems.x0[i].expand_as(x))
        assert 1 <= int(same.sum()) < 37
        assert torch.equal(task.correct(of, x), same)
        assert torch.equal(task.formed(of, x), same)
        score = task.dense(of, x)
        assert torch.equal(score == 1.0, same)
        assert bool(((score >= 0) & (score <= 1)).all())


def test_blocks_of_other_tokens_are_artefacts(task):
    words = torch.arange(1 + task.palette.objects, task.tokenizer.vocab.pad_id + 1)
    problems, x = ask(task, "a circle", picture(("bA", 0, 0)))
    x = x.repeat(len(words), 1)
    for y, left in product((3, 4), repeat=2):
        x[:, SLOTS + 6 * y + left] = words
    of = Problems(canvas=problems.canvas, x0=x)
    assert not task.correct(of, x).any()
    assert not task.formed(of, x).any()
    assert [(len(s.found), s.filled, s.artefacts) for s in task.shown(x)] == [(1, 8, 4)] * len(words)


def ask(task, text, *images):
    """Problems of one prompt, and rows with these images for it; `rA` is a red object of the first shape."""
    (p,) = [p for p in task.prompts if p.text == text]
    rows = []
    for image in images:
        cells = [0 if c == ".." else 1 + "ABCD".index(c[1]) * 4 + "rgby".index(c[0]) for c in image.split()]
        rows.append(task.tokenizer.encode(p.words) + cells)
    x = torch.tensor(rows)
    blank = Problems(task.test(noise=NOISE).canvas, x)
    return blank, x


def picture(*objects, size=6):
    """Cells as text: objects are (token, row, column)."""
    cells = [[".."] * size for _ in range(size)]
    for token, y, x in objects:
        for dy, dx in product((0, 1), repeat=2):
            cells[y + dy][x + dx] = token
    return " ".join(chain(*cells))


@pytest.mark.parametrize(
    ("text", "right", "wrong"),
    [
        ("a circle", [("bA", 2, 2)], [[("bB", 2, 2)], [], [("bA", 0, 0), ("rA", 3, 3)], [("bA", 0, 0), ("rB", 3, 3)]]),
        ("a circle and a square", [("rA", 0, 0), ("gB", 0, 3)], [[("rA", 0, 0)], [("rA", 0, 0), ("rA", 0, 3)]]),
        (
            "three squares",
            [("rB", 0, 0), ("gB", 0, 3), ("gB", 3, 0)],
            [
                [("rB", 0, 0), ("gB", 0, 3)],
                [("rB", 0, 0), ("gB", 0, 3), ("gB", 3, 0), ("yB", 3, 3)],
                [("rB", 0, 0), ("gB", 0, 3), ("gA", 3, 0)],
            ],
        ),
        ("a green square", [("gB", 1, 1)], [[("rB", 1, 1)], [("gA", 1, 1)], [("gB", 0, 0), ("rB", 3, 3)]]),
        (
            "a circle left of a square",
            [("gA", 3, 0), ("gB", 0, 3)],
            [[("gB", 3, 0), ("gA", 0, 3)], [("gA", 0, 1), ("gB", 4, 1)], [("gA", 0, 0), ("gB", 4, 2)]],
        ),
        ("a circle above a square", [("gA", 0, 3), ("gB", 3, 0)], [[("gA", 3, 3), ("gB", 0, 0)]]),
        (
            "a red circle and a blue square",
            [("rA", 0, 0), ("bB", 3, 3)],
            [[("bA", 0, 0), ("rB", 3, 3)], [("rA", 0, 0), ("rB", 3, 3)], [("rB", 0, 0), ("bA", 3, 3)]],
        ),
    ],
)
def test_right_and_wrong_images(task, text, right, wrong):
    problems, x = ask(task, text, picture(*right), *(picture(*w) for w in wrong))
    assert task.correct(problems, x).tolist() == [True] + [False] * len(wrong)
    assert bool(task.formed(problems, x).all())  # wrong, but images
    score = task.dense(problems, x)
    assert score[0] == 1.0
    assert bool((score[1:] < 1.0).all())
    other = x.clone()
    other[:, 2] = task.tokenizer.encode("▲")[0]
    assert not task.correct(problems, other).any()  # another prompt than the problem's
    assert not task.formed(problems, other).any()
    assert not task.dense(problems, other).any()


def test_dense_scores_by_hand(task):
    problems, x = ask(
        task,
        "three squares",
        picture(("rB", 0, 0), ("gB", 0, 3)),  # 2 of 3, nothing else
        picture(("rB", 0, 0), ("gB", 0, 3), ("gA", 3, 0)),  # a third of the cells is of a circle
        picture(),
    )
    assert task.dense(problems, x).tolist() == pytest.approx([(2 / 3 + 1) / 2, (2 / 3 + 2 / 3) / 2, 0.0])
    problems, x = ask(
        task,
        "a red circle and a blue square",
        picture(("bA", 0, 0), ("bB", 3, 3)),  # four clauses of two objects, one colour wrong
        picture(("rA", 0, 0)),
    )
    assert task.dense(problems, x).tolist() == pytest.approx([(1 + 0 + 1 + 1 + 1) / 5, (1 + 1 + 0 + 0 + 1) / 5])
    problems, x = ask(task, "a circle left of a square", picture(("gB", 0, 0), ("gA", 0, 3)))
    assert task.dense(problems, x).tolist() == pytest.approx([3 / 4])


def test_splits(task):
    train, valid, test = (
        {tuple(row) for row in rows.tolist()}
        for rows in (task.train_problems(noise=NOISE).x0, task.valid(noise=NOISE).x0, task.test(noise=NOISE).x0)
    )
    assert not train & test
    assert not train & valid
    assert not valid & test
    some = Scenes(tasks="single+colors+counting", **SMALL)
    assert set(some.kinds(some.train_problems(noise=NOISE))) == {"single", "colors", "counting"}
    assert set(some.kinds(some.valid(noise=NOISE))) == {"single", "colors", "counting"}
    assert torch.equal(some.test(noise=NOISE).x0, task.test(noise=NOISE).x0)  # all generators, trained or not
    assert some.tokenizer == task.tokenizer
    given = make_task("scenes:tasks=single+colors,grid=8,drop=0.2,num_test=60")
    assert given == Scenes(tasks="single+colors", grid=8, drop=0.2, num_test=60)


def test_a_row_is_the_same_alone_and_among_others(task):
    prompt, row = torch.tensor([0, 5, 20, 60, 90, 235]), torch.tensor([7, 1, 4, 9, 2, 3])
    some = task.draw(prompt, row, noise=NOISE)
    for i in range(6):
        assert torch.equal(task.draw(prompt[i : i + 1], row[i : i + 1], noise=NOISE)[0], some[i])
    few, many = (Scenes(num_test=n).test(noise=NOISE).x0 for n in (6, 60))
    assert torch.equal(many[:6], few)


def test_render(task):
    _, x = ask(task, "a red circle and a blue square", picture(("rA", 0, 0), ("bB", 3, 4)))
    x[0, SLOTS + 3], x[0, -1] = task.tokenizer.vocab.mask_id, task.tokenizer.vocab.eos_id
    lines = task.render(x[0]).split("\n")
    assert lines[0] == "a red circle and a blue square"
    assert lines[1] == "r●r● ·░░ · ·"
    assert lines[4] == " · · · ·b■b■"
    assert lines[6] == " · · · · · ?"
    x[0, :SLOTS] = task.tokenizer.vocab.mask_id
    assert task.render(x[0]).startswith("no prompt\n")


def read_png(data):
    """Size, pixels and text of a PNG without filters."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (zlib.crc32(name + body),)
        chunks[name] = body
        at += 12 + size
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    raw = torch.frombuffer(bytearray(zlib.decompress(chunks[b"IDAT"])), dtype=torch.uint8).view(height, 1 + 3 * width)
    assert not raw[:, 0].any()
    return raw[:, 1:].reshape(height, width, 3), chunks[b"tEXt"].decode("latin-1")


def test_pictures_show_objects_and_artefacts(task):
    problems, x = ask(
        task,
        "a red circle and a blue square",
        picture(("rA", 0, 0), ("bB", 3, 3)),
        picture(("rA", 0, 0), ("bB", 1, 2)),  # they touch
        picture(("rA", 0, 0)),
    )
    x[2, -1] = task.tokenizer.vocab.mask_id
    pixels, text = read_png(task.png(x, right=task.correct(problems, x)))
    tile = 6 * CELL + 2 * GAP
    assert pixels.shape == (2 * tile, 2 * tile, 3)
    assert text.split("\0") == [
        "Description", "\n".join(f"{i}: a red circle and a blue square" for i in (1, 2, 3)),
    ]  # fmt: skip

    def colors(column, row, y, x, cells):
        top, left = row * tile + GAP + y * CELL, column * tile + GAP + x * CELL
        part = pixels[top : top + cells * CELL, left : left + cells * CELL].reshape(-1, 3)
        return Counter(map(tuple, part.tolist()))

    assert colors(0, 0, 0, 0, 2)[RGB["red"]] > 300  # a disc of 0.57 of 24 x 24 pixels
    assert colors(0, 0, 3, 3, 2)[RGB["blue"]] > 300
    assert colors(0, 0, 0, 3, 2)[FIELD] == 22 * 22  # background between lines
    assert colors(1, 0, 0, 0, 1)[RGB["red"]] == 2 * CELL  # crossed
    assert colors(0, 1, 5, 5, 1)[UNKNOWN] == 2 * CELL
    frames = [
        tuple(pixels[row * tile + GAP - 1, column * tile + 40].tolist()) for column, row in ((0, 0), (1, 0), (0, 1))
    ]
    assert frames == [RIGHT, WRONG, WRONG]
    assert bool((pixels[tile:, tile:] == 255).all())  # no fourth image
    inside = pixels[GAP : tile - GAP, tile + GAP : 2 * tile - GAP]
    assert torch.equal(task.picture(x[1]), inside)
    plain, _ = read_png(task.png(x[:1]))
    assert tuple(plain[GAP - 1, 40].tolist()) == (255, 255, 255)
    with pytest.raises(ValueError, match=r"^scenes: 0 images and 0 captions; give at least one, and one each$"):
        task.png(x[:0])


def test_every_shape_has_a_glyph_of_its_own():
    task = Scenes(shapes=6, colors=2, num_test=60)
    assert task.tokenizer.vocab == Vocab(size=30, mask_id=30, pad_id=31, eos_id=29)
    seen = set()
    for shape in range(6):
        row = torch.zeros(1, 42, dtype=torch.int64)
        token = torch.zeros(1, 5, 5, dtype=torch.int64)
        token[0, 2, 2] = 1 + 2 * shape
        row[:, SLOTS:] = paint(token).flatten(1)
        pixels, _ = read_png(task.png(row))
        seen.add(pixels.numpy().tobytes())
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"grid": 3}, "scenes grid=3: must be between 4 and 12 cells a side"),
        ({"shapes": 7}, "scenes shapes=7: must be between 2 and 6"),
        ({"colors": 1}, "scenes colors=1: must be between 2 and 6"),
        ({"drop": 1.0}, "scenes drop=1.0: must be >= 0 and < 1, a share of the training rows"),
        ({"num_valid": 0}, "scenes num_valid=0: must be >= 1"),
        ({"tasks": "single+colour"}, "scenes tasks='single+colour': 'colour' is unknown; did you mean 'colors'?"),
        ({"tasks": "two+two"}, "scenes tasks='two+two': names 'two' twice; name each once"),
        (
            {"tasks": "single+counting", "grid": 4},
            "scenes grid=4: too small for 'counting'; take tasks=single+colors or a larger grid",
        ),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(ValueError) as error:
        Scenes(**options)
    assert str(error.value) == said


def test_rows_that_cannot_be_checked_or_drawn(task):
    dropped = torch.full((1, 42), task.tokenizer.vocab.mask_id)
    of = Problems(canvas=task.test(noise=NOISE).canvas, x0=dropped)
    with pytest.raises(ValueError, match=r"^scenes: problem 0 has no prompt of this task; take `train_problems`, "):
        task.correct(of, dropped)
    few = Scenes(grid=4, shapes=2, colors=2, num_train=20, num_test=3000)
    with pytest.raises(ValueError, match=r"^scenes num_test=3000: every train row is held out; lower it$"):
        few.train(noise=NOISE)
