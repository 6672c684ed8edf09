"""The infilling study: its measurements against cases worked out by hand, and the quick command."""

import contextlib
import io
import itertools
import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch

from anyorder.cli.main import main
from anyorder.core.noise import Noise
from anyorder.core.types import Vocab
from anyorder.data.corpus import Document, place
from anyorder.data.infill import Infill, Stretch
from anyorder.data.tokenizer import SymbolTokenizer
from anyorder.evaluation.gen_ppl import Judged as Verdict
from anyorder.samplers.insertion import Insert
from anyorder.samplers.token import TokenRule
from anyorder.samplers.unmask import Unmask
from anyorder.studies import infilling
from anyorder.studies.infilling import trained_checks
from anyorder.studies.infilling_fill import by_fim, by_insertion, by_unmasking, from_the_left, likeliest_sizes, resized
from anyorder.studies.infilling_length import EXACT, from_oracles, length_of, tilted, tilted_mean
from anyorder.studies.infilling_likelihood import cost, length_nats, scored
from anyorder.studies.infilling_measure import Score, distance, score, truth
from anyorder.studies.infilling_report import picture
from anyorder.studies.infilling_runs import KINDS, NAMES
from anyorder.studies.infilling_text import HELD_OUT, lines_of, write_lines
from anyorder.studies.infilling_write import Judged, Mean, judged, left_to_right, unmasked
from anyorder.testing.strings import InsertionOracle, Strings

NOISE = Noise.of(4)
LETTERS = SymbolTokenizer("abcdefgh")
VOCAB = LETTERS.vocab
NOWHERE = Stretch(0, 0, 0)


def item(*pieces: str) -> Infill:
    """Texts and gaps in turn."""
    ids = [tuple(LETTERS.encode(p)) for p in pieces]
    return Infill(tuple(ids[::2]), tuple(ids[1::2]), NOWHERE)


def spelt(gaps: tuple[tuple[int, ...], ...]) -> list[str]:
    return [LETTERS.decode(gap) for gap in gaps]


class Sure(torch.nn.Module):
    """A denoiser that says at each asked position what a function of row and position says, for certain."""

    nfe = 1

    def __init__(self, answer, vocab: Vocab = VOCAB) -> None:
        super().__init__()
        self.answer, self.vocab = answer, vocab

    def __call__(self, canvas, at):
        rows = [canvas.x[r][canvas.valid[r]].tolist() for r in range(len(at))]
        tokens = [self.answer(rows[r], p) for r, p in at.nonzero().tolist()]
        return torch.full((len(tokens), self.vocab.size), -30.0).scatter(1, torch.tensor(tokens)[:, None], 0.0)


class Fair:
    """A denoiser that finds all tokens and end-of-document equally likely."""

    nfe = 1
    vocab = VOCAB

    def __call__(self, canvas, at):
        return torch.zeros(int(at.sum()), VOCAB.size)


# lines


def test_lines_stand_in_one_split_once_and_files_are_not_torn_apart():
    files = [
        Document(f"f{i}.py", "".join(f"    line {i} of {j}\n" for j in range(9)) + "shared = 1\nx\né = 5\n")
        for i in range(200)
    ]
    files.append(Document("encodings/table.py", "'\\x00' # NULL\n"))
    found = lines_of(files)
    every = list(itertools.chain(*found.values()))
    assert len(every) == len(set(every)) == 200 * 9 + 1
    assert all(line == line.strip() for line in every)
    of = {line: name for name, lines in found.items() for line in lines}
    for i, file in enumerate(files[:-1]):
        (name,) = {of[f"line {i} of {j}"] for j in range(9)}
        held_out = [n for n, (low, high) in HELD_OUT.items() if low <= place(file) < high]
        assert name == (held_out or ["train"])[0]
    assert min(len(found["valid"]), len(found["test"])) > 0
    assert {len(lines) for lines in lines_of(files[:1], most=4).values()} == {0, 4}


# lengths


def test_the_tilt_of_two_lengths_is_the_one_worked_out():
    sizes = [1] * 50 + [2] * 50  # p = {a: 1/2, ab: 1/2} tilts to {3/5, 2/5}
    assert tilted_mean(sizes) == pytest.approx(1.4)
    assert tilted([0, 50, 50]) == pytest.approx([0, 0.6, 0.4])
    found = length_of(sizes, model="m", decoding="d", expected=1.4)
    assert (found.mean, found.counts) == (1.5, (0, 50, 50))
    assert found.stderr == pytest.approx(0.5 / math.sqrt(99))


def test_oracles_write_the_laws_of_their_weights_and_a_threshold_does_not():
    found = {(x.model, x.decoding): x for x in from_oracles(700, noise=NOISE)}
    plain, heavy = found["exact, weight L+1", EXACT], found["exact, document weight", EXACT]
    assert (plain.expected, heavy.expected) == (2.25, pytest.approx(53 / 27))
    for x in (plain, heavy):
        assert abs(x.mean - x.expected) < 3.5 * x.stderr
    assert plain.mean - heavy.mean > 5 * plain.stderr
    assert found["exact, weight L+1", "stop at 0.9"].mean > plain.mean + 0.5


# likelihoods


def test_everybody_is_charged_for_the_end_but_the_model_that_is_told():
    documents = [LETTERS.encode(t) for t in ("abc", "a", "abcdefghab")]
    sizes, each = torch.tensor([3.0, 1.0, 10.0]).double(), math.log(VOCAB.size)
    for kind, charged in (("arm", sizes + 1), ("mdm", sizes)):
        nats, form = scored(Fair(), documents, kind=kind, draws=8, noise=NOISE)
        torch.testing.assert_close(nats, charged * each)
        assert form == ("exact" if kind == "arm" else "bound")


def test_an_insertion_models_bound_is_tight_for_the_oracle():
    law = Strings.of({"a": 0.5, "ab": 0.25, "abc": 0.25})
    nats, form = scored(InsertionOracle(law), [list(t) for t, _ in law.chance], kind="ilm", draws=400, noise=NOISE)
    assert form == "bound"
    assert nats.tolist() == pytest.approx([-math.log(p) for _, p in law.chance], abs=0.15)


def test_the_table_of_lengths_is_a_law_and_costs_are_ratios():
    lengths = [1, 1, 1, 2, 4]
    assert math.fsum((-length_nats(range(1, 5), lengths)).exp().tolist()) == pytest.approx(1)
    assert length_nats([1, 3], lengths).tolist() == pytest.approx([-math.log(4 / 9), -math.log(1 / 9)])
    made = cost(torch.tensor([2.0, 6.0]).double(), torch.tensor([1.0, 3.0]).double(), model="m", told="-", form="exact")
    assert (made.per_token, made.per_token_stderr, made.nats) == (2.0, 0.0, 4.0)
    assert made.stderr == pytest.approx(2.0)


# gaps


def test_an_insertion_model_fills_what_is_missing_and_nothing_else():
    law = Strings(tuple((tuple(LETTERS.encode(t)), p) for t, p in (("abcd", 0.75), ("abccd", 0.25))), VOCAB.size - 1)
    items = [item("a", "bc", "d"), item("", "ab", "c", "d", "")]
    filled = by_insertion(InsertionOracle(law), items, Insert(stop=0.5), length=8, noise=NOISE)
    assert spelt(filled[0]) == ["bc"]
    assert spelt(filled[1]) == ["ab", "d"]


def test_masked_and_left_to_right_models_write_as_many_as_they_are_told():
    eos, letter = VOCAB.eos_id, "abcdefgh".index
    items = [item("ab", "c", "d"), item("a", "bcd", "e", "fg", "h")]
    told = Sure(lambda row, p: letter("abcdefgh"[p]))
    for filled in (
        by_unmasking(told, items, Unmask(), noise=NOISE),
        from_the_left(told, items, TokenRule(), noise=NOISE),
    ):
        assert [spelt(gaps) for gaps in filled] == [["c"], ["bcd", "fg"]]
    silent = by_unmasking(Sure(lambda row, p: eos), items, Unmask(), noise=NOISE)
    assert [spelt(gaps) for gaps in silent] == [[""], ["", ""]]  # an end is no token
    seen = []
    from_the_left(Sure(lambda row, p: seen.append(row[:p]) or 0), [item("ab", "c", "d")], TokenRule(), noise=NOISE)
    assert seen == [LETTERS.encode("ab")]
    assert resized(items[1], (0, 3)).gaps == ((), (0, 0, 0))


def test_a_filling_arm_writes_behind_the_marks_until_the_last_gap_is_over():
    items = [item("ab", "c", "d"), item("a", "bcd", "e", "fg", "h")]

    def answer(row: list[int], p: int) -> int:
        start = row.index(VOCAB.eos_id) + 1
        gaps = row[:start].count(VOCAB.mask_id)
        text = "c$$$" if gaps == 1 else "bcd$fg$h$"
        mark = text[min(p - start, len(text) - 1)]
        return VOCAB.eos_id if mark == "$" else LETTERS.encode(mark)[0]

    for some in (items, items[:1]):  # with several gaps, and where the first end stops the row
        filled = by_fim(Sure(answer), some, TokenRule(), length=30, noise=NOISE)
        assert [spelt(gaps) for gaps in filled] == [["c"], ["bcd", "fg"]][: len(some)]


def test_the_length_is_the_one_under_which_the_text_is_likeliest():
    class Prefers:
        """Finds every token of rows of this many positions a little likelier."""

        nfe = 1
        vocab = VOCAB

        def __init__(self, length: int) -> None:
            self.length = length

        def __call__(self, canvas, at):
            fits = (canvas.valid.sum(-1) == self.length).double()[at.nonzero()[:, 0]]
            return torch.zeros(int(at.sum()), VOCAB.size, dtype=torch.float64).index_put(
                (torch.arange(int(at.sum())), torch.zeros(int(at.sum()), dtype=torch.int64)), 0.5 * fits
            )

    gapped = item("aa", "bcd", "aa")
    for size in (0, 2, 11):
        assert likeliest_sizes(Prefers(4 + size + 1), gapped, draws=2, noise=NOISE) == (size,)
    two = item("aa", "b", "a", "c", "aa")
    assert likeliest_sizes(Prefers(5 + 0 + 1), two, draws=2, noise=NOISE) == (0, 0)
    assert sum(likeliest_sizes(Prefers(5 + 3 + 1), two, draws=2, noise=NOISE)) == 3


# figures


def test_distances_of_known_words():
    for a, b, n in (("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("flaw", "lawn", 2), ("ab", "ba", 2)):
        assert distance(a, b) == distance(b, a) == n


class Counts:
    """A judge to which a text of n letters costs n^2 nats."""

    name, first_token = "counts", ""

    def nll(self, texts):
        size = torch.tensor([len(t) for t in texts])
        return Verdict(nats=(size.double() ** 2), scored=size, cut=torch.zeros_like(size))

    def features(self, texts):
        return torch.zeros(len(texts), 1)


def test_a_score_is_what_was_worked_out_by_hand():
    items = [item("ab", "cd", "e"), item("a", "b", "c")]  # 5 and 3 letters, of which 2 and 1 are missing
    told = Score(**vars(score(truth(items), items, tokenizer=LETTERS, judge=Counts())))
    assert (told.exact.value, told.edits.value, told.against_truth.value, told.off.value) == (100, 0, 0, 0)
    assert told.against_input.value == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    wrong = truth(items)
    wrong.gaps[0], wrong.gaps[1] = ((2,),), ((1,),)  # "c" and "b"
    found = score(wrong, items, tokenizer=LETTERS, judge=Counts())
    assert (found.exact.value, found.exact.stderr) == (50.0, pytest.approx(50.0))
    assert (found.edits.value, found.tokens.value, found.off.value) == (25.0, 1.0, 0.5)
    assert found.against_truth.value == pytest.approx(100 * (4 / 5 - 1) / 2)
    assert found.entropy.value == pytest.approx((math.log(4) + math.log(3)) / 2)


def test_texts_from_nothing_end_where_they_should():
    letter = "abcdefgh".index
    stops = Sure(lambda row, p: VOCAB.eos_id if p == 3 else letter("a"))
    assert left_to_right(stops, 3, length=6, noise=NOISE) == [[0, 0, 0]] * 3
    assert left_to_right(Sure(lambda row, p: 1), 2, length=4, noise=NOISE) == [[1] * 4] * 2
    wrote = unmasked(Sure(lambda row, p: 2), 400, lengths=[2, 2, 2, 5], noise=NOISE)
    assert {len(w) for w in wrote} == {2, 5}
    assert 60 < sum(len(w) == 5 for w in wrote) < 140
    made = judged([[0, 0], [], [1, 2, 3]], model="m", decoding="d", tokenizer=LETTERS, judge=Counts())
    assert (made.texts, made.empty, made.nats.value) == (3, 1, 2.5)
    assert (made.length.value, made.entropy.value) == (pytest.approx(5 / 3), pytest.approx(math.log(3) / 2))


def test_aims_of_trained_models_are_met_and_missed():
    def lengths(plain: float, heavy: float):
        made = [length_of([20, 20], model="training lines", decoding="-", expected=20.0)]
        for kind, mean, expected in (("ilm", plain, 20.0), ("ilm-document", heavy, 15.0)):
            one = length_of([1, 2], model=NAMES[kind], decoding=EXACT, expected=expected)
            made.append(type(one)(**{**vars(one), "mean": mean, "stderr": 0.1}))
        return made

    def texts(ours: float, theirs: float):
        zero = Mean(0.0, 0.0)
        pairs = ((NAMES["ilm"], EXACT, ours), ("MDM", "length from a table", theirs))
        return [Judged(m, d, 9, Mean(n, 0.1), zero, zero, 0) for m, d, n in pairs]

    def scores(drawn: float, published: float):
        zero = Mean(0.0, 0.0)
        rows = (("ILM", "nothing", "drawn", drawn), ("ILM", "nothing", "published", published))
        rows += (("MDM", "true length", "drawn", 10.0),)
        return [Score(1, m, "-", t, d, 9, zero, zero, Mean(v, 1.0), zero, zero, zero, zero) for m, t, d, v in rows]

    def met(*given):
        return [c.met for c in trained_checks(*given)]

    assert met(lengths(20.9, 15.7), texts(3.0, 3.1), scores(9.0, 8.0)) == [True] * 6
    assert met(lengths(21.1, 18.0), texts(3.2, 3.1), scores(11.0, 12.0)) == [False] * 6
    assert met(lengths(26.0, 19.5), texts(3.2, 3.1), scores(11.0, 12.0))[:3] == [True, False, False]


# the command


@pytest.fixture(scope="module", params=["small", pytest.param("whole", marks=pytest.mark.slow)])
def quick(request, tmp_path_factory):
    """The quick study: its folder, and the command's lines."""
    out = tmp_path_factory.mktemp("infilling")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        if request.param == "small":
            recipe = infilling.QUICK.recipe
            model = recipe.model.model_copy(update={"max_length": 49})
            recipe = replace(recipe, model=model, length=48, rows=2, num_steps=2, rates=(2e-3,))
            small = replace(infilling.QUICK, recipe=recipe, texts=8, few=2, documents=3, items={1: 2, 2: 2}, copies=2)
            patch.setattr(infilling, "QUICK", small)
            (out / "corpus").mkdir()
            for split in ("train", "valid", "test"):  # read instead of Python's standard library
                lines = [f"{split}_{i} = function_{i % 7}(value_{i * i}, key={i}) + {i}" for i in range(60)]
                text = "".join(json.dumps({"text": line}) + "\n" for line in lines)
                (out / "corpus" / f"{split}.jsonl").write_text(text)
            for name in ("likeliest position", "published, top-p 0.2", "4 gaps a pass"):
                patch.delitem(infilling.DECODINGS, name)
        assert main(["study", "infilling", "--quick", "--out", str(out)]) == 0
    return out, printed.getvalue().splitlines()


def test_the_quick_study_meets_its_exact_aims_and_keeps_everything(quick):
    out, lines = quick
    last = json.loads(lines[-1])
    assert len(last["checks"]) == 2
    assert all(c["met"] for c in last["checks"].values()), last["checks"]
    kept = json.loads((out / "infilling.json").read_text())
    assert set(kept["training"]) == set(KINDS)
    rows = {kind: t["tokens"] for kind, t in kept["training"].items()}
    assert max(rows.values()) < 1.2 * min(rows.values())
    assert [s["model"] for s in kept["infilling"] if s["exact"]["value"] == 100][:1] == ["truth"]
    assert {s["num_gaps"] for s in kept["infilling"]} == {1, 2}
    told = {x["model"]: x["told"] for x in kept["likelihood"]}
    assert [m for m, t in told.items() if t != "nothing"] == ["MDM"]
    svg = ET.parse(out / "infilling.svg").getroot()
    assert len(svg.findall(".//{http://www.w3.org/2000/svg}path")) == 8  # with a piece of each in the legend


def test_other_settings_are_refused_before_anything_is_written(quick, capsys, tmp_path):
    out, _ = quick
    before = {p: p.read_text() for p in out.rglob("metrics.jsonl")}
    assert main(["study", "infilling", "--quick", "--seed", "1", "--out", str(out)]) == 2
    assert "holds a run with another" in capsys.readouterr().err
    assert {p: p.read_text() for p in out.rglob("metrics.jsonl")} == before
    assert main(["study", "infilling", "--quick", "--run", str(out / "ilm"), "--out", str(tmp_path)]) == 2
    assert "leave --run out" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("quick", ["whole"], indirect=True)
def test_a_second_time_nothing_is_trained_and_other_settings_are_refused(quick, capsys, tmp_path):
    out, lines = quick
    before = {kind: (out / kind / "metrics.jsonl").read_text() for kind in KINDS}
    assert main(["study", "infilling", "--quick", "--out", str(out)]) == 0
    assert {kind: (out / kind / "metrics.jsonl").read_text() for kind in KINDS} == before
    assert capsys.readouterr().out.splitlines() == lines
    assert main(["study", "infilling", "--quick", "--seed", "1", "--out", str(out)]) == 2
    assert "holds a run with another seed" in capsys.readouterr().err
    assert main(["study", "infilling", "--quick", "--run", str(out / "ilm"), "--out", str(tmp_path)]) == 2
    assert "leave --run out" in capsys.readouterr().err


def test_a_corpus_that_is_there_is_kept(tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": f"a {name} text"}) + "\n")
    assert write_lines(tmp_path).read_text() == '{"text": "a train text"}\n'


def test_an_unknown_scale_is_named(capsys):
    assert main(["study", "infilling", "--scale", "papper"]) == 2
    assert "one of tiny, paper" in capsys.readouterr().err


def test_lengths_are_drawn_with_a_legend():
    lengths = [length_of([3, 9], model="training lines", decoding="-", expected=6.0)]
    lengths += [length_of([4, 8], model=NAMES[k], decoding=EXACT, expected=6.0) for k in ("ilm", "ilm-document")]
    svg = ET.fromstring(picture(lengths))
    texts = {e.text: float(e.get("x", 0)) for e in svg.iter() if e.tag.endswith("text")}
    assert all(texts[name] > 590 for name in ("data", "weight L+1", "document weight", "predicted: p/(L+1)"))
