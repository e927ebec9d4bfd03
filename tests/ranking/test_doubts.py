from __future__ import annotations

import pytest

from polygraphy_layerprec.ranking.doubts import describe_instability, describe_refutation
from polygraphy_layerprec.ranking.order import forecast_holds, forecast_is_refuted
from polygraphy_layerprec.records import OutputDivergence, OutputError
from tests.rankings import make_layer, make_ranking


def error_of(measured, forecast, *, nonfinite=0, known=True):
    output = OutputDivergence("y", measured if known else None, None, nonfinite, 0.5)
    return OutputError(measured, forecast, (output,))


@pytest.mark.parametrize(
    ("measured", "forecast", "holds"),
    [
        (1.0, 1.0, True),
        (3.0, 1.0, True),
        (1.0, 3.0, True),
        (3.1, 1.0, False),
        (1.0, 3.1, False),
        (1e38, 0.1, False),
        (1e-3, 0.0, False),
        (0.0, 0.0, True),
    ],
)
def test_a_forecast_holds_within_three_times_the_measurement(measured, forecast, holds):
    error = error_of(measured, forecast)

    assert forecast_holds(error) is holds
    assert (describe_refutation(error, [], {}) is None) is holds
    assert forecast_is_refuted(make_ranking(output_error=error)) is not holds


def test_where_nothing_was_measured_nothing_is_refuted():
    assert forecast_holds(error_of(0.0, 1.0, known=False))


def test_an_output_that_changed_its_shape_refutes_the_forecast():
    lost = OutputDivergence("y", None, None, 0, 1.0)

    assert not forecast_holds(OutputError(1.0, 1e-3, (lost,)))


def guard(name, index):
    reason = "guard: 1e-12 is 0 in FP16, so '/Div' gives NaN"
    return make_layer(1, name, graph_index=index, keeps_finite=True, reason=reason)


def test_the_cause_of_lost_outputs_is_named_with_all_that_stays_with_it():
    error = error_of(float("inf"), 1e-3, nonfinite=8)
    layers = [guard("/Div", 2), guard("/guard", 1), make_layer(2, "other")]

    said = describe_refutation(error, layers, {})

    assert "The cause is '/guard': guard: 1e-12 is 0 in FP16" in said
    assert said.endswith(
        "With these 2 layers together in FP32, as measured, every output is finite: '/Div', "
        "'/guard'."
    )
    assert not forecast_is_refuted(make_ranking(*layers, output_error=error))
    one = describe_refutation(error, layers[:1], {})
    assert "With this layer in FP32, as measured" in one
    many = describe_refutation(error, [guard(f"/{i}", i) for i in range(7)], {})
    assert many.endswith("'/4' and others.")


def test_the_forecast_of_a_loss_is_not_compared_with_the_error_of_the_outputs():
    error = OutputError(1.0, 1e-3, error_of(1.0, 1e-3).outputs, forecast_of_loss=True)

    assert forecast_holds(error)


def test_a_flipped_decision_is_named_the_first_of_several():
    said = describe_refutation(error_of(0.7, 1e-4), [], {"/Cast": 1200, "/Gather": 3})

    assert "1,200 decisions flip in '/Cast', the first to do so" in said
    assert "/Gather" not in said
    assert "0.0001" in said
    assert "0.7" in said


def test_one_flipped_decision_is_one():
    said = describe_refutation(error_of(0.7, 1e-4), [], {"/ArgMax": 1})

    assert "a decision flips in '/ArgMax';" in said or "a decision flips in '/ArgMax'." in said


def test_the_first_layer_in_execution_order_that_loses_significance_is_named():
    layers = [
        make_layer(1, "late", graph_index=9, cumulative_error=0.9),
        make_layer(2, "early", graph_index=4, cumulative_error=0.5, kind="cancellation"),
        make_layer(3, "fine", graph_index=1, cumulative_error=0.01),
        make_layer(4, "unknown", graph_index=0, cumulative_error=None),
    ]

    said = describe_refutation(error_of(0.7, 1e-4), layers, {})

    assert "significance is lost, first in 'early', where terms cancel" in said
    assert "off by 0.5 of its size" in said


def test_overflow_is_the_cause_of_all_the_rest():
    layers = [make_layer(1, "b", graph_index=2, overflow=True)]
    layers += [make_layer(2, "a", graph_index=1, overflow=True, cumulative_error=1.0)]

    said = describe_refutation(error_of(0.7, 1e-4), layers, {"/Cast": 1})

    assert "a value overflows, first in 'a'" in said
    assert "significance" not in said
    assert "flip" not in said
    assert not forecast_is_refuted(make_ranking(*layers, output_error=error_of(0.7, 1e-4)))


def test_a_nan_without_overflow_is_told():
    said = describe_refutation(error_of(0.7, 1e-4, nonfinite=3), [], {})

    assert "an output becomes NaN or infinite" in said


def test_where_no_cause_was_seen_it_says_what_remains():
    assert "cancel, or amplify one another" in describe_refutation(error_of(0.1, 1.0), [], {})


@pytest.mark.parametrize("stability", [None, 0.5, 1.0])
def test_samples_that_agree_raise_no_doubt(stability):
    assert describe_instability(stability, 10) is None


def test_the_order_of_few_layers_is_not_judged():
    assert describe_instability(-1.0, 9) is None


def test_samples_that_do_not_agree_do():
    assert "rank correlation 0.31" in describe_instability(0.31, 10)
