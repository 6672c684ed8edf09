"""Infill sets: gaps by enumeration, the same items for every kind of model, rows of an ARM that fills in the middle."""

import itertools
from collections import Counter

import pytest
import scipy.stats
import torch

from anyorder.core.noise import Noise
from anyorder.core.types import Vocab
from anyorder.data.fim import FimRows, fim_answer, fim_gaps, fim_prompt, fim_rows
from anyorder.data.infill import Stretch, cut, infill_sets, masked, opened, stretches
from anyorder.data.loader import Loader
from anyorder.data.rows import RowSource
from anyorder.data.shards import Shards, write_shards
from anyorder.data.tokenizer import ByteTokenizer

BYTES = ByteTokenizer()
VOCAB = BYTES.vocab
NOISE = Noise.of(9)
NO_END = Vocab(size=4, mask_id=4, pad_id=5)
TEXTS = ["a bird sang in the old oak tree", "x", "", *(f"{i} " * (10 + i) for i in range(30)), "1 " * 11]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("infill") / "s"
    write_shards(folder, [BYTES.encode(t) for t in TEXTS], tokenizer=BYTES, corpus="made", corpus_sha256="")
    return Shards.open(folder)


def shape(item):
    return tuple(map(len, item.texts)), tuple(map(len, item.gaps))


def uniforms(count, num_gaps):
    return NOISE.uniform(torch.arange(count)[:, None], 0, torch.arange(2 * num_gaps - 1)).tolist()


def ways(length, missing, num_gaps):
    """Every way to take tokens out, as the mask of a text in which no two gaps touch."""
    for gone in itertools.combinations(range(length), missing):
        runs = 1 + sum(b != a + 1 for a, b in itertools.pairwise(gone))
        if runs == num_gaps:
            yield gone


@pytest.mark.parametrize(("length", "missing", "num_gaps"), [(7, 3, 1), (7, 3, 2), (7, 3, 3), (6, 4, 3), (5, 4, 1)])
def test_every_way_to_cut_is_equally_likely(length, missing, num_gaps):
    text, every = list(range(length)), list(ways(length, missing, num_gaps))
    found = Counter()
    for u in uniforms(200 * len(every), num_gaps):
        item = cut(text, Stretch(0, 0, length), missing=missing, num_gaps=num_gaps, u=u)
        assert item.tokens == text
        assert all(item.gaps)
        assert all(item.texts[1:-1])
        found[tuple(i for gap in item.gaps for i in gap)] += 1
    assert found.keys() == set(every)
    if len(every) > 1:
        assert scipy.stats.chisquare(list(found.values())).pvalue > 1e-3


@pytest.mark.parametrize(("missing", "num_gaps"), [(0, 1), (2, 3), (3, 0), (5, 1), (4, 3)])
def test_gaps_that_cannot_be(missing, num_gaps):
    with pytest.raises(
        ValueError, match=rf"^num_gaps={num_gaps}: {missing} of 5 tokens cannot be taken out in so many "
    ):
        cut([1, 2, 3, 4, 5], Stretch(0, 0, 5), missing=missing, num_gaps=num_gaps, u=[0.5] * 9)


def test_pieces_are_whole_documents_without_overlap(shards):
    pieces = stretches(shards, least=1, most=20)
    texts = {}
    for piece in pieces:
        assert 1 <= piece.size <= 20
        texts[piece.document] = texts.get(piece.document, "") + BYTES.decode(piece.read(shards))
    assert texts == {i: t for i, t in enumerate(TEXTS) if t}
    assert {p.size for p in stretches(shards, least=20, most=20)} == {20}


@pytest.mark.parametrize("num_gaps", [1, 3])
def test_sets_hold_different_texts_with_a_fifth_missing(shards, num_gaps):
    sets = infill_sets(shards, noise=NOISE, num_valid=10, num_test=15, num_gaps=num_gaps, most=40)
    items = [*sets.valid, *sets.test]
    assert (len(sets.valid), len(sets.test)) == (10, 15)
    assert len({tuple(item.tokens) for item in items}) == 25
    for item in items:
        assert item.tokens == item.stretch.read(shards)
        assert len(item.gaps) == num_gaps == len(item.texts) - 1
        assert sum(map(len, item.gaps)) == max(round(0.2 * item.stretch.size), num_gaps)
        assert 16 <= item.stretch.size <= 40
    again = infill_sets(shards, noise=NOISE, num_valid=10, num_test=15, num_gaps=num_gaps, most=40)
    assert again == sets
    longer = infill_sets(shards, noise=NOISE, num_valid=0, num_test=20, num_gaps=num_gaps, most=40)
    assert longer.test[:15] == sets.test
    assert infill_sets(shards, noise=Noise.of(1), num_valid=10, num_test=15, num_gaps=num_gaps, most=40) != sets


def test_equal_texts_are_drawn_once(shards):
    whole = [tuple(s.read(shards)) for s in stretches(shards, least=16, most=200)]
    assert len(set(whole)) == len(whole) - 1  # "1 " * 11 is there twice
    sets = infill_sets(shards, noise=NOISE, num_valid=0, num_test=len(whole) - 1, most=200)
    assert {tuple(item.tokens) for item in sets.test} == set(whole)
    with pytest.raises(ValueError, match=rf"the corpus has {len(whole) - 1} different texts of 16 to 200 tokens; "):
        infill_sets(shards, noise=NOISE, num_valid=1, num_test=len(whole) - 1, most=200)


def example():
    """a b [c d] e [f] with numbers for letters."""
    found = (cut([1, 2, 3, 4, 5, 6], Stretch(0, 0, 6), missing=3, num_gaps=2, u=u) for u in uniforms(999, 2))
    return next(item for item in found if item.gaps == ((3, 4), (6,)))


def test_a_masked_model_and_an_insertion_model_read_the_same_item():
    item = example()
    short = cut([7, 8], Stretch(0, 0, 2), missing=1, num_gaps=1, u=[0.7])
    m, p, e = VOCAB.mask_id, VOCAB.pad_id, VOCAB.eos_id
    canvas = masked([item, short], vocab=VOCAB)
    assert canvas.x[0].tolist() == [1, 2, m, m, 5, m]
    assert canvas.x[1, 2:].tolist() == [p] * 4
    assert canvas.segment.tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0]]
    assert bool((canvas.fixed == (canvas.x != m)).all())
    canvas = opened([item, short], vocab=VOCAB, room=2)
    assert canvas.x[0].tolist() == [e, 1, 2, 5, p, p]
    assert canvas.window[0].tolist() == [False, False, True, True, False, False]  # behind b and behind e
    assert torch.equal(canvas.fixed, canvas.x != p)
    first = cut([7, 8], Stretch(0, 0, 2), missing=1, num_gaps=1, u=[0.3])
    assert first.gaps == ((7,),)
    assert opened([first], vocab=VOCAB, room=1).window[0].tolist() == [True, False, False]  # behind the beginning


def test_fill_in_the_middle_of_one_item():
    item, m, e = example(), VOCAB.mask_id, VOCAB.eos_id
    assert fim_prompt(item, vocab=VOCAB) == [1, 2, m, 5, m, e]
    assert fim_answer(item, vocab=VOCAB) == [3, 4, e, 6, e]
    assert fim_gaps([3, 4, e, 6, e], vocab=VOCAB, num_gaps=2) == [[3, 4], [6]]
    assert fim_gaps([3, 4, e, 6, e, 9, 9], vocab=VOCAB, num_gaps=2) == [[3, 4], [6]]
    assert fim_gaps([3, 4], vocab=VOCAB, num_gaps=2) == [[3, 4], []]
    assert fim_gaps([e, e], vocab=VOCAB, num_gaps=2) == [[], []]
    assert item.filled(fim_gaps(fim_answer(item, vocab=VOCAB), vocab=VOCAB, num_gaps=2)) == item.tokens


@pytest.mark.parametrize("num_gaps", [1, 3])
def test_fim_rows_hold_their_texts(shards, num_gaps):
    source = fim_rows(shards, vocab=VOCAB, length=40, noise=NOISE, num_gaps=num_gaps, copies=6)
    assert isinstance(source, RowSource)
    block = source.take(torch.arange(source.num_rows))
    m, p, e = VOCAB.mask_id, VOCAB.pad_id, VOCAB.eos_id
    assert torch.equal(block.segment > 0, block.tokens != p)
    assert torch.equal(block.target, (block.tokens != p) & (block.tokens != m))
    numbers, rates = Counter(), []
    for number, row in enumerate(block.tokens.tolist()):
        row = [i for i in row if i != p]
        text = source.texts[number % len(source.texts)].read(shards)
        assert row[-1] == e
        marks = row.count(m)
        rates.append(marks > 0)
        numbers[marks] += 1
        gaps = fim_gaps(row[row.index(e) + 1 :], vocab=VOCAB, num_gaps=max(marks, 1))
        assert all(gaps) or not marks
        parts, left = [[]], row[: row.index(e)]
        for i in left:
            if i == m:
                parts.append([])
            else:
                parts[-1].append(i)
        whole = parts[0] + [i for gap, part in zip(gaps, parts[1:]) for i in (*gap, *part)]
        assert whole == text
    assert sum(rates) / len(rates) == pytest.approx(0.5, abs=4 * 0.5 / len(rates) ** 0.5)
    assert set(numbers) == set(range(num_gaps + 1))
    one = source.take(torch.tensor([11]))
    assert torch.equal(one.tokens[0], block.tokens[11])
    copies = block.tokens.view(6, -1, 40)
    assert len({tuple(r.flatten().tolist()) for r in copies}) == 6  # each copy is cut anew
    assert Loader(source, rows=4, noise=NOISE).batch_at(2).tokens.shape == (4, 40)


def test_fim_rows_without_and_with_gaps_only(shards):
    plain = fim_rows(shards, vocab=VOCAB, length=30, noise=NOISE, rate=0.0).take(torch.arange(5))
    assert not (plain.tokens == VOCAB.mask_id).any()
    gapped = fim_rows(shards, vocab=VOCAB, length=30, noise=NOISE, rate=1.0).take(torch.arange(40))
    assert bool(((gapped.tokens == VOCAB.mask_id).sum(-1) == 1).all())


def test_mistakes(shards):
    text = (Stretch(0, 0, 20),)
    for make, said in (
        (lambda: stretches(shards, least=5, most=4), r"^least=5, most=4: "),
        (lambda: infill_sets(shards, noise=NOISE, num_valid=0, num_test=0), r"^num_valid=0, num_test=0, share=0.2: "),
        (lambda: infill_sets(shards, noise=NOISE, num_valid=0, num_test=1, share=1.0), r"share=1.0: must be"),
        (
            lambda: opened([example()], vocab=NO_END, room=1),
            r"^vocab.eos_id=None: an insertion model begins with EOS; ",
        ),
        (lambda: fim_prompt(example(), vocab=NO_END), r"^vocab.eos_id=None: filling in the middle ends "),
        (lambda: FimRows(shards, VOCAB, 22, NOISE, text), r"^length=22: a text of 20 tokens with 1 gaps needs 23; "),
        (lambda: FimRows(shards, VOCAB, 40, NOISE, ()), r"^texts: the corpus has none of this length; "),
        (lambda: FimRows(shards, VOCAB, 40, NOISE, text, rate=1.5), r"^rate=1.5, num_gaps=1, copies=1: "),
    ):
        with pytest.raises(ValueError, match=said):
            make()
