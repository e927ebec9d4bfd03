"""Which of the measured sets are worth choosing from."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.records import Criterion, Judgement, Outcome
from polygraphy_layerprec.selection import SetForecast
from polygraphy_layerprec.selection.measuring import Recorder
from polygraphy_layerprec.selection.prices import prices_for
from tests.decisions import FINITE, FakeMeasure
from tests.layer_graphs import layer_of

COUNT = 12


@pytest.fixture
def forecast():
    return SetForecast([layer_of(f"l{index}", 1.0) for index in range(COUNT)])


def first(size):
    return np.arange(COUNT) < size


def measured(error_of, sizes):
    recorder = Recorder(FakeMeasure(error_of, 0.5))
    for size in sizes:
        recorder.outcome(first(size))
    return recorder


def choose(recorder, forecast, size):
    sets, chosen = recorder.choices(forecast, prices_for("count", forecast), first(size))
    return [one.cost.layer_count for one in sets], chosen


def test_sets_that_cost_more_and_are_no_better_are_left_out(forecast):
    recorder = measured(lambda kept: {0: 1.0, 1: 0.9, 2: 0.95, 3: 0.2}[int(kept.sum())], range(4))

    assert choose(recorder, forecast, 3) == ([0, 1, 3], 3)


def test_the_chosen_set_is_listed_whatever_beats_it(forecast):
    recorder = measured(lambda kept: {0: 1.0, 1: 0.1, 2: 0.4, 3: 0.05}[int(kept.sum())], range(4))

    assert choose(recorder, forecast, 2) == ([0, 1, 2, 3], 3)


@pytest.mark.parametrize("size", [0, 1, 5, 11, 12])
def test_at_most_seven_are_listed_with_both_ends_and_the_chosen_among_its_neighbours(
    forecast, size
):
    recorder = measured(lambda kept: 1.0 - kept.mean(), range(COUNT + 1))

    listed, chosen = choose(recorder, forecast, size)

    assert len(listed) == 7
    assert listed == sorted(listed)
    assert (listed[0], listed[-1]) == (0, COUNT)
    assert listed[chosen - 1] == size
    assert {near for near in (size - 1, size + 1) if 0 <= near <= COUNT} <= set(listed)


def test_what_is_broken_is_listed_once_where_nothing_costs_less(forecast):
    recorder = measured(lambda kept: np.inf if kept.sum() < 3 else 0.1, range(5))

    assert choose(recorder, forecast, 3) == ([0, 3], 2)


def test_the_cheapest_that_passes_is_found_or_the_nearest(forecast):
    prices = prices_for("count", forecast)

    def cheapest(recorder):
        return recorder.cheapest(prices, forecast).sum()

    assert cheapest(measured(lambda kept: 1.0 - kept.mean(), range(COUNT + 1))) == 6
    assert cheapest(measured(lambda kept: 2.0 - kept.mean(), range(4))) == 3
    assert cheapest(measured(lambda _: np.inf, range(4))) == 0


def test_where_nothing_can_pass_the_nearest_is_told_by_the_metric(forecast):
    criterion = Criterion("cosine similarity", 1.5, higher_is_better=True)

    class Cosine(FakeMeasure):
        def outcome(self, kept):
            cosine = Judgement(criterion, 0.9 + 0.01 * int(kept.sum()), np.inf)
            lost = float(kept.sum() > 2)
            return Outcome(0.1, (Judgement(FINITE, lost, np.inf if lost else 0.0), cosine))

    recorder = Recorder(Cosine(lambda _: 0.0))
    for count in range(5):
        recorder.outcome(first(count))

    assert recorder.cheapest(prices_for("count", forecast), forecast).sum() == 2
