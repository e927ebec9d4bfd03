"""A whole model in emulated low precision: closed forms, and outputs of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from polygraphy_layerprec.backend.emulated import Candidate
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.matching.requested_precisions import all_lowered
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.records import Constraint, RequestedPrecisions
from tests.emit.onnx_zoo import ZOO
from tests.models import (
    build_model,
    cancellation,
    custom_domain,
    node,
    overflow_then_recovery,
    sample_inputs,
    sequences,
    small_transformer,
    tensor,
)
from tests.planned_runs import emulated_executor

pytestmark = pytest.mark.onnxrt

OFFSET = 400.0
SPACING = 0.25
"""Of FP16 numbers between 256 and 512."""


def candidate_of(model, *kept: str, precision: str = "fp16") -> Candidate:
    constraints = tuple(Constraint(name, "Op", (), (name,), "") for name in kept)
    return Candidate(load_graph(model), RequestedPrecisions("", precision, constraints, ()))


def with_outputs(model, *names: str):
    del model.graph.output[:]
    model.graph.output.extend(tensor(name, None) for name in names)
    return model


@pytest.fixture
def small_values():
    """Returns what FP16 loses at 400: positive, below half the spacing, FP16 numbers themselves."""
    return np.linspace(0.001, 0.09, 32, dtype=np.float16).astype(np.float32).reshape(4, 8)


def test_what_is_added_and_taken_away_again_is_lost(small_values):
    outputs = candidate_of(cancellation(OFFSET)).run({"x": small_values})

    assert list(outputs) == ["y"]
    assert not outputs["y"].any()


def test_kept_layers_lose_nothing(small_values):
    candidate = candidate_of(cancellation(OFFSET), "shifted", "restored", "y")

    y = candidate.run({"x": small_values})["y"]

    # In FP32, numbers near 400 are 2**-15 apart: adding 400 is off by half of that at most.
    np.testing.assert_allclose(y, 2 * small_values, rtol=0, atol=2.0**-15)


def test_every_tensor_is_that_of_the_candidate(small_values):
    model = with_outputs(cancellation(OFFSET), "shifted", "restored", "y")

    outputs = candidate_of(model).run({"x": small_values + SPACING})

    assert list(outputs) == ["shifted", "restored", "y"]
    assert set(outputs["shifted"].flat) == {OFFSET + SPACING}
    assert set(outputs["restored"].flat) == {SPACING}


@pytest.mark.parametrize(("precision", "large"), [("fp16", np.inf), ("bf16", 1.5 * 2.0**20)])
def test_what_passes_the_range_of_the_precision_is_infinite(precision, large):
    model = with_outputs(overflow_then_recovery(2.0**20), "large")

    outputs = candidate_of(model, precision=precision).run({"x": np.full((4, 8), 1.5, np.float32)})

    assert set(outputs["large"].flat) == {large}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_computes_what_the_ranking_calls_candidate(precision):
    model = small_transformer()
    sample = sample_inputs(model)
    executor = emulated_executor(model, PRECISIONS[precision])

    expected = executor.compare(sample, lambda _: None).candidate

    found = candidate_of(model, precision=precision).run(sample)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        error = np.linalg.norm(values - expected[name]) / np.linalg.norm(expected[name])
        assert error <= PRECISIONS[precision].unit_roundoff


def test_constants_and_inputs_can_be_outputs(small_values):
    model = with_outputs(cancellation(OFFSET), "offset", "x", "y")

    outputs = candidate_of(model).run({"x": small_values})

    assert list(outputs) == ["offset", "x", "y"]
    assert outputs["offset"] == OFFSET
    np.testing.assert_array_equal(outputs["x"], small_values)


def test_outputs_that_are_no_tensors_are_left_out():
    model = with_outputs(sequences(), "parts", "y")
    candidate = candidate_of(model)

    runs = [candidate.run(sample_inputs(model)) for _ in range(2)]

    assert [list(run) for run in runs] == [["y"], ["y"]]


def test_outputs_of_one_run_outlive_the_next(small_values):
    model = with_outputs(cancellation(OFFSET), "shifted", "restored", "y")
    candidate = candidate_of(model, "shifted", "restored", "y")

    first = candidate.run({"x": small_values})
    copies = {name: values.copy() for name, values in first.items()}
    for _ in range(3):
        candidate.run({"x": np.full_like(small_values, 7)})

    for name, values in first.items():
        np.testing.assert_array_equal(values, copies[name])


def test_a_node_that_cannot_run_is_named():
    model = custom_domain()

    with pytest.raises(ExecutionError) as caught:
        candidate_of(model).run(sample_inputs(model))

    text = str(caught.value)
    (unknown,) = [n for n in model.graph.node if n.domain]
    assert f"Note: {unknown.op_type} {unknown.name!r} fails: " in text
    assert "--onnx-outputs" in text


def test_outputs_that_need_no_failing_node_are_computed():
    model = custom_domain()
    first = model.graph.node[0]
    assert not first.domain
    with_outputs(model, first.output[0])
    del model.graph.node[1:]

    assert list(candidate_of(model).run(sample_inputs(model))) == [first.output[0]]


def elements_computed_from_floats():
    """Returns a model that gives x the length `(count - count) + 4`."""
    nodes = [
        node("MatMul", ["count", "one"], "minuend", name="first"),
        node("MatMul", ["count", "one"], "subtrahend", name="second"),
        node("Sub", ["minuend", "subtrahend"], "difference", name="subtract"),
        node("Add", ["difference", "four"], "length", name="count_elements"),
        node("Cast", ["length"], "shape", name="to_shape", to=TensorProto.INT64),
        node("Reshape", ["x", "shape"], "y", name="shape_it"),
    ]
    weights = {"one": np.ones(1, np.float32), "four": np.full(1, 4, np.float32)}
    inputs = [tensor("x", [2, 2]), tensor("count", [1])]
    return build_model(nodes, inputs, [tensor("y", [4])], weights)


def test_what_fails_with_some_layers_lowered_alone_is_told():
    model = elements_computed_from_floats()
    sample = {"x": np.zeros((2, 2), np.float32), "count": np.full(1, 2049, np.float32)}

    lowered = candidate_of(model).run(sample)
    kept = candidate_of(model, "minuend", "subtrahend").run(sample)
    with pytest.raises(ExecutionError) as caught:
        # FP16 rounds 2049 to 2048: now the difference is -1.
        candidate_of(model, "subtrahend").run(sample)

    assert lowered["y"].shape == kept["y"].shape == (4,)
    assert "1 of 1 outputs cannot be computed, 'y' the first" in str(caught.value)
    assert "Reshape 'shape_it' fails" in str(caught.value)


def test_a_constraint_that_matches_nothing_is_an_error():
    with pytest.raises(ExecutionError, match="1 of 1 constraints match no layer"):
        candidate_of(cancellation(), "nonsense")


@pytest.mark.parametrize(("model", "count"), [(cancellation(), 3), (ZOO["comparisons"](), 3)])
def test_layers_are_counted_as_a_ranking_counts_them(model, count):
    candidate = Candidate(load_graph(model), all_lowered("fp16"))

    assert candidate.layer_count == count
