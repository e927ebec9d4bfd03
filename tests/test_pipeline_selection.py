"""From a ranking, and maybe its model, to what stays in FP32; and the options of the ranking."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.divergence.judges import max_abs_judge
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.pipeline import (
    measure_curve,
    measure_exact_impacts,
    measure_output_error,
    select_constraints,
)
from polygraphy_layerprec.precision import BF16
from polygraphy_layerprec.selection import SelectionRequest
from tests import models
from tests.models import build_model, node, normal, sample_inputs, scalar, tensor

pytestmark = pytest.mark.onnxrt


@pytest.fixture(scope="module")
def transformer():
    model = models.small_transformer()
    samples = [sample_inputs(model, seed=seed) for seed in range(2)]
    return model, samples, rank_model(model, samples)


def kept_outputs(selection):
    return [name for layer in selection.layers for name in layer.outputs]


def test_with_the_model_the_set_is_measured_to_meet_the_tolerance(transformer):
    model, samples, ranking = transformer
    tolerance = ranking.output_error.measured / 2
    told = []

    selection = select_constraints(
        ranking,
        SelectionRequest(tolerance=tolerance),
        model=model,
        samples=samples,
        progress=lambda *done: told.append(done),
    )

    assert selection.reached
    assert 0 < selection.measured_error <= tolerance
    error = measure_output_error(model, samples, fp32_outputs=kept_outputs(selection))
    assert error == selection.measured_error
    assert 0 < selection.cost.layer_count <= selection.plain_cost.layer_count < len(ranking.layers)
    assert told[:3] == [(1, 2, "set 1, 0 layers"), (2, 2, "set 1, 0 layers"), (1, 2, told[2][2])]
    assert len(told) == 2 * selection.measurements


def test_without_the_model_the_forecast_decides(transformer):
    *_, ranking = transformer
    tolerance = ranking.output_error.forecast / 2

    selection = select_constraints(ranking, SelectionRequest(tolerance=tolerance))

    assert selection.reached
    assert selection.forecast_error <= tolerance
    assert (selection.measured_error, selection.measurements) == (None, 0)


def test_forecast_and_measurement_are_near_each_other(transformer):
    model, samples, ranking = transformer

    points = measure_curve(ranking, model=model, samples=samples)

    assert points[0].measured_error == pytest.approx(ranking.output_error.measured)
    assert points[-1].measured_error == points[-1].forecast_error == 0.0
    # One small model with two short samples: rounding noise alone moves it by tens of percent.
    for point in points[:-2]:
        assert point.forecast_error == pytest.approx(point.measured_error, rel=0.5)
    assert [point.measured_error for point in measure_curve(ranking)] == [None] * len(points)


def test_another_model_is_refused(transformer):
    *_, ranking = transformer
    other = models.small_cnn()
    given = {"model": other, "samples": [sample_inputs(other)]}

    for ask in (
        lambda: select_constraints(ranking, SelectionRequest(), **given),
        lambda: measure_curve(ranking, **given),
    ):
        with pytest.raises(
            ValueError, match=r"about another model.*\n.*makes no tensor.*\n.*rank this"
        ):
            ask()


def test_a_model_without_samples_is_refused(transformer):
    model, _, ranking = transformer

    with pytest.raises(ExecutionError, match="no input sample"):
        select_constraints(ranking, SelectionRequest(tolerance=1.0), model=model)


def test_the_ranking_decides_the_precision():
    model = models.small_cnn()
    samples = [sample_inputs(model)]
    ranking = rank_model(model, samples, precision=BF16)

    selection = select_constraints(ranking, SelectionRequest(top_k=0), model=model, samples=samples)

    assert selection.measured_error == measure_output_error(model, samples, precision=BF16)


def test_the_largest_absolute_error_can_be_the_criterion():
    model = models.small_cnn()
    samples = [sample_inputs(model)]
    ranking = rank_model(model, samples)
    whole = ranking.output_error.outputs[0].max_abs_error
    given = {"model": model, "samples": samples, "judges": [max_abs_judge(whole / 2)]}

    selection = select_constraints(ranking, SelectionRequest(), **given)

    assert selection.reached
    assert 0 < selection.decision.outcome.headline.value <= whole / 2
    assert selection.decision.lowered.headline.value == pytest.approx(whole)
    assert selection.decision.lowered.headline.excess == pytest.approx(2.0)


def test_criteria_that_no_forecast_knows_need_the_model(transformer):
    *_, ranking = transformer

    with pytest.raises(ValueError, match=r"'largest absolute error at most 0\.1' needs the model"):
        select_constraints(ranking, SelectionRequest(), judges=[max_abs_judge(0.1)])


def test_an_infinite_output_meets_no_absolute_criterion():
    # In FP16 it becomes infinite, which cannot be subtracted: nothing is left to be wrong.
    nodes = [node("Mul", ["x", "w"], "y", name="beyond")]
    shapes = [tensor("x", [2])], [tensor("y", [2])]
    model = build_model(nodes, *shapes, {"w": scalar(5e4)})
    samples = [{"x": np.full(2, 2.0, np.float32)}]
    ranking = rank_model(model, samples)

    found = select_constraints(
        ranking, SelectionRequest(), model=model, samples=samples, judges=[max_abs_judge(1e6)]
    )

    assert found.decision.lowered.error == np.inf
    assert [layer.name for layer in found.layers] == ["beyond"]
    assert found.measured_error == 0.0


def eight_of(model, last):
    return [sample_inputs(model, seed=seed) for seed in range(6)] + [last, last]


def test_the_last_quarter_of_eight_samples_is_held_out():
    model = models.small_cnn()
    samples = eight_of(model, sample_inputs(model, seed=7))
    ranking = rank_model(model, samples[:1])

    selection = select_constraints(ranking, SelectionRequest(), model=model, samples=samples)

    decision = selection.decision
    assert (decision.sample_count, decision.held_out.sample_count) == (6, 2)
    assert "; on 2 held-out samples relative L2 error " in decision.sentence
    alone = select_constraints(ranking, SelectionRequest(), model=model, samples=samples[6:])
    assert decision.held_out.lowered == alone.decision.lowered
    few = select_constraints(ranking, SelectionRequest(), model=model, samples=samples[:7])
    assert (few.decision.sample_count, few.decision.held_out) == (7, None)


def test_a_set_that_held_out_samples_refute_is_chosen_anew_on_all():
    nodes = [node("Mul", ["x", "w"], "y", name="beyond")]
    shapes = [tensor("x", [2])], [tensor("y", [2])]
    model = build_model(nodes, *shapes, {"w": scalar(3e4)})
    small, large = ({"x": np.full(2, value, np.float32)} for value in (1.0, 9.0))
    ranking = rank_model(model, [small])

    selection = select_constraints(
        ranking, SelectionRequest(), model=model, samples=[small] * 6 + [large] * 2
    )

    assert [layer.name for layer in selection.layers] == ["beyond"]
    assert (selection.decision.sample_count, selection.decision.held_out) == (8, None)
    assert selection.decision.sentence.endswith(
        "What was chosen on the first 6 samples did not pass on the other 2, so all of them chose."
    )


def test_only_the_outputs_that_count_are_measured():
    nodes = [
        node("Mul", ["x", "w"], "fine", name="fine"),
        node("Add", ["x", "w"], "rough", name="rough"),
    ]
    shapes = [tensor("x", [64])], [tensor("fine", [64]), tensor("rough", [64])]
    model = build_model(nodes, *shapes, {"w": normal(1, 64)})
    samples = [{"x": normal(0, 64)}]
    ranking = rank_model(model, samples)
    request = SelectionRequest(tolerance=1e-7, cost="count")

    selection = select_constraints(ranking, request, model=model, samples=samples, outputs=["fine"])

    assert selection.reached
    assert [layer.name for layer in selection.layers] == ["fine"]


def test_the_same_request_selects_the_same(transformer):
    model, samples, ranking = transformer
    request = SelectionRequest(tolerance=ranking.output_error.measured / 3, cost="casts")

    first = select_constraints(ranking, request, model=model, samples=samples)

    assert first == select_constraints(ranking, request, model=model, samples=samples)


def test_the_top_layers_can_be_measured_one_by_one(transformer):
    model, samples, estimated = transformer

    ranking = rank_model(model, samples, exact_count=3)

    truth = measure_exact_impacts(model, samples)
    top = {layer.name for layer in estimated.layers[:3]}
    for layer in ranking.layers:
        if layer.name in top:
            assert layer.impact_method == "exact"
            assert layer.impact == truth[layer.outputs[0]]
        else:
            assert layer.impact_method == "adjoint"
    impacts = [layer.impact for layer in ranking.layers]
    assert impacts == sorted(impacts, reverse=True)


def test_all_layers_can_be_measured_one_by_one(transformer):
    model, samples, _ = transformer

    ranking = rank_model(model, iter(samples), impact="exact")

    truth = measure_exact_impacts(model, samples)
    assert {layer.outputs[0]: layer.impact for layer in ranking.layers} == truth
    assert {layer.impact_method for layer in ranking.layers} == {"exact"}
    assert ranking.conditions.impact == "exact"


def test_layers_without_a_first_output_are_told_apart():
    # Both give their last state alone, and the second is read by a hundred times.
    def cell(name, source, state):
        weights = [f"{name}/w", f"{name}/r"]
        return node("GRU", [source, *weights], "", state, name=name, hidden_size=4)

    nodes = [
        cell("first", "x", "s1"),
        cell("second", "x", "s2"),
        node("Mul", ["s2", "hundred"], "large", name="enlarge"),
        node("Add", ["s1", "large"], "y", name="add"),
    ]
    weights = {"hundred": scalar(100.0)}
    for seed, name in enumerate(("first", "second")):
        weights[f"{name}/w"] = normal(seed, 1, 12, 4)
        weights[f"{name}/r"] = normal(seed + 9, 1, 12, 4)
    model = build_model(nodes, [tensor("x", [3, 2, 4])], [tensor("y", [1, 2, 4])], weights)
    samples = [{"x": normal(5, 3, 2, 4)}]

    truth = measure_exact_impacts(model, samples)
    ranking = rank_model(model, samples, impact="exact")

    assert set(truth) == {"s1", "s2", "large", "y"}
    assert truth["s2"] > 10 * truth["s1"]
    found = {layer.name: layer.impact for layer in ranking.layers}
    assert (found["first"], found["second"]) == (truth["s1"], truth["s2"])


def head_loss(outputs):
    """Cares for the first row of `y` alone."""
    return (outputs["y"][0] ** 2).sum()


def two_rows():
    nodes = [
        node("Mul", ["x", "w"], "first", name="first"),
        node("Mul", ["x", "v"], "second", name="second"),
        node("Concat", ["first", "second"], "y", name="join", axis=0),
    ]
    weights = {"w": normal(1, 16), "v": normal(2, 16, scale=10.0)}
    return build_model(nodes, [tensor("x", [1, 16])], [tensor("y", [2, 16])], weights)


def test_a_loss_says_what_matters():
    model, samples = two_rows(), [{"x": normal(0, 1, 16)}]

    assert rank_model(model, samples).layers[0].name == "second"
    ranking = rank_model(model, samples, loss=head_loss)

    assert [layer.name for layer in ranking.layers] == ["first", "second"]
    assert ranking.layers[1].impact == 0.0
    given = rank_model(
        model,
        samples,
        loss=lambda o: (head_loss(o), {"y": np.stack([2 * o["y"][0], 0 * o["y"][1]])}),
    )
    for found, expected in zip(given.layers, ranking.layers, strict=True):
        assert dataclasses.replace(found, impact=0.0) == dataclasses.replace(expected, impact=0.0)
        assert found.impact == pytest.approx(expected.impact, rel=1e-5)


@pytest.mark.parametrize("options", [{"impact": "gain"}, {"impact": "exact"}, {"exact_count": 1}])
def test_a_loss_needs_the_adjoint(options):
    with pytest.raises(ExecutionError, match="A loss needs the adjoint"):
        rank_model(two_rows(), [{"x": normal(0, 1, 16)}], loss=head_loss, **options)
