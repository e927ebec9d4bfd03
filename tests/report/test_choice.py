from __future__ import annotations

from polygraphy_layerprec.records import Selection, SelectionCost
from polygraphy_layerprec.report.choice import format_selection
from polygraphy_layerprec.report.columns import display_width
from tests.decisions import make_decision
from tests.rankings import make_layer


def selection_of(*layers, measured_error=None, plain_cost=None):
    decision = None if measured_error is None else make_decision(measured_error)
    return Selection(
        layers=layers,
        cost=SelectionCost(layer_count=len(layers), flops_fraction=0.125, cast_count=4),
        forecast_error=0.0012,
        tolerance=None,
        reached=True,
        plain_cost=plain_cost,
        measurements=0,
        decision=decision,
    )


def test_the_choice_is_told_with_its_cost_and_reasons():
    layer = make_layer(name="a\nb", op="Pow", reason="overflow: |x| up to 8.1e5")

    head, line = format_selection(selection_of(layer), 9, width=200)

    assert head.startswith("Chosen: 1 of 9 layers stay in FP32 | 12.5% of the operations, 4 ")
    assert head.endswith("RMS relative L2 error: forecast 0.0012")
    assert line == r"  a\nb (Pow) | overflow: |x| up to 8.1e5"


def test_a_measured_error_comes_first():
    text = " ".join(format_selection(selection_of(measured_error=0.25), 9))

    assert "measured 0.25, forecast 0.0012" in text


def test_a_refuted_forecast_is_no_answer():
    measured = format_selection(selection_of(measured_error=0.25), 9, refuted=True, width=200)
    unmeasured = format_selection(selection_of(), 9, refuted=True, width=200)

    assert measured[0].endswith("error: measured 0.25")
    assert unmeasured[0].endswith("unknown: the forecast 0.0012 is refuted by what was measured")


def test_a_long_choice_is_cut_and_lines_fit():
    layers = [make_layer(rank, f"/layer/{rank}" * 9) for rank in range(1, 14)]

    lines = format_selection(selection_of(*layers), 20, width=76)

    assert lines[-1] == "  and 3 more"
    assert max(map(display_width, lines)) <= 76


def test_the_choice_is_compared_with_the_first_of_the_ranking():
    plain = SelectionCost(layer_count=7, flops_fraction=0.5, cast_count=9)

    last = format_selection(selection_of(plain_cost=plain), 9, width=200)[-1]

    assert last.endswith("same: 7 layers | 50.0% of the operations, 9 tensors are cast")
