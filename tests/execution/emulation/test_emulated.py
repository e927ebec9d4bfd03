"""The emulation against numpy, and every structure that a model can have."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

from polygraphy_layerprec.divergence.compact_errors import ErrorMemory, errors_of
from polygraphy_layerprec.execution import PlannedExecutor
from polygraphy_layerprec.execution.emulation import node_comparer
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.plan import Planner
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.rounding import round_to_precision
from tests import models
from tests.execution.numpy_emulation import OPERATORS, emulate, half
from tests.models import build_model, node, normal, sample_inputs, scalar, tensor
from tests.planned_runs import emulated_executor, run_lowered, run_reference

RUNNABLE = [*models.RUNNABLE, models.odd_names, models.unsorted_nodes]


def compare(model, sample, *, precision=FP16, **options):
    """Returns the result and the node runs by node name."""
    node_runs = {}

    def observe(node_run):
        node_runs[node_run.node.name] = node_run

    executor = emulated_executor(model, precision, **options)
    return executor.compare(sample, observe), node_runs


def plain_session(model):
    """The whole model in ONNX-Runtime, which wants different node names and fuses FP16 casts."""
    for index, made in enumerate(model.graph.node):
        made.name = f"node_{index}"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options)


def one_layer(operator, *operands, **attributes):
    names = [f"i{index}" for index in range(len(operands))]
    made = node(operator, names, "y", name="layer", **attributes)
    weights = dict(zip(names[1:], operands[1:], strict=True))
    inputs = [tensor(names[0], operands[0].shape)]
    return build_model([made], inputs, [tensor("y", None)], weights), {"i0": operands[0]}


OPERANDS = {
    "Add": (normal(0, 30, 40, scale=100), normal(1, 40)),
    "Mul": (normal(0, 30, 40), normal(1, 40, scale=1e-5)),
    "MatMul": (normal(0, 30, 64), normal(1, 64, 20)),
    "Gemm": (normal(0, 30, 64), normal(1, 64, 20), normal(2, 20)),
    "Conv": (normal(0, 2, 3, 9, 9), normal(1, 5, 3, 3, 3), normal(2, 5)),
    "Softmax": (normal(0, 8, 40, scale=5),),
    "LayerNormalization": (normal(0, 8, 40), normal(1, 40), normal(2, 40)),
}


@pytest.mark.parametrize("operator", ["Add", "Mul"])
def test_where_no_order_of_summation_matters_every_bit_is_numpys(operator):
    model, sample = one_layer(operator, *OPERANDS[operator])
    result, _ = compare(model, sample)
    np.testing.assert_array_equal(result.candidate["y"], emulate(operator, *OPERANDS[operator]))


def test_a_product_of_a_single_term_is_numpys_bit_by_bit():
    operands = (normal(0, 30, 1), normal(1, 1, 20))
    model, sample = one_layer("MatMul", *operands)
    result, _ = compare(model, sample)
    np.testing.assert_array_equal(result.candidate["y"], emulate("MatMul", *operands))


@pytest.mark.parametrize("operator", OPERANDS)
def test_the_candidate_is_numpys_emulation_but_for_the_order_of_summation(operator):
    operands = OPERANDS[operator]
    model, sample = one_layer(operator, *operands)
    result, node_runs = compare(model, sample)
    exact = OPERATORS[operator](*(operand.astype(np.float64) for operand in operands))
    np.testing.assert_allclose(result.reference["y"], exact, rtol=1e-4, atol=1e-5)
    expected = np.linalg.norm(emulate(operator, *operands) - exact) / np.linalg.norm(exact)
    sums = node_runs["layer"].sums
    assert sums.cumulative_error == pytest.approx(expected, rel=0.05)
    assert sums.introduced_error == pytest.approx(expected, rel=0.05)
    np.testing.assert_array_equal(result.candidate["y"], half(result.candidate["y"]))


def test_bf16_is_the_same_with_another_rounding():
    values, weight = normal(0, 30, 40), normal(1, 40)
    model, sample = one_layer("Mul", values, weight)
    result, _ = compare(model, sample, precision=BF16)
    product = round_to_precision(values, BF16) * round_to_precision(weight, BF16)
    np.testing.assert_array_equal(result.candidate["y"], round_to_precision(product, BF16))


def test_nothing_is_left_of_what_is_added_to_400_and_taken_off_again():
    _, node_runs = compare(models.cancellation(), {"x": np.full((4, 8), 0.01, np.float32)})
    assert node_runs["shift_down"].sums.cumulative_error == pytest.approx(1.0)
    assert node_runs["shift_down"].sums.introduced_error < 2.0**-11
    assert node_runs["shift_up"].sums.introduced_error == pytest.approx(0.01 / 400, rel=0.1)


@pytest.mark.parametrize("build", RUNNABLE, ids=lambda build: build.__name__)
@pytest.mark.parametrize("keep_errors", [False, True])
def test_the_reference_is_what_onnxruntime_computes(build, keep_errors):
    model = build()
    sample = sample_inputs(model)
    result, _ = compare(model, sample, keep_errors=keep_errors, needs_gains=lambda _: keep_errors)
    session = plain_session(model)
    names = [output.name for output in session.get_outputs()]
    # A whole model in FP16 is no reference: on a CPU it keeps more digits than FP16 has.
    tolerance = 1e-3 if build is models.float16_part else 1e-5
    for name, expected in zip(names, session.run(None, sample), strict=True):
        np.testing.assert_allclose(
            result.reference[name], expected, rtol=tolerance, atol=tolerance / 10
        )
    assert not result.failures
    assert set(result.candidate) == set(names)


@pytest.mark.parametrize("build", RUNNABLE, ids=lambda build: build.__name__)
def test_outputs_stay_valid_after_the_run(build):
    model = build()
    sample = sample_inputs(model)
    result, _ = compare(model, sample)
    before = {name: values.copy() for name, values in result.candidate.items()}
    for seed in range(3):
        compare(model, sample_inputs(model, seed=seed))
    for name, values in before.items():
        np.testing.assert_array_equal(result.candidate[name], values)


@pytest.mark.parametrize("build", RUNNABLE, ids=lambda build: build.__name__)
def test_the_planned_executor_agrees_at_both_ends(build):
    model = build()
    sample = sample_inputs(model)
    result, _ = compare(model, sample)
    for name, values in run_reference(model, sample).items():
        np.testing.assert_allclose(values, result.reference[name], rtol=1e-6, atol=1e-6)
    for name, values in run_lowered(model, sample).items():
        np.testing.assert_array_equal(values, result.candidate[name])


def test_an_operator_without_a_kernel_costs_only_what_depends_on_it():
    model = models.custom_domain()
    result, node_runs = compare(model, sample_inputs(model))
    assert set(node_runs) == {"before", "independent"}
    assert set(result.reference) == set(result.candidate) == {"z"}
    plugin, after = (result.failures[index] for index in sorted(result.failures))
    assert "vendor.plugins" in plugin
    assert "\n" not in plugin
    assert after == "it needs the result of 'plugin', which failed"
    outputs = run_lowered(model, sample_inputs(model))
    assert set(outputs) == {"z"}


def test_a_kernel_that_fails_is_named():
    nodes = [
        node("Reshape", ["x", "shape"], "bad", name="bad"),
        node("Exp", ["x"], "y", name="good"),
        node("Tanh", ["bad"], "z", name="lost"),
    ]
    inputs = [tensor("x", [2, 4]), tensor("shape", [1], TensorProto.INT64)]
    model = build_model(nodes, inputs, [tensor("y", None), tensor("z", None)])
    sample = {"x": normal(0, 2, 4), "shape": np.array([3], np.int64)}
    result, node_runs = compare(model, sample)
    assert set(node_runs) == {"good"}
    assert set(result.failures) == {0, 2}


def test_random_numbers_are_no_divergence():
    model = models.random_numbers()
    result, node_runs = compare(model, sample_inputs(model), needs_gains=lambda _: True)
    names = set(node_runs)
    assert all(node_runs[n].sums.cumulative_error < 2e-3 for n in names if node_runs[n].sums)
    assert node_runs["noise"].sums is None  # drawn in FP32 whatever is lowered
    assert node_runs["noise"].gains == {"h": 0.0}
    assert not result.harmful_overflows
    graph = load_graph(model)
    executor = PlannedExecutor(graph, FP16)
    sample = sample_inputs(model)
    exact = executor.run(sample)
    lowered = executor.run(sample, Planner(graph, FP16).plan())
    other = executor.run(dict(sample))
    for name, values in exact.items():
        assert 0 < np.linalg.norm(lowered[name] - values) < 2e-3 * np.linalg.norm(values)
        assert np.linalg.norm(other[name] - values) > 0.1 * np.linalg.norm(values)


def test_a_node_of_one_structure_shares_its_session():
    model = models.chain(30)
    executor = emulated_executor(model)
    executor.compare(sample_inputs(model), lambda _: None)
    assert executor._comparer._runner.session_count == 3


def test_a_large_weight_of_a_subgraph_is_brought_from_the_file(tmp_path):
    model = models.if_with_capture()
    branch = next(a for a in model.graph.node[1].attribute if a.name == "then_branch").g
    model.graph.initializer.pop()
    weight = branch.initializer.add()
    import onnx

    weight.CopyFrom(onnx.numpy_helper.from_array(normal(0, 4, 2000), "weight"))
    more = branch.initializer.add()
    more.CopyFrom(onnx.numpy_helper.from_array(normal(0, 2000, 4, scale=0.01), "back"))
    del branch.node[:]
    branch.node.extend(
        [
            node("MatMul", ["h", "weight"], "wide"),
            node("MatMul", ["wide", "back"], "then_out"),
        ]
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    sample = {**sample_inputs(model), "condition": np.ones((), np.bool_)}
    session = ort.InferenceSession(model.SerializeToString())
    result, _ = compare(str(path), sample)
    assert not result.failures
    np.testing.assert_allclose(
        result.reference["y"], session.run(None, sample)[0], rtol=1e-4, atol=1e-5
    )


def test_a_bfloat16_part_runs_or_is_named():
    nodes = [
        node("Exp", ["x"], "h", name="before"),
        node("Cast", ["h"], "low", name="down", to=TensorProto.BFLOAT16),
        node("Cast", ["low"], "back", name="up", to=TensorProto.FLOAT),
        node("Sqrt", ["back"], "y", name="after"),
    ]
    outputs = [tensor("y", [2, 4]), tensor("low", [2, 4], TensorProto.BFLOAT16)]
    model = build_model(nodes, [tensor("x", [2, 4])], outputs)
    sample = sample_inputs(model)
    result, node_runs = compare(model, sample)
    assert not result.failures
    expected = np.sqrt(round_to_precision(np.exp(sample["x"]), BF16))
    np.testing.assert_allclose(result.reference["y"], expected, rtol=1e-3)
    assert result.reference["low"].dtype.name == "bfloat16"
    assert node_runs["after"].sums is not None


def test_a_sample_in_another_memory_order_gives_the_same():
    model = models.small_cnn()
    sample = sample_inputs(model)
    turned = {"image": np.asfortranarray(sample["image"])}
    first, _ = compare(model, sample)
    second, _ = compare(model, turned)
    np.testing.assert_array_equal(first.candidate["logits"], second.candidate["logits"])


@pytest.mark.parametrize("largest", [65520.0, 1e6])
def test_values_that_the_user_feeds_beyond_the_range_become_infinite(largest):
    model = build_model(
        [node("Mul", ["x", "w"], "y", name="first")],
        [tensor("x", [2])],
        [tensor("y", [2])],
        {"w": scalar(1e-6)},
    )
    result, node_runs = compare(model, {"x": np.array([largest, 2.0], np.float32)})
    assert np.isinf(result.candidate["y"][0])
    assert node_runs["first"].harmful_overflows | result.harmful_overflows == {0}
    assert node_runs["first"].max_abs_input == largest


def test_weights_beyond_the_range_are_clipped():
    model, sample = one_layer("Mul", np.array([1e-3, 2e-3], np.float32), scalar(1e6))
    result, _ = compare(model, sample)
    expected = half(half(sample["i0"]) * np.float32(65504.0))
    np.testing.assert_array_equal(result.candidate["y"], expected)


def test_folded_constants_beyond_the_range_are_clipped_as_weights_are():
    nodes = [
        node("Mul", ["a", "a"], "large", name="folded"),
        node("Mul", ["x", "large"], "y", name="layer"),
    ]
    shapes = [tensor("x", [2])], [tensor("y", [2])]
    model = build_model(nodes, *shapes, {"a": scalar(1e3)})
    x = np.array([1e-3, 2e-3], np.float32)
    result, _ = compare(model, {"x": x})
    np.testing.assert_array_equal(result.candidate["y"], half(half(x) * np.float32(65504.0)))


def test_gains_are_measured_where_they_are_asked_for():
    nodes = [node("Exp", ["x"], "h", name="exp"), node("Mul", ["h", "w"], "y", name="layer")]
    shapes = [tensor("x", [50])], [tensor("y", [50])]
    model = build_model(nodes, *shapes, {"w": scalar(4.0)})
    _, node_runs = compare(model, {"x": normal(0, 50)}, needs_gains=lambda n: n.name == "layer")
    assert node_runs["layer"].gains == {"h": pytest.approx(4.0, rel=1e-3)}
    assert node_runs["exp"].gains == {}


def test_the_introduced_error_takes_what_other_layers_made_exactly():
    """What arrives from the layer before is far more than what the second layer adds."""
    nodes = [node("Exp", ["x"], "h", name="first"), node("Mul", ["h", "w"], "y", name="layer")]
    x, w = normal(0, 500), np.float32(4 / 3)
    model = build_model(nodes, [tensor("x", [500])], [tensor("y", [500])], {"w": scalar(w)})

    _, node_runs = compare(model, {"x": x})

    exact = np.exp(x.astype(np.float64)).astype(np.float32)
    expected = half(exact * half(w)) - exact * w
    arriving = half(half(np.exp(half(x).astype(np.float64)).astype(np.float32)) * half(w))
    introduced = node_runs["layer"].sums.introduced_power
    assert introduced == pytest.approx(np.sum(expected.astype(np.float64) ** 2), rel=1e-3)
    assert introduced < 0.9 * np.sum((arriving - exact * w).astype(np.float64) ** 2)


def test_the_kept_error_is_the_introduced_one():
    model, sample = one_layer("Mul", normal(0, 50), normal(1, 50))
    _, node_runs = compare(model, sample, keep_errors=True)
    error = errors_of(node_runs["layer"].errors["y"])
    power = node_runs["layer"].sums.introduced_power
    assert float(error @ error) == pytest.approx(power, rel=0.02)


def test_each_sample_may_keep_as_many_errors_in_two_bytes(monkeypatch):
    monkeypatch.setattr(node_comparer, "ErrorMemory", lambda: ErrorMemory(1 << 15))
    model, sample = one_layer("Mul", normal(0, 1 << 15), normal(1, 1))
    executor, kinds = emulated_executor(model, FP16, keep_errors=True), []

    for _ in range(2):
        executor.compare(sample, lambda node_run: kinds.append(node_run.errors["y"].dtype))

    assert kinds == [np.uint16, np.uint16]


@pytest.mark.parametrize("build", RUNNABLE, ids=lambda build: build.__name__)
def test_no_input_is_larger_than_is_told(build):
    model = build()
    _, node_runs = compare(model, sample_inputs(model))
    for node_run in node_runs.values():
        weights = {weight.name for weight in model.graph.initializer}
        floats = [
            tensor_in.numpy()
            for name, tensor_in in node_run.inputs.items()
            if tensor_in.data_type() == "tensor(float)" and name not in weights
        ]
        if node_run.sums is None or not floats:
            continue
        actual = max(float(np.abs(v[np.isfinite(v)]).max(initial=0)) for v in floats)
        assert node_run.max_abs_input >= actual * (1 - 1e-6)
