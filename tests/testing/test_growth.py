"""The enumerations of growing rows: against closed forms, against the process in time, and of the best model."""

import itertools
import math

import pytest
import torch

from anyorder.testing.growth import GrowthOracle, growth_bound, growth_law, visits
from anyorder.testing.strings import Strings

TWO = Strings.of({"a": 0.5, "ab": 0.5})
FIVE = Strings.of({"a": 0.25, "ab": 0.25, "abc": 0.25, "ba": 0.125, "aabb": 0.125})


def test_at_rate_2_all_orders_of_the_events_are_equally_likely() -> None:
    """(2L)!/2^L orders: of the events that have happened, times of those to come, over all."""
    size = 4
    for absent, masks in itertools.product(range(size + 1), repeat=2):
        clear = size - absent - masks
        if clear < 0:
            continue
        before = math.factorial(masks + 2 * clear) / 2**clear
        after = math.factorial(2 * absent + masks) / 2**absent
        every = math.factorial(2 * size) / 2**size
        assert visits(2.0, size, absent, masks) == pytest.approx(before * after / every)


@pytest.mark.parametrize("rate", [1.0, 2.0, 3.0])
def test_visits_are_those_of_the_process_in_time(rate: float) -> None:
    """On the clock s = -log(1 - t) a state lasts visits / (rate a + m) on average: the integral of its chance.

    At rate 1 these are the published linear schedules: insertion at t1 uniform on (0, 1), unmasking uniform on (t1, 1).
    """
    s = torch.linspace(0, 60, 600_001, dtype=torch.float64)
    is_absent = (-rate * s).exp()
    is_mask = s * (-s).exp() if rate == 1.0 else rate * ((-s).exp() - is_absent) / (rate - 1)
    is_clear = 1 - is_absent - is_mask
    for absent, masks, clear in [(1, 0, 0), (2, 1, 0), (1, 1, 1), (0, 1, 2), (1, 0, 3)]:
        lasts = torch.trapezoid(is_absent**absent * is_mask**masks * is_clear**clear, s)
        mean = visits(rate, absent + masks + clear, absent, masks) / (rate * absent + masks)
        assert float(lasts) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("rate", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("law", [TWO, FIVE], ids=["two", "five"])
def test_the_best_model_writes_the_law(law: Strings, rate: float) -> None:
    written = growth_law(GrowthOracle(law, rate), longest=6)
    assert {t: p for t, p in written.items() if p > 1e-12} == pytest.approx(dict(law.chance))


def test_masks_may_be_replaced_in_any_order_at_rate_2_only() -> None:
    far = {}
    for rate in (1.0, 2.0):
        written = growth_law(GrowthOracle(FIVE, rate), longest=6, sure=True)
        far[rate] = sum(abs(written.get(text, 0.0) - p) for text, p in FIVE.chance) / 2
    assert far[2.0] < 1e-12
    assert far[1.0] == pytest.approx(0.0020, abs=1e-4)


@pytest.mark.parametrize("rate", [1.0, 2.0, 3.0])
def test_its_bound_is_the_law_at_rate_2_only(rate: float) -> None:
    gaps = [growth_bound(GrowthOracle(FIVE, rate), text, rate=rate) + math.log(p) for text, p in FIVE.chance]
    if rate == 2.0:
        assert gaps == pytest.approx([0.0] * 5, abs=1e-9)
    else:
        assert min(gaps) > -1e-9
        assert max(gaps) == pytest.approx({1.0: 0.0079, 3.0: 0.0025}[rate], abs=1e-4)


def test_a_single_text_costs_nothing() -> None:
    law = Strings.of({"abc": 1.0})
    assert growth_bound(GrowthOracle(law), (0, 1, 2), rate=2.0) == pytest.approx(0.0, abs=1e-9)
