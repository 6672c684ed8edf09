"""The study of float32 noise: its closed forms, its faulty sampler, and the command with everything it leaves."""

import contextlib
import io
import json
import math
import xml.etree.ElementTree as ET

import pytest
import torch

from anyorder.cli.main import main
from anyorder.core.noise import Noise
from anyorder.studies import numerics
from anyorder.studies.numerics import loss, matching_temperature, nats, run_law, zipf
from anyorder.studies.numerics_draws import by_octave, coarse_draws
from anyorder.studies.numerics_faulty import JointGumbel, PlainGumbel, lattice_law, lattice_run
from anyorder.studies.plot_svg import Line, line_plot

SMALL = {"SMALL_VOCAB": 64, "SMALL_BITS": 12, "OUR_STEPS": (16, 64, 64)}  # loses as much in a fifth of the time


@pytest.fixture(scope="module", params=["small", pytest.param("whole", marks=pytest.mark.slow)])
def quick(request, tmp_path_factory, tiny_runs):
    """The quick study with a trained model: its folder, and the command's lines."""
    out = tmp_path_factory.mktemp("study")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        for name, value in SMALL.items() if request.param == "small" else ():
            patch.setattr(numerics, name, value)
        assert main(["study", "numerics", "--quick", "--out", str(out), "--run", str(tiny_runs.mdm)]) == 0
    return out, printed.getvalue().splitlines()


def test_the_last_line_is_json_and_every_aim_but_speed_is_met(quick):
    _, lines = quick
    last = json.loads(lines[-1])
    assert last["study"] == "numerics"
    checks = {name: c["met"] for name, c in last["checks"].items() if "time" not in name}
    assert len(checks) == 7
    assert all(checks.values()), last["checks"]
    assert any("bfloat16" in line for line in lines)


def test_files_are_whole(quick, tiny_runs):
    out, lines = quick
    kept = json.loads((out / "numerics.json").read_text())
    assert kept["checks"] == json.loads(lines[-1])["checks"]
    assert len(kept["losses"]) == 18
    (trained,) = kept["trained"]
    assert 0.95 * trained["before"] < trained["after"] <= trained["before"]
    assert trained["judge"] == str(tiny_runs.arm)
    for way in (trained["exact"], trained["joint"], trained["half"]):
        assert 0 < way["entropy"] < math.log(32)
        assert 1 < way["gen_ppl"] < 1e6
    assert trained["exact"] != trained["joint"] != trained["half"]
    assert {p.name for p in out.iterdir()} == {"numerics.json", "numerics.svg"}
    svg = ET.parse(out / "numerics.svg").getroot()
    assert len(svg.findall(".//{http://www.w3.org/2000/svg}path")) == 6


def test_a_run_with_fine_noise_keeps_the_law():
    law = zipf(1.0, 300)
    for n in (1, 7, 1000):
        after = run_law(law, n, bits=52)
        torch.testing.assert_close(after, law, rtol=1e-4, atol=0)


def test_a_run_of_one_step_is_the_plain_lattice_law_and_groups_of_steps_change_little():
    law = zipf(1.5, 500)
    eps = 2.0**-12
    want = eps / torch.expm1(eps / law)
    torch.testing.assert_close(run_law(law, 1, bits=12), want / want.sum())
    whole, grouped = (run_law(law, 400, bits=18, nodes=n) for n in (400, 50))
    assert float(whole.sum()) == pytest.approx(1)
    assert nats(grouped) == pytest.approx(nats(whole), abs=2e-3)
    assert nats(whole) < nats(law) - 0.1


def test_temperature_that_matches_an_entropy():
    law = zipf(1.0, 200)
    assert matching_temperature(law, nats(torch.softmax(law.log() / 0.7, -1))) == pytest.approx(0.7, abs=1e-6)
    assert matching_temperature(law, nats(law)) == pytest.approx(1, abs=1e-6)
    assert nats(torch.full((8,), 3.0, dtype=torch.float64)) == pytest.approx(math.log(8))


def test_more_steps_lose_more():
    few, many = loss(1.0, 64, nodes=16), loss(1.0, 10_000, nodes=16)
    assert many.run < few.run < few.before
    assert many.reveal < few.reveal < 1


def test_joint_draws_follow_their_law_and_not_a_near_one():
    law = zipf(1.0, 64)
    after = run_law(law, 30, bits=12)
    for given, follows in ((after, True), (run_law(law, 6, bits=12), False)):
        got = coarse_draws(JointGumbel(30, 12), law, after=given, a=1.0, positions=8192, noise=Noise.of(3))
        assert (got.p_law > 1e-4) == follows
        assert got.p_model < 1e-6
        assert got.positions == 8192


def test_the_lattice_law_is_that_of_all_noise():
    """Every combination of two bits for three classes, two of which may tie, through the faulty draw's own words."""
    probs, levels = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), 4
    u = torch.cartesian_prod(*[torch.arange(levels)] * 3).float() / levels
    winner = (probs.float() / (1e-10 - (u + 1e-10).log())).argmax(-1)
    want = torch.bincount(winner, minlength=3).double() / levels**3
    torch.testing.assert_close(lattice_law(probs, bits=2), want)


def test_the_lattice_law_becomes_the_model_as_bits_grow_and_the_approximation_of_a_far_mask():
    law = zipf(1.0, 20)
    torch.testing.assert_close(lattice_law(law, bits=16), law, rtol=2e-3, atol=0)
    assert nats(lattice_law(law, bits=5)) < nats(law) - 0.05
    for n in (1, 8):
        exact = lattice_run(law, n, bits=14)
        assert float(exact.sum()) == pytest.approx(1)
        torch.testing.assert_close(exact, run_law(law, n, bits=14), rtol=0.05, atol=1e-5)


def test_half_precision_draws_follow_their_law_and_neither_the_model_nor_each_other():
    law = zipf(1.5, 64)
    joint, plain = lattice_run(law, 12, bits=8), lattice_law(law, bits=8)
    assert float(joint.sum()) == pytest.approx(1)
    for sampler, after, other in ((JointGumbel(12, 8), joint, plain), (PlainGumbel(12, 8), plain, joint)):
        got = coarse_draws(sampler, law, after=after, a=1.5, positions=8192, noise=Noise.of(4))
        assert got.p_law > 1e-4
        assert got.p_model < 1e-6
        assert coarse_draws(sampler, law, after=other, a=1.5, positions=8192, noise=Noise.of(4)).p_law < 1e-4


def test_the_plot_refuses_nothing_to_draw_and_escapes_names():
    with pytest.raises(ValueError, match="at least one point"):
        line_plot([], title="", x="", y="")
    assert "a &lt; b" in line_plot([Line("a < b", [(1.0, 1.0), (10.0, 2.0)])], title="", x="", y="")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["numeric"], "did you mean 'numerics'"),
        (["numerics", "--run", "nowhere"], "no such folder"),
        (["numerics", "--out", __file__], "is a file"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_arm_and_no_steps_are_refused(tiny_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "numerics", "--quick", "--run", str(tiny_runs.arm)]) == 2
    assert "has no mask" in capsys.readouterr().err
    for make in (JointGumbel, PlainGumbel):
        with pytest.raises(ValueError, match="must be >= 1"):
            make(0, 8)


@pytest.mark.parametrize(("size", "sums"), [(1, [1]), (4, [1, 2, 1]), (7, [1, 2, 4]), (10, [1, 2, 4, 3])])
def test_octaves(size, sums):
    assert by_octave(torch.ones(size, dtype=torch.int64)).tolist() == sums
