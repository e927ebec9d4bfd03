"""The output error of chosen sets of layers."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import BF16, FP16
from tests import models
from tests.execution.numpy_emulation import half
from tests.models import build_model, node, normal, sample_inputs, scalar, tensor
from tests.planned_runs import emulated_executor

pytestmark = pytest.mark.onnxrt


def measurement_of(model, samples=None, *, precision=FP16, outputs=None):
    graph = load_graph(model)
    samples = [sample_inputs(model)] if samples is None else samples
    return SetMeasurement(
        graph, samples, precision=precision, outputs=tuple(outputs or graph.outputs)
    )


def kept(outputs):
    return KeptLayers.of_outputs(outputs)


def relative(candidate, reference):
    return np.linalg.norm(candidate.astype(np.float64) - reference) / np.linalg.norm(reference)


def two_branches():
    """Returns a model whose two outputs are made by one layer each."""
    nodes = [
        node("Mul", ["x", "w"], "left", name="left"),
        node("Add", ["x", "w"], "right", name="right"),
    ]
    shapes = [tensor("x", [64])], [tensor("left", [64]), tensor("right", [64])]
    return build_model(nodes, *shapes, {"w": normal(9, 64)})


def test_all_in_fp32_is_without_error():
    model = models.small_transformer()
    outputs = [name for each in load_graph(model).nodes for name in each.outputs]

    assert measurement_of(model).divergence(kept(outputs)).error == 0.0


@pytest.mark.parametrize("precision", [FP16, BF16])
def test_none_in_fp32_has_the_error_of_the_comparison(precision):
    model = models.small_cnn()
    sample = sample_inputs(model)
    compared = emulated_executor(model, precision).compare(sample, lambda _: None)

    error = measurement_of(model, [sample], precision=precision).divergence(kept(())).error

    expected = relative(compared.candidate["logits"], compared.reference["logits"])
    assert error == pytest.approx(expected, rel=1e-6)


def test_the_layers_that_make_the_named_tensors_are_kept():
    model = two_branches()
    x, w = sample_inputs(model)["x"], normal(9, 64)
    measurement = measurement_of(model)
    left = relative(half(half(x) * half(w)), x * w)
    right = relative(half(half(x) + half(w)), x + w)

    def error(outputs):
        return measurement.divergence(kept(outputs)).error

    assert error(["right"]) == pytest.approx(left / np.sqrt(2), rel=1e-6)
    assert error(["left"]) == pytest.approx(right / np.sqrt(2), rel=1e-6)
    assert error(()) == pytest.approx(np.sqrt((left**2 + right**2) / 2), rel=1e-6)


@pytest.mark.parametrize("count", [0, 3, 8])
def test_an_outcome_is_of_the_same_error_as_the_divergence(count):
    model = models.small_transformer()
    outputs = [name for each in load_graph(model).layers for name in each.outputs][:count]
    measurement = measurement_of(model)

    outcome = measurement.outcome(kept(outputs), [])

    assert outcome.error == measurement.divergence(kept(outputs)).error > 0.0
    alone = measurement.divergence(kept(outputs), exact_inputs=True)
    assert outcome.error != alone.error


def test_one_output_that_can_be_computed_is_enough():
    unknown = node("Unknown", ["x"], "bad", name="bad")
    unknown.domain = "somewhere"
    model = build_model(
        [node("Exp", ["x"], "good", name="good"), unknown],
        [tensor("x", [4])],
        [tensor("good", [4]), tensor("bad", [4])],
        domains=["somewhere"],
    )
    measurement = measurement_of(model, [{"x": normal(0, 4)}])

    assert measurement.divergence(kept(())).error > 0.0


def test_only_the_outputs_that_count_are_measured():
    measurement = measurement_of(two_branches(), outputs=["left"])

    assert measurement.divergence(kept(["left"])).error == 0.0
    assert measurement.divergence(kept(["right"])).error > 0.0


def test_a_single_layer_is_measured_alone():
    model = two_branches()
    measurement = measurement_of(model)

    alone = measurement.divergence(kept(["right"]), exact_inputs=True).error

    assert alone == pytest.approx(measurement.divergence(kept(["right"])).error)


def test_samples_count_alike_and_are_read_once():
    model = models.small_cnn()
    samples = [sample_inputs(model, seed=seed) for seed in range(3)]
    single = [measurement_of(model, [sample]).divergence(kept(())).error for sample in samples]

    error = measurement_of(model, iter(samples)).divergence(kept(())).error

    assert error == pytest.approx(np.sqrt(np.mean(np.square(single))))


def test_random_numbers_of_several_samples_do_not_count_as_error():
    model = models.random_numbers()
    samples = [sample_inputs(model, seed=seed) for seed in range(3)]

    assert measurement_of(model, samples).divergence(kept(())).error < 1e-2


def test_the_empty_name_of_an_absent_output_keeps_nothing():
    model = models.optional_tensors()
    measurement = measurement_of(model)

    assert measurement.divergence(kept([""])).error == measurement.divergence(kept(())).error


def test_an_output_of_another_shape_is_lost_and_not_perfect():
    # In FP16 both values are 2048, and only one of them is above it in FP32.
    nodes = [
        node("Add", ["x", "zero"], "sum", name="add"),
        node("Greater", ["sum", "limit"], "above", name="compare"),
        node("Compress", ["sum", "above"], "y", name="compress", axis=0),
    ]
    weights = {"zero": scalar(0.0), "limit": scalar(2048.5)}
    model = build_model(nodes, [tensor("x", [2])], [tensor("y", ["n"])], weights)
    sample = {"x": np.array([2048.8, 2048.2], np.float32)}

    lowered = measurement_of(model, [sample]).divergence(kept(()))

    assert lowered.error == rank_model(model, [sample]).output_error.measured == 1.0
    assert lowered.max_abs_error == np.float32(2048.8)
    assert lowered.records()[0].error is None


def test_without_a_sample_nothing_seems_to_be_without_error():
    with pytest.raises(ExecutionError, match="no input sample"):
        measurement_of(models.small_cnn(), [])


def test_without_an_output_nothing_seems_to_be_without_error():
    with pytest.raises(ExecutionError, match=r"'y'.*\n.*'x'"):
        measurement_of(models.custom_domain(), outputs=["y"])
