from __future__ import annotations

from dataclasses import replace

import pytest

from polygraphy_layerprec.records import (
    Criterion,
    Judgement,
    MeasuredSet,
    Outcome,
    Selection,
    SelectionCost,
)
from polygraphy_layerprec.report.choice import describe_cost, format_selection, rows_of_choices
from polygraphy_layerprec.report.columns import display_width
from tests.decisions import FINITE, L2, make_decision, make_outcome
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

    assert head.startswith("Chosen: 1 of 9 layers stay in FP32 | 12.5% of the operations, about 4 ")
    assert head.endswith("RMS relative L2 error: forecast 0.0012")
    assert line == r"  a\nb (Pow) | overflow: |x| up to 8.1e5"


def test_what_was_measured_stands_alone_with_its_metric():
    text = " ".join(format_selection(selection_of(measured_error=0.25), 9))

    assert "relative L2 error 0.25 (at most 0.005)" in text
    assert "0.0012" not in text


def test_a_refuted_forecast_is_no_answer():
    unmeasured = format_selection(selection_of(), 9, refuted=True, width=200)

    assert unmeasured[0].endswith("unknown: the forecast 0.0012 is refuted by what was measured")


def test_a_long_choice_is_cut_and_lines_fit():
    layers = [make_layer(rank, f"/layer/{rank}" * 9) for rank in range(1, 14)]

    lines = format_selection(selection_of(*layers), 20, width=76)

    assert lines[-1] == "  and 3 more"
    assert max(map(display_width, lines)) <= 76


def test_the_choice_is_compared_with_the_first_of_the_ranking():
    plain = SelectionCost(layer_count=7, flops_fraction=0.5, cast_count=9)

    last = format_selection(selection_of(plain_cost=plain), 9, width=200)[-1]

    assert last.endswith("same: 7 layers | 50.0% of the operations, about 9 tensors are cast")


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 pairs are"), (1, "1 pair is"), (26, "26 pairs are")]
)
def test_a_quantised_model_has_pairs_removed_and_no_casts(count, words):
    cost = SelectionCost(2, 0.25, cast_count=0, node_count=5, pair_count=count)
    sets = (MeasuredSet((), cost, make_outcome(1e-3)),) * 2
    decision = replace(make_decision(), sets=sets, chosen=1)

    titles, first, _ = rows_of_choices(decision)

    assert describe_cost(cost) == f"25.0% of the operations, {words} removed"
    assert (titles[3], first[3]) == ("Pairs removed", str(count))


UNEQUAL = Criterion("share of unequal integers", 0.01)


def both(error, share, lost=0):
    """What leaves an error of floats, a share of integers, and elements that are lost."""
    return Outcome(
        share,
        (
            Judgement(FINITE, float(lost), float("inf") if lost else 0.0),
            Judgement(L2, error, error / 5e-3, "y"),
            Judgement(UNEQUAL, share, share / 0.01, "ids"),
        ),
    )


def rows(*outcomes):
    """The titles and the metrics of the rows, of a choice of the last of the sets."""
    sets = tuple(MeasuredSet((), SelectionCost(0, 0.0, 0), outcome) for outcome in outcomes)
    decision = replace(make_decision(), lowered=outcomes[0], sets=sets, chosen=len(sets))
    return [row[4:] for row in rows_of_choices(decision)]


def test_the_column_of_the_choices_is_the_criterion_that_decides():
    assert rows(both(1e-4, 0.08), both(1e-5, 0.005)) == [
        ("Share of unequal integers", "Criterion"),
        ("0.08", "not met"),
        ("0.005", "met"),
    ]


def test_two_criteria_that_decide_have_a_column_each():
    assert rows(both(0.1, 0.02, lost=3), both(0.1, 0.02), both(1e-4, 0.009)) == [
        ("Relative L2 error", "Share of unequal integers", "Criterion"),
        ("0.1", "0.02", "not met"),
        ("0.1", "0.02", "not met"),
        ("0.0001", "0.009", "met"),
    ]
