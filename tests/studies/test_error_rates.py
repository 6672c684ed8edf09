"""The study of error rates: its theory and its cells against enumeration, and the command with all it leaves."""

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
from anyorder.studies import error_rates
from anyorder.studies.error_languages import Language, hard_languages, soft_languages
from anyorder.studies.error_rates import Sizes, checks, off_one, one_thread
from anyorder.studies.error_runs import Need, Rate, fall, growth, need, power, rate
from anyorder.studies.error_theory import REACH, Pairs, clock_error, clock_error_of_groups, path_cost, visible_curve
from anyorder.studies.plot_svg import Line, Plot, line_plots
from anyorder.testing.hidden import HiddenMarkovOracle, clock, ngram, ngram_entropy, sparse_laws, stationary
from anyorder.testing.laws import ancestral_law, group_law, z_curve

SEED = Noise.of(31)
SOFT = sparse_laws(3, 3, noise=SEED.at("soft"))
HARD = sparse_laws(4, 4, noise=SEED.at("hard"), forbidden=1)


SMALL = Sizes(
    tokens=1 << 11,
    token_lengths=(16,),
    token_steps=(1, 4, 8),
    sequence_lengths=(8, 16),
    shares=(1 / 8, 1 / 2, 1.0),
    causal=16,
    points=8,
)


@pytest.fixture(scope="module", params=["small", pytest.param("whole", marks=pytest.mark.slow)])
def quick(request, tmp_path_factory):
    """The quick study: its folder, and the command's lines."""
    out = tmp_path_factory.mktemp("study")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        if request.param == "small":
            patch.setattr(error_rates, "QUICK", SMALL)
        assert main(["study", "error-rates", "--quick", "--out", str(out)]) == 0
    return out, printed.getvalue().splitlines()


def test_every_aim_is_met(quick):
    _, lines = quick
    last = json.loads(lines[-1])
    assert last["study"] == "error-rates"
    assert len(last["checks"]) == 7
    assert all(c["met"] for c in last["checks"].values()), last["checks"]


def test_files_are_whole(quick):
    out, lines = quick
    kept = json.loads((out / "error-rates.json").read_text())
    assert kept["checks"] == json.loads(lines[-1])["checks"]
    assert {r["language"] for r in kept["token_rates"]} == {"2-gram", "3-gram", "4-gram"}
    assert {r["language"] for r in kept["sequence_rates"]} == {"sparse 2-gram", "clock", "hidden Markov"}
    for r in kept["token_rates"]:
        assert r["broken"] == 0
        assert math.log(r["ter"]) == pytest.approx(r["nats"])
        assert r["nfe"] <= r["num_steps"]
    svg = ET.parse(out / "error-rates.svg").getroot()
    assert len(svg.findall(".//{http://www.w3.org/2000/svg}g")) == 3
    assert len(svg.findall(".//{http://www.w3.org/2000/svg}path")) == 6 + 8 + 4


@pytest.mark.parametrize("sampler", ["ancestral", "first-hitting"])
def test_rates_are_those_of_the_enumerated_law(sampler):
    chain, moves, emission = torch.tensor(
        [[[0.0, 1.0], [0.7, 0.3]], [[0.1, 0.9], [0.9, 0.1]], [[0.9, 0.1], [0.2, 0.8]]], dtype=torch.float64
    )
    languages = [
        Language("chain", ngram(chain), False),
        Language("hidden", HiddenMarkovOracle(stationary(moves), moves, emission), True),
    ]
    for language in languages:
        law = (
            ancestral_law(language.oracle, 4, alphas=[0, 0.5, 1])
            if sampler == "ancestral"
            else group_law(language.oracle, 4, sizes=[2, 2])
        )
        joint = language.oracle.joint(4)
        got = rate(language, sampler, length=4, num_steps=2, rows=20_000, noise=SEED)
        wrong = float(law[joint.table == 0].sum())
        assert got.broken == pytest.approx(wrong, abs=4 * got.broken_error if wrong else 0)
        assert wrong > 0.05 or language.soft
        if language.soft:
            nats = -float(law @ joint.table.log()) / 4
            assert abs(got.nats - nats) < 4 * got.nats_error < 0.02
            assert nats > joint.entropy() / 4 + 0.01


def test_one_token_at_a_time_is_exact():
    language = Language("2-gram", ngram(SOFT), True, lambda n: ngram_entropy(SOFT, n))
    for sampler in ("causal", "first-hitting"):
        got = rate(language, sampler, length=12, num_steps=12, rows=2000, noise=SEED)
        assert got.one_at_a_time
        assert got.nfe == 12
        assert got.off < 4


@pytest.mark.parametrize(("phases", "num_steps"), [(2, 1), (2, 3), (2, 8), (3, 4)])
def test_error_of_the_clock_by_enumeration(phases, num_steps):
    oracle = clock(phases, phases)
    law = ancestral_law(oracle, 4, alphas=[i / num_steps for i in range(num_steps)] + [1])
    impossible = float(law[oracle.joint(4).table == 0].sum())
    assert clock_error(phases, 4, num_steps) == pytest.approx(impossible, abs=1e-12)
    assert impossible > 0.05


def test_error_of_the_clock_in_groups_by_enumeration():
    oracle = clock(3, 3)
    for num_steps, sizes in ((1, [4]), (2, [2, 2]), (4, [1, 1, 1, 1])):
        impossible = float(group_law(oracle, 4, sizes=sizes)[oracle.joint(4).table == 0].sum())
        assert clock_error_of_groups(3, 4, num_steps) == pytest.approx(impossible, abs=1e-12)


@pytest.mark.parametrize(("left", "apart", "right"), [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 2, 2)])
def test_pairs_by_enumeration(left, apart, right):
    """A chain long enough to hold the visible tokens and the pair, summed over all its states."""
    length = left + apart + right + 1
    for law in (SOFT, HARD):
        oracle = ngram(law)
        joint, size = oracle.joint(length), law.shape[1]
        p = joint.table.reshape([size] * length)
        outer, u, v = (0, length - 1), left, left + apart
        gone = [j for j in range(length) if j not in (*outer, u, v)]
        p = p.sum(gone) if gone else p  # a, u, v, b
        ends = p.sum((1, 2), keepdim=True)
        drawn = p.sum(2, keepdim=True) * p.sum(1, keepdim=True) / torch.where(ends > 0, ends, 1.0)
        between = torch.linalg.matrix_power(law, apart)
        pairs = Pairs.of(law)
        place = (apart - 1, left - 1, right - 1)
        assert float(pairs.broken[place]) == pytest.approx(float(drawn[:, between == 0].sum()), abs=1e-12)
        if law is SOFT:
            nats = torch.zeros(size, size, dtype=torch.float64)
            for path in itertools.product(range(size), repeat=apart + 1):
                chance = math.prod(float(law[a, b]) for a, b in itertools.pairwise(path))
                nats[path[0], path[-1]] -= chance * math.log(chance)
            cost = (nats / between)[None, :, :, None]
            assert float(pairs.excess[place]) == pytest.approx(float(((drawn - p) * cost).sum()), abs=1e-12)


def test_pairs_of_one_step_are_all_neighbours():
    law = (SOFT + 1) / 4  # forgets within REACH
    pairs, start, once = Pairs.of(law), stationary(law), -law.log()
    want = 19 * float(start @ once @ start - start @ (law * once).sum(-1))
    assert pairs.total(pairs.excess, length=20, num_steps=1, groups=False) == pytest.approx(want, rel=1e-6)
    assert pairs.total(pairs.excess, length=20, num_steps=1, groups=True) == pytest.approx(want, rel=1e-6)
    assert pairs.total(pairs.excess, length=20, num_steps=20, groups=True) == 0
    assert bool((pairs.broken == 0).all())
    assert pairs.excess.shape == (REACH, REACH, REACH)


def test_the_visible_curve_is_the_mean_of_the_exact_one():
    oracle = ngram(sparse_laws(4, 2, noise=SEED.at("curve"), sharpness=2.0))
    tokens = oracle.sample(4000, 5, noise=SEED.at("rows"))
    curve = visible_curve(oracle, tokens, points=8, noise=SEED.at("order"))
    z = z_curve(oracle.joint(5))
    share = torch.arange(9, dtype=torch.float64) / 8
    chance = torch.stack([math.comb(4, k) * share**k * (1 - share) ** (4 - k) for k in range(5)], -1)
    torch.testing.assert_close(curve, chance @ z, rtol=0, atol=0.01)
    assert float(z[0] - z[-1]) > 0.05
    assert curve[0] == pytest.approx(float(z[0]), abs=1e-12)


def test_path_cost_of_a_line_is_its_fall_over_twice_the_steps():
    curve = torch.linspace(3, 1, 9, dtype=torch.float64)
    for n in (1, 2, 4, 8):
        assert path_cost(curve, n) == pytest.approx(2 / (2 * n))
    bent = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert path_cost(bent, 2) == pytest.approx((4 + 1) / 2 - (2 + 2 + 1 + 1) / 4)
    with pytest.raises(ValueError, match="must divide the curve's 8"):
        path_cost(curve, 3)


def rated(num_steps, broken, *, nats=1.0, theory=None):
    return Rate("made", True, "ancestral", 64, num_steps, 10_000, 1.0, nats, 0.01, broken, floor=0.5, theory=theory)


def test_need_is_found_between_neighbours():
    rates = [rated(n, -math.expm1(-12 / n)) for n in (4, 8, 16, 32)]
    found = need(rates)
    assert found.num_steps == pytest.approx(12 / math.log(2), rel=0.01)
    assert 0 < found.log_error < 0.05
    assert 16 < found.nfe < found.num_steps
    assert found.theory is None
    told = need([rated(n, -math.expm1(-12 / n), theory=-math.expm1(-10 / n)) for n in (4, 8, 16, 32)])
    assert told.num_steps == found.num_steps
    assert told.theory == pytest.approx(10 / math.log(2), rel=0.01)
    assert need(rates[:2]) is None
    assert need(rates[3:]) is None


def test_powers():
    assert power([1.0, 2.0, 4.0], [3.0, 6.0, 12.0], [0.1, 0.1, 0.1])[0] == pytest.approx(1)
    p, error = power([2.0, 4.0, 8.0], [4.0, 16.0, 100.0], [0.1, 0.1, 1e6])
    assert p == pytest.approx(2)
    assert error == pytest.approx(0.1 * math.sqrt(2) / math.log(2), rel=1e-3)
    rates = [rated(n, 0.0, nats=0.5 + 2 / n) for n in (1, 4, 8, 16)]
    assert fall(rates)[0] == pytest.approx(1)
    needs = [Need("made", "ancestral", n, n / 3, 0.1, 1.0) for n in (16, 32, 64)]
    assert growth(needs)[0] == pytest.approx(1)


def test_aims_are_missed_by_other_figures():
    """Rates of a sampler that writes wrong rows one by one, and whose steps help too little."""
    slow = [rated(n, 0.3, nats=0.5 + n**-0.5, theory=0.1) for n in (4, 8, 16, 32)]
    single = replace(slow[0], sampler="causal", broken=0.1, nats=0.6)
    clock = replace(slow[0], language="clock", broken=0.6, theory=0.4)
    needs = [Need("made", "ancestral", n, n**0.5, 0.01, 1.0) for n in (16, 32, 64)]
    other = replace(slow[1], length=32, nats=2.0)
    assert [c.met for c in checks([*slow, single, other], [clock], needs)] == [False, True, *[False] * 5]
    assert not checks([*slow, replace(single, broken=0.0)], [clock], needs)[1].met
    assert off_one(0.7, 0.1) == pytest.approx(0.1)
    assert off_one(1.1, 0.1) == 0


def test_languages_are_what_they_are_called():
    for language in soft_languages():
        assert bool((language.oracle.joint(5).table > 0).all())
        assert language.entropy(5) == pytest.approx(language.oracle.joint(5).entropy(), abs=1e-12)
    for language in hard_languages():
        table = language.oracle.joint(4).table
        assert 0.02 < float((table > 0).double().mean()) < 0.9
        if language.entropy is not None:
            assert language.entropy(4) == pytest.approx(language.oracle.joint(4).entropy(), abs=1e-12)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_model_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "error-rates", "--run", "somewhere"]) == 2
    assert "leave --run out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_plots_below_each_other():
    line = Line("a < b", [(16.0, 1.0), (64.0, 0.25)])
    svg = line_plots([Plot([line], "T", "x", "y"), Plot([line], "U", "x", "y", log_y=True)])
    assert 'viewBox="0 0 760 840"' in svg
    root = ET.fromstring(svg)
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("a < b") == 2
    assert texts.count("20") == texts.count("50") == 2
    assert "0.2" in texts
    paths = [p.attrib["d"] for p in root.iter("{http://www.w3.org/2000/svg}path")]
    assert paths == ["M64.0 63.0 L590.0 288.8", "M64.0 48.0 L590.0 364.0"]
    with pytest.raises(ValueError, match="at least one point"):
        Plot([Line("empty", [])], "", "", "")
