"""Plans against brute force, known costs and measured ones."""

import itertools
import json

import pytest
import torch

from anyorder.cli.main import main
from anyorder.core.noise import Noise
from anyorder.likelihood.groups import group_nll
from anyorder.samplers.base import generate, steps
from anyorder.samplers.plan import Planned, best_groups, non_increasing, path_kl
from anyorder.samplers.unmask import Unmask
from anyorder.studies.plan import cosine_groups, equal_groups, plan
from anyorder.testing.contracts import blank, check_exact
from anyorder.testing.laws import group_law, z_curve
from anyorder.testing.oracle import RandomTable
from anyorder.testing.tiny import oracle_b

NOISE = Noise.of(17)
Z = z_curve(oracle_b().joint(6))


def compositions(total, parts):
    for cuts in itertools.combinations(range(1, total), parts - 1):
        yield [b - a for a, b in itertools.pairwise([0, *cuts, total])]


@pytest.mark.parametrize("num_passes", range(1, 9))
def test_the_best_plan_by_brute_force(num_passes):
    for curve in (Z, NOISE.at("curve").uniform(0, 0, torch.arange(7)), torch.linspace(3, 1, 8, dtype=torch.float64)):
        length = len(curve)
        best = min(
            path_kl(curve, groups)
            for parts in range(1, min(num_passes, length) + 1)
            for groups in compositions(length, parts)
        )
        groups = best_groups(curve, num_passes)
        assert sum(groups) == length
        assert len(groups) <= num_passes
        assert path_kl(curve, groups) == pytest.approx(best, abs=1e-12)


def test_a_plan_with_a_pass_per_token_costs_nothing():
    assert path_kl(Z, best_groups(Z, 6)) == 0
    assert best_groups(Z, 1) == [6]


def test_small_groups_come_where_the_curve_falls_fast():
    assert best_groups(Z, 3) == sorted(best_groups(Z, 3))
    assert path_kl(Z, best_groups(Z, 3)) < path_kl(Z, [2, 2, 2])


@pytest.mark.parametrize("groups", [[6], [3, 3], [2, 2, 2], [1, 2, 3], [4, 1, 1], [1] * 6])
def test_the_measured_cost_of_a_perfect_denoiser_is_the_predicted_one(groups):
    chain = oracle_b()
    x = chain.sample(20_000, 6, noise=NOISE.at("rows"))
    row_id = torch.arange(len(x))
    nats = group_nll(chain, x, groups=groups, row_id=row_id, noise=NOISE.at("orders"))
    single = group_nll(chain, x, groups=[1] * 6, row_id=row_id, noise=NOISE.at("orders"))
    torch.testing.assert_close(single, -chain.log_prob(x), atol=1e-9, rtol=0)
    extra = nats - single
    assert abs(float(extra.mean()) - path_kl(Z, groups)) < 4 * float(extra.std()) / len(x) ** 0.5 + 1e-9


def test_a_planned_sampler_has_the_group_law():
    table = RandomTable(2, NOISE.at("table"), scale=1.5)
    for groups in ([1, 3], [2, 1, 1], [4]):
        check_exact(
            Unmask(Planned(tuple(groups))),
            table,
            group_law(table, 4, sizes=groups),
            length=4,
            generate=generate,
            noise=NOISE,
            rows=50_000,
        )
    assert Unmask(Planned((1, 1, 1))).exact
    assert not Unmask(Planned((1, 2))).exact


def test_a_prompt_starts_further_on_in_the_plan():
    table = RandomTable(2, NOISE.at("table"))
    canvas = blank(table.vocab, 1, 10)
    x = canvas.x.clone()
    x[0, :3] = 1
    prompted = type(canvas).of(x, vocab=table.vocab)
    sizes = [int(s.wrote.sum()) for s in steps(Unmask(Planned((1, 1, 2, 6))), table, prompted, noise=NOISE)]
    assert sizes == [1, 6]  # 3 visible: up to 4, then up to 10


def test_usual_plans():
    assert equal_groups(10, 4) == [3, 3, 2, 2]
    assert equal_groups(3, 9) == [1, 1, 1]
    for length, num_passes in ((16, 4), (128, 16), (5, 5), (7, 1)):
        groups = cosine_groups(length, num_passes)
        assert sum(groups) == length
        assert len(groups) == min(length, num_passes)
        assert min(groups) >= 1
    assert cosine_groups(128, 4) == [10, 28, 42, 48]


def test_plans_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"plan\.nfe=0: must be >= 1"):
        best_groups(Z, 0)
    with pytest.raises(ValueError, match="add up to 5, must be 6"):
        path_kl(Z, [2, 3])
    with pytest.raises(ValueError, match="must be sizes >= 1"):
        Planned((1, 0))
    with pytest.raises(ValueError, match="add up to 5, must be 6"):
        group_nll(oracle_b(), torch.zeros(1, 6, dtype=torch.long), groups=[5], row_id=torch.arange(1), noise=NOISE)


def test_a_noisy_curve_is_made_to_fall():
    z = torch.tensor([3.0, 1.0, 2.0, 2.0, 0.5, 0.7], dtype=torch.float64)
    assert non_increasing(z).tolist() == pytest.approx([3, 5 / 3, 5 / 3, 5 / 3, 0.6, 0.6])
    for row in range(20):
        z = NOISE.at("noisy").uniform(row, 0, torch.arange(9))
        fit = non_increasing(z)
        assert bool((fit.diff() <= 1e-12).all())
        assert float(fit.sum()) == pytest.approx(float(z.sum()))
        best = float(((fit - z) ** 2).sum())
        others = NOISE.at("other").uniform(row, torch.arange(200)[:, None], torch.arange(9))
        mixed = 0.9 * fit + 0.1 * others.sort(descending=True).values
        assert bool((((mixed - z) ** 2).sum(-1) >= best - 1e-12).all()), "a falling curve is nearer"
    falling = torch.linspace(2, 1, 5, dtype=torch.float64)
    assert torch.equal(non_increasing(falling), falling)


@pytest.fixture(scope="module")
def planned(tiny_runs):
    return plan(tiny_runs.mdm, nfe=4, rows=8)


def test_the_study_plans_on_one_half_and_measures_on_the_other(planned, tiny_runs):
    names = [c.name for c in planned.costs]
    assert names == ["best", "equal", "cosine"]
    assert all(sum(c.groups) == len(planned.z) and len(c.groups) == 4 for c in planned.costs)
    assert planned.costs[0].predicted == min(c.predicted for c in planned.costs)
    assert plan(tiny_runs.mdm, nfe=4, rows=8) == planned


def test_the_command_prints_the_plan(planned, tiny_runs, capsys):
    assert main(["plan", str(tiny_runs.mdm), "--nfe", "4", "--rows", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["costs"][0]["groups"] == planned.costs[0].groups
    assert main(["plan", str(tiny_runs.arm), "--nfe", "4"]) == 2
    assert "plans are made for masked diffusion models" in capsys.readouterr().err
    assert main(["plan", str(tiny_runs.mdm), "--nfe", "0"]) == 2
    assert "must be >= 1" in capsys.readouterr().err
