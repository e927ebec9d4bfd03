"""Sets that are taken from a ranking's list, without measuring again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polygraphy_layerprec.selection import SelectionRequest, SetForecast, select_layers
from tests.decisions import FakeMeasure, make_decision
from tests.layer_graphs import layer_of
from tests.rankings import make_ranking


def decided(decision=None):
    ranking = make_ranking(layer_of("a", 1e-2), layer_of("b", 1e-3))
    return replace(ranking, decision=decision or make_decision())


def select(ranking, **request):
    return select_layers(ranking, SelectionRequest(**request))


def test_the_set_that_was_chosen_is_taken_where_nothing_else_is_asked_for():
    ranking = decided()

    selection = select(ranking)

    assert [layer.name for layer in selection.layers] == ["a"]
    assert selection.decision == ranking.decision
    assert selection.cost == ranking.decision.sets[1].cost
    assert (selection.measured_error, selection.measurements) == (1e-3, 0)
    assert selection.reached


@pytest.mark.parametrize("request_", [{"tolerance": 1.0}, {"top_k": 0}, {"allow": ("b",)}])
def test_anything_else_that_is_asked_for_is_decided_anew(request_):
    assert select(decided(), **request_).decision is None


def test_a_set_is_taken_by_its_number():
    selection = select(decided(), choose=1)

    assert selection.layers == ()
    assert selection.decision.chosen == 1
    assert selection.decision.sentence == (
        "FP16 loses accuracy: relative L2 error 0.1 (at most 0.005)."
    )
    assert selection.reached  # whoever names it wants it
    assert not select(decided(make_decision(0.01))).reached


def test_what_was_found_is_what_is_taken():
    layers = [layer_of(f"l{index}", 1e-2 * 2.0**-index) for index in range(8)]
    ranking = make_ranking(*layers)
    forecast = SetForecast(layers)
    decision = select_layers(
        ranking, SelectionRequest(), measure=FakeMeasure(forecast.error)
    ).decision

    for number, one in enumerate(decision.sets, start=1):
        taken = select(replace(ranking, decision=decision), choose=number)

        kept = np.array([layer in taken.layers for layer in layers])
        assert tuple(layer.name for layer in taken.layers) == one.layers
        assert taken.measured_error == forecast.error(kept)


@pytest.mark.parametrize(
    ("ranking", "request_", "message"),
    [
        (make_ranking(), {"choose": 1}, "this ranking has none.\nMake it anew"),
        (decided(), {"choose": 3}, r"`--choose` must lie in \[1, 2\], got 3"),
        (decided(), {"choose": 0}, r"must lie in \[1, 2\], got 0"),
        (decided(), {"choose": 1, "top_k": 1}, "Only one of --top-k, --choose"),
        (decided(make_decision(layers=["other"])), {"choose": 2}, "names 'other', which the"),
    ],
)
def test_what_is_not_in_the_list_is_refused(ranking, request_, message):
    with pytest.raises(ValueError, match=message):
        select(ranking, **request_)
