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
from tests.decisions import FakeMeasure, make_outcome
from tests.layer_graphs import chain_of, layer_graphs, layer_of
from tests.rankings import make_layer, make_ranking


def ranking():
    """Two layers overflow, then five with shrinking impacts; nobody reads another."""
    overflowing = [
        layer_of(f"net.{index}/Pow", 0.0, overflow=True, kind="overflow") for index in range(2)
    ]
    others = [layer_of(f"net.{index}/Add", 2.0**-index) for index in range(5)]
    return make_ranking(*overflowing, *others)


def names(selection):
    return [layer.name for layer in selection.layers]


def select(of=None, measure=None, held_out=None, **request):
    return select_layers(
        of or ranking(), SelectionRequest(**request), measure=measure, held_out=held_out
    )


def measured(ranking, tolerance=0.3):
    """Returns what finds three times the error that is forecast."""
    forecast = SetForecast(ranking.layers)
    return FakeMeasure(lambda kept: 3.0 * forecast.error(kept), tolerance)


def always(error):
    return lambda _: error


LOST = OutputError(measured=np.inf, forecast=0.1, outputs=())

OVERFLOWS = ["net.0/Pow", "net.1/Pow"]


def test_by_default_the_forecast_meets_the_default_tolerance():
    selection = select(make_ranking(layer_of("a", 0.0, overflow=True), layer_of("b", 6e-3)))

    assert names(selection) == ["a", "b"]
    assert selection.tolerance == 5e-3
    assert names(select(make_ranking(layer_of("b", 4e-3)))) == []
    assert names(select(make_ranking(layer_of("b", 6e-3), precision="bf16"))) == []
    assert (selection.measured_error, selection.measurements) == (None, 0)
    assert selection.decision is None


def test_what_passes_as_it_is_keeps_nothing_whatever_overflows():
    selection = select(measure=FakeMeasure(lambda kept: 1e-3 * (7 - kept.sum()) / 7))

    assert names(selection) == []
    assert selection.decision.verdict == "fine"
    assert selection.decision.sentence == (
        "FP16 is fine, no layer needs to stay in FP32: relative L2 error 0.001 (at most 0.005)."
    )
    assert selection.reached


def test_what_a_half_and_a_tenth_of_the_error_cost_is_measured_too():
    layers = [layer_of(f"l{index}", 1e-3 * 2.0**-index) for index in range(8)]
    ranking = make_ranking(*layers)
    forecast = SetForecast(layers)

    selection = select(ranking, measure=FakeMeasure(forecast.error))

    errors = [one.outcome.error for one in selection.decision.sets]
    assert errors[0] == forecast.error(np.zeros(8, bool))
    assert errors[1] <= errors[0] / 2
    assert errors[2] <= errors[0] / 10
    assert selection.decision.chosen == 1


def test_a_forecast_that_promised_too_much_is_corrected_by_what_is_measured():
    layers = [layer_of(f"l{index}", 1e-3 * 2.0**-index) for index in range(8)]
    forecast = SetForecast(layers)

    selection = select(
        make_ranking(*layers),
        measure=FakeMeasure(lambda kept: forecast.error(kept) * (1.0 + 0.5 * kept.any())),
    )

    errors = [one.outcome.error for one in selection.decision.sets]
    assert any(errors[0] / 4 < error <= errors[0] / 2 for error in errors)


def test_without_any_impact_only_what_overflows_is_kept():
    layers = [layer_of("a", 0.0, overflow=True), layer_of("b", 0.0)]

    assert names(select(make_ranking(*layers))) == ["a"]


def test_what_breaks_the_outputs_is_named_and_nothing_beyond_is_kept():
    def outcome(kept):
        return make_outcome(1e-3 if kept[1] else 1.0, lost=0 if kept[0] else 8)

    measure = FakeMeasure(always(0.0))
    measure.outcome = outcome
    layers = [layer_of("a", 0.0, overflow=True), layer_of("b", 1e-2), layer_of("c", 1e-3)]

    selection = select(make_ranking(*layers), measure=measure)

    assert names(selection) == ["a", "b"]
    assert selection.decision.verdict == "broken"
    assert selection.decision.sentence == (
        "FP16 is broken by a: 8 output elements become NaN or infinite; with 2 of 3 layers in FP32 "
        "relative L2 error 0.001 (at most 0.005)."
    )


def test_a_tolerance_is_met_by_the_forecast():
    selection = select(tolerance=0.3)

    assert names(selection) == [*OVERFLOWS, "net.0/Add", "net.1/Add"]
    assert selection.forecast_error == pytest.approx(np.sqrt(2.0**-4 + 2.0**-6 + 2.0**-8))
    assert (selection.tolerance, selection.reached) == (0.3, True)
    assert selection.measured_error is None
    assert selection.plain_cost == selection.cost


def test_a_criterion_is_met_by_what_is_measured():
    selection = select(measure=measured(ranking()))

    assert names(selection) == [f"net.{index}/Add" for index in range(4)]
    assert selection.measured_error == pytest.approx(3 * 2.0**-4)
    assert selection.forecast_error == pytest.approx(2.0**-4)
    assert selection.reached
    assert selection.tolerance is None
    assert selection.measurements > 1
    assert selection.decision.sentence == (
        "FP16 loses accuracy: relative L2 error 3.46 (at most 0.3); "
        "4 of 7 layers in FP32 bring it to 0.188."
    )


def test_the_cheapest_of_all_that_were_measured_is_taken():
    # Only a set that nobody would choose passes beside everything: the layers that overflow.
    def error_of(kept):
        return 0.0 if kept.all() or (kept[:2].all() and kept.sum() == 2) else 1.0

    selection = select(measure=FakeMeasure(error_of))

    assert names(selection) == OVERFLOWS


def test_what_less_error_costs_holds_no_layer_that_does_not_help():
    # By the forecast the first layer makes the error; by the criterion, the last two.
    layers = [
        make_layer(1, "costly", impact=1.0, flops=1e9),
        make_layer(2, "shift", impact=1e-3, flops=1.0),
        make_layer(3, "unshift", impact=1e-3, flops=1.0),
    ]
    measure = FakeMeasure(lambda kept: 2e-3 if not kept[1:].all() else 1e-5)

    selection = select_layers(make_ranking(*layers), SelectionRequest(), measure=measure)

    assert selection.decision.verdict == "fine"
    assert ("shift", "unshift") in [one.layers for one in selection.decision.sets]
    assert not any("costly" in one.layers for one in selection.decision.sets)


def test_no_set_is_measured_twice():
    measure = measured(ranking())

    selection = select(measure=measure)

    assert len(measure.asked) == len(set(measure.asked)) == selection.measurements


def test_an_unreachable_criterion_gives_the_best_and_says_so():
    selection = select(measure=FakeMeasure(lambda kept: 2.0 - kept.mean(), 0.5))

    assert not selection.reached
    assert selection.measured_error == 1.0
    assert len(selection.layers) == 7
    assert selection.plain_cost is None
    assert selection.decision.sentence == (
        "No set of layers meets 'relative L2 error at most 0.5': with every layer in FP16 relative "
        "L2 error 2 (at most 0.5); the best that was found, an FP32 build, leaves relative L2 "
        "error 1 (at most 0.5)."
    )


def test_all_layers_are_called_an_fp32_build():
    selection = select(measure=FakeMeasure(lambda kept: 1.0 - kept.all()))

    assert selection.decision.verdict == "fp32"
    assert selection.decision.sentence.startswith(
        "An FP32 build, 7 of 7 layers in FP32: with every"
    )


def test_held_out_samples_are_told_of():
    held_out = FakeMeasure(always(2e-3))

    selection = select(measure=FakeMeasure(always(1e-3)), held_out=held_out)

    assert selection.decision.held_out.chosen.error == 2e-3
    assert selection.decision.sentence.endswith(
        "; on 3 held-out samples relative L2 error 0.002 (at most 0.005)."
    )
    assert selection.holds_elsewhere
    refuted = select(
        measure=FakeMeasure(lambda kept: 1e-3 if kept.any() else 1.0),
        held_out=FakeMeasure(always(1.0)),
    )
    assert not refuted.holds_elsewhere
    assert refuted.decision.sentence.endswith(
        "on 3 held-out samples relative L2 error 1 (at most 0.005)."
    )
    unreachable = select(measure=FakeMeasure(always(1.0)), held_out=FakeMeasure(always(1.0)))
    assert unreachable.holds_elsewhere  # nothing was promised


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
    assert selection.measurements == 2  # the other is without any
    assert selection.reached
    assert selection.decision.sentence.endswith(
        "3 of 7 layers in FP32 bring it to 1.73, which is not enough."
    )


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


def lost_without(*needed, tolerance=5e-3):
    """An oracle by which an output is lost unless all of these are kept."""
    positions = [index for index, layer in enumerate(ranking().layers) if layer.name in needed]
    forecast = SetForecast(ranking().layers)
    return FakeMeasure(
        lambda kept: forecast.error(kept) if kept[positions].all() else np.inf, tolerance
    )


@pytest.mark.parametrize("tolerance", [5e-3, 2.0, 0.6, 1e9])
def test_no_tolerance_nor_the_default_accepts_an_output_that_is_lost(tolerance):
    guards = ("net.3/Add", "net.4/Add")

    selection = select(measure=lost_without(*guards, tolerance=tolerance))

    assert set(guards) <= set(names(selection))
    assert selection.reached
    assert np.isfinite(selection.measured_error)


def test_nothing_is_kept_beside_guards_that_rounding_does_not_ask_for():
    selection = select(measure=lost_without("net.3/Add", "net.4/Add", tolerance=1e9))

    assert set(names(selection)) <= {*OVERFLOWS, "net.3/Add", "net.4/Add"}


def test_what_no_set_cures_meets_no_tolerance():
    selection = select(measure=FakeMeasure(lambda _: np.inf, 1e9))
    assert (selection.reached, selection.measured_error) == (False, np.inf)

    forbidden = select(measure=lost_without("net.3/Add", tolerance=1e9), allow=("0",))
    assert (forbidden.reached, forbidden.measured_error) == (False, np.inf)


def test_layers_that_keep_outputs_finite_are_kept_as_those_that_overflow_are():
    guard = layer_of("guard", 1e-6, keeps_finite=True, kind="guard")
    of = make_ranking(guard, layer_of("a", 0.1), output_error=LOST)

    assert names(select(of, tolerance=1.0)) == ["guard"]
    assert select(of, tolerance=1.0).reached
    assert names(select(of, top_k=1)) == ["guard"]
    assert names(select(of, top_k=0)) == []
    assert not select(of, tolerance=1.0, allow=("^a",)).reached


def test_where_nothing_says_what_loses_an_output_the_forecast_meets_no_tolerance():
    of = make_ranking(layer_of("a", 0.1), output_error=LOST)

    assert not select(of, tolerance=1.0).reached
    assert select(of, measure=FakeMeasure(lambda _: 0.5, 1.0)).reached


def test_small_sets_are_freed_of_every_layer_that_is_not_needed():
    # The last two are all that is needed, and of no use by the forecast.
    layers = [layer_of(f"l{index}", 2.0**-index) for index in range(6)]

    selection = select(
        make_ranking(*layers), measure=FakeMeasure(lambda kept: 0.0 if kept[4:].all() else 1.0)
    )

    assert names(selection) == ["l4", "l5"]


def test_large_sets_are_not_taken_apart_layer_by_layer():
    layers = [layer_of(f"l{index}", 1.0) for index in range(40)]
    measure = FakeMeasure(lambda kept: 0.0 if kept.sum() >= 30 else 1.0)

    selection = select(make_ranking(*layers), measure=measure)

    assert len(selection.layers) == 30
    assert selection.measurements < 40
