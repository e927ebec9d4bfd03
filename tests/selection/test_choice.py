"""What a request selects, with and without measurements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.records import Constraint, OutputError
from polygraphy_layerprec.selection import (
    SelectionRequest,
    SetForecast,
    constraints_of,
    select_layers,
)
from tests.layer_graphs import chain_of, layer_graphs, layer_of
from tests.rankings import make_ranking


def ranking():
    """Two layers overflow, then five with shrinking impacts; nobody reads another."""
    overflowing = [
        layer_of(f"net.{index}/Pow", 0.0, overflow=True, kind="overflow") for index in range(2)
    ]
    others = [layer_of(f"net.{index}/Add", 2.0**-index) for index in range(5)]
    return make_ranking(*overflowing, *others)


def names(selection):
    return [layer.name for layer in selection.layers]


def select(of=None, measure=None, **request):
    return select_layers(of or ranking(), SelectionRequest(**request), measure=measure)


def powers_of(ranking):
    return np.array([layer.impact**2 for layer in ranking.layers])


def measured(ranking):
    """Returns an oracle that finds three times the error that is foretold."""
    forecast = SetForecast(ranking.layers)
    return lambda kept: 3.0 * forecast.error(kept)


OVERFLOWS = ["net.0/Pow", "net.1/Pow"]


def test_by_default_what_overflows_is_kept_and_the_rest_is_halved():
    selection = select()

    # 1 + 1/4 + 1/16 + ... is halved twice by what is left without the first: 0.328 of 1.332.
    assert names(selection) == [*OVERFLOWS, "net.0/Add"]
    assert selection.tolerance == pytest.approx(np.sqrt(powers_of(ranking()).sum()) / 2)
    assert selection.forecast_error <= selection.tolerance
    assert selection.reached
    assert selection.measured_error is None
    assert selection.measurements == 0
    assert selection.cost.layer_count == 3


def test_by_default_the_set_is_measured_and_what_is_required_where_one_can_measure():
    selection = select(measure=lambda kept: float(kept.sum()))

    assert names(selection) == names(select())
    assert selection.measured_error == 3.0
    assert selection.measurements == 2


def lost_without(*needed):
    """An oracle by which an output is lost unless all of these are kept."""
    positions = [index for index, layer in enumerate(ranking().layers) if layer.name in needed]
    forecast = SetForecast(ranking().layers)
    return lambda kept: forecast.error(kept) if kept[positions].all() else np.inf


@pytest.mark.parametrize("tolerance", [None, 2.0, 0.6, 1e9])
def test_no_tolerance_nor_the_default_accepts_an_output_that_is_lost(tolerance):
    guards = ("net.3/Add", "net.4/Add")

    selection = select(measure=lost_without(*guards), tolerance=tolerance)

    assert {*OVERFLOWS, *guards} <= set(names(selection))
    assert selection.reached
    assert np.isfinite(selection.measured_error)
    assert selection.cost.layer_count <= len(guards) + 3  # and no more than rounding asks for


@pytest.mark.parametrize("tolerance", [None, 1e9])
def test_what_no_set_mends_meets_no_tolerance(tolerance):
    selection = select(measure=lambda _: np.inf, tolerance=tolerance)
    assert (selection.reached, selection.measured_error) == (False, np.inf)

    forbidden = select(measure=lost_without("net.3/Add"), tolerance=tolerance, allow=["0"])
    assert (forbidden.reached, forbidden.measured_error) == (False, np.inf)


def lost_ranking(*layers):
    error = OutputError(measured=np.inf, forecast=0.1, outputs=())
    return make_ranking(*layers, output_error=error)


def test_layers_that_keep_outputs_finite_are_kept_as_those_that_overflow_are():
    guard = layer_of("guard", 1e-6, keeps_finite=True, kind="guard")
    of = lost_ranking(guard, layer_of("a", 0.1))

    assert names(select(of, tolerance=1.0)) == ["guard"]
    assert select(of, tolerance=1.0).reached
    assert names(select(of)) == ["guard", "a"]
    assert names(select(of, top_k=1)) == ["guard"]
    assert names(select(of, top_k=0)) == []
    assert not select(of, tolerance=1.0, allow=["^a"]).reached


def test_where_nothing_says_what_loses_an_output_the_forecast_meets_no_tolerance():
    of = lost_ranking(layer_of("a", 0.1))

    assert not select(of, tolerance=1.0).reached
    assert select(of, tolerance=1.0, measure=lambda _: 0.5).reached


def test_without_any_impact_only_what_overflows_is_kept():
    layers = [layer_of("a", 0.0, overflow=True), layer_of("b", 0.0)]

    assert names(select(make_ranking(*layers))) == ["a"]


def test_a_tolerance_is_met_by_the_forecast():
    selection = select(tolerance=0.3)

    assert names(selection) == [*OVERFLOWS, "net.0/Add", "net.1/Add"]
    assert selection.forecast_error == pytest.approx(np.sqrt(2.0**-4 + 2.0**-6 + 2.0**-8))
    assert (selection.tolerance, selection.reached) == (0.3, True)
    assert selection.measured_error is None
    assert selection.plain_cost == selection.cost


def test_a_tolerance_is_met_by_what_is_measured():
    selection = select(measure=measured(ranking()), tolerance=0.3)

    assert names(selection) == [*OVERFLOWS, *(f"net.{index}/Add" for index in range(4))]
    assert selection.measured_error == pytest.approx(3 * 2.0**-4)
    assert selection.forecast_error == pytest.approx(2.0**-4)
    assert selection.reached
    assert selection.measurements > 1


def test_an_unreachable_tolerance_gives_the_best_and_says_so():
    selection = select(measure=lambda kept: 2.0 - kept.mean(), tolerance=0.5)

    assert not selection.reached
    assert selection.measured_error == 1.0
    assert len(selection.layers) == 7
    assert selection.plain_cost is None


def test_an_unreachable_tolerance_without_measurements_says_so_too():
    selection = select(tolerance=0.0, allow=["Pow"])

    assert not selection.reached
    assert names(selection) == OVERFLOWS


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        ({"top_k": 0}, 0),
        ({"top_k": 1}, 1),
        ({"top_k": 4}, 4),
        ({"top_k": 99}, 7),
        ({"fp32_fraction": 0.0}, 0),
        ({"fp32_fraction": 0.5}, 4),
        ({"fp32_fraction": 1.0}, 7),
    ],
)
def test_a_size_takes_the_first_of_the_ranking(request_, count):
    selection = select(**request_)

    assert names(selection) == [layer.name for layer in ranking().layers[:count]]
    assert (selection.tolerance, selection.reached) == (None, True)
    assert (selection.measured_error, selection.measurements) == (None, 0)


def test_a_set_of_a_given_size_is_measured_once():
    selection = select(measure=measured(ranking()), top_k=3)

    assert selection.measured_error == pytest.approx(3 * selection.forecast_error)
    assert selection.measurements == 1


def test_what_is_named_is_kept_whatever_the_size_and_whatever_is_allowed():
    assert names(select(top_k=2, keep=["4/Add"])) == ["net.0/Pow", "net.4/Add"]
    assert names(select(top_k=0, keep=["4/Add", "3/Add"])) == ["net.3/Add", "net.4/Add"]
    kept = names(select(tolerance=0.6, keep=["4/Add"], allow=["0/"]))
    assert kept == ["net.0/Pow", "net.0/Add", "net.4/Add"]


def test_nothing_is_kept_that_is_not_allowed():
    assert names(select(top_k=3, allow=["Add"])) == ["net.0/Add", "net.1/Add", "net.2/Add"]
    assert names(select(tolerance=0.3, allow=["1", "0/Add"])) == [
        "net.1/Pow",
        "net.0/Add",
        "net.1/Add",
    ]


def test_expressions_match_anywhere_in_a_name_and_any_of_them_is_enough():
    assert names(select(top_k=0, keep=["^net.0", r"\.1/A"])) == [
        "net.0/Pow",
        "net.0/Add",
        "net.1/Add",
    ]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"tolerance": 0.1, "top_k": 3}, "Only one of --tolerance, --top-k can decide"),
        ({"top_k": 1, "fp32_fraction": 0.5}, "Only one of --top-k, --fp32-fraction can"),
        ({"tolerance": -0.1}, "`--tolerance` must be 0 or more, got -0.1"),
        ({"tolerance": float("nan")}, "`--tolerance` must be 0 or more, got nan"),
        ({"top_k": -1}, "`--top-k` must be 0 or more, got -1"),
        ({"fp32_fraction": 1.1}, r"`--fp32-fraction` must lie in \[0, 1\], got 1.1"),
        ({"fp32_fraction": float("nan")}, "got nan"),
        ({"keep": ["("]}, r"'\(' is not a regular expression"),
        ({"allow": ["nobody"]}, "No layer of the ranking matches 'nobody'.\nNote: .*'net.0/Pow'"),
    ],
)
def test_requests_that_make_no_sense_are_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        select(**request_)


def test_a_ranking_without_layers_has_nothing_to_keep():
    empty = make_ranking()
    object.__setattr__(empty, "layers", ())

    assert names(select(empty)) == names(select(empty, tolerance=0.0)) == []
    with pytest.raises(ValueError, match=r"No layer of the ranking matches 'x'.\nCorrect `--keep`"):
        select(empty, keep=["x"])


def test_every_constraint_carries_its_reason():
    layer = layer_of("a", 1.0, node_name="node", inputs=("x", ""), reason="31 % of the error")

    (constraint,) = constraints_of(select(make_ranking(layer), top_k=1))

    assert constraint == Constraint("node", "Add", ("x", ""), ("a",), "31 % of the error")


def test_islands_cost_fewer_casts_than_the_ranking_alone():
    # Every second layer matters; those in between are nearly exact and cost two casts each.
    impacts = [1.0 if index % 2 == 0 else 0.25 for index in range(9)]
    layers = sorted(chain_of(*impacts), key=lambda layer: -layer.impact)

    selection = select(make_ranking(*layers), tolerance=1.5, cost="casts")

    assert selection.forecast_error <= 1.5
    assert selection.cost.cast_count < selection.plain_cost.cast_count


@given(layer_graphs(), st.floats(0.05, 0.95), st.sampled_from(["count", "flops", "casts"]))
def test_the_same_request_selects_the_same(layers, tolerance, cost):
    request = SelectionRequest(tolerance=tolerance, cost=cost)

    first = select_layers(make_ranking(*layers), request)

    assert first == select_layers(make_ranking(*layers), request)
    assert first.reached
    assert first.forecast_error <= tolerance
