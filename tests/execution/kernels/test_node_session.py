"""Single nodes in sessions of their own: they run wherever ONNX-Runtime runs the whole model."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.kernels.node_session import NodeRunner, tensor_of, value_of
from polygraphy_layerprec.execution.kernels.plain_session import PlainSession
from polygraphy_layerprec.execution.kernels.sessions import threads_per_session
from polygraphy_layerprec.model import identify, load_graph
from polygraphy_layerprec.pipeline import measure_output_error, rank_model
from tests.models import build_model, node, normal, tensor
from tests.planned_runs import emulated_executor, run_lowered, run_reference

pytestmark = pytest.mark.onnxrt


def scan_model(body_nodes, weights, *, steps, width):
    """Returns x · 1.3 scanned from a state of zeros; no value in the body has a declared shape."""
    body = helper.make_graph(
        body_nodes, "body", [tensor("s", None), tensor("e", None)], [tensor("t", None)] * 2
    )
    body.output[1].name = "o"
    nodes = [
        node("Mul", ["x", "k"], "u", name="mul"),
        node("Scan", ["s0", "u"], "s1", "ys", name="scan", body=body, num_scan_inputs=1),
        node("Exp", ["ys"], "y", name="exp"),
    ]
    weights = {"k": np.float32(1.3), "s0": np.zeros(width, np.float32), **weights}
    return build_model(nodes, [tensor("x", [steps, width])], [tensor("y", None)], weights)


def running_sums():
    return scan_model(
        [node("Add", ["s", "e"], "t"), node("Tanh", ["t"], "o")], {}, steps=6, width=4
    )


def shape_from_outside():
    """The rank of what the body makes follows from a constant of the main graph."""
    body = [
        node("Add", ["s", "e"], "a"),
        node("Reshape", ["a", "shape"], "r"),
        node("Reshape", ["r", "flat"], "t"),
        node("Tanh", ["r"], "o"),
    ]
    weights = {"shape": np.array([2, 2]), "flat": np.array([4])}
    return scan_model(body, weights, steps=6, width=4)


def whole_model(model, sample):
    """Returns the outputs of ONNX-Runtime without its optimisations, by name."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, sample), strict=True))


def node_by_node(model, sample):
    """Returns the reference outputs by name, once nothing failed."""
    result = emulated_executor(model).compare(sample, lambda _: None)
    assert not result.failures
    return result.reference


def axes_from_outside():
    """The rank of what the body makes follows from the value of that constant alone."""
    body = [node("Add", ["s", "e"], "t"), node("Unsqueeze", ["t", "axes"], "o")]
    return scan_model(body, {"axes": np.array([0])}, steps=6, width=4)


@pytest.mark.parametrize("make", [running_sums, shape_from_outside, axes_from_outside])
def test_a_scan_without_shapes_runs_as_in_the_whole_model(make):
    model, sample = make(), {"x": normal(0, 6, 4)}

    reference = node_by_node(model, sample)

    np.testing.assert_array_equal(reference["y"], whole_model(model, sample)["y"])
    layers = [layer.name for layer in rank_model(model, [sample]).layers]
    assert sorted(layers) == ["exp", "mul", "scan"]


def test_a_scan_without_shapes_runs_in_mixed_precision():
    model, sample = running_sums(), {"x": normal(0, 6, 4)}

    exact = run_reference(model, sample)

    np.testing.assert_array_equal(exact["y"], whole_model(model, sample)["y"])
    # A rounding of 2^-11 for each of a few layers, and exp of numbers up to 1.
    assert 0.0 < measure_output_error(model, [sample]) < 8 * 2.0**-11


def test_a_function_that_depends_on_extents_runs_as_in_the_whole_model():
    if not onnx.defs.has("CausalConvWithState", 27):
        pytest.skip("this onnx has no CausalConvWithState")
    nodes = [
        node("CausalConvWithState", ["x", "w"], "c", "state", name="conv"),
        node("Tanh", ["c"], "y", name="tanh"),
    ]
    outputs = [tensor("y", None), tensor("state", None)]
    weights = {"w": normal(1, 3, 1, 4)}
    inputs = [tensor("x", ["batch", "channels", "length"])]
    model = build_model(nodes, inputs, outputs, weights, opset=27)
    fixed = build_model(nodes, [tensor("x", [2, 3, 8])], outputs, weights, opset=27)
    sample = {"x": normal(0, 2, 3, 8)}

    reference = node_by_node(model, sample)

    for name, expected in whole_model(fixed, sample).items():
        np.testing.assert_array_equal(reference[name], expected)
    runner, conv = NodeRunner(load_graph(model)), load_graph(model).nodes[0]
    for seed in range(4):
        runner.run(conv, {"x": tensor_of(sample["x"]), "w": tensor_of(normal(seed, 3, 1, 4))})
    assert runner.session_count == 3  # for types, for ranks, and for extents whatever the weights


def test_a_node_that_needs_ranks_has_one_session_for_all_extents():
    model = running_sums()
    model.graph.input[0].CopyFrom(tensor("x", ["steps", 4]))
    graph = load_graph(model)
    runner, scan = NodeRunner(graph), graph.nodes[1]
    start = tensor_of(graph.weights["s0"].read())
    counts = set()

    for steps in (1, 5, 2):
        values = normal(steps, steps, 4)
        _, ys = runner.run(scan, {"s0": start, "u": tensor_of(values)})
        sums = np.tanh(np.cumsum(values, axis=0))
        np.testing.assert_allclose(value_of(ys), sums, rtol=1e-5)
        counts.add(runner.session_count)

    assert counts == {2}  # the first knows types alone and fails


@pytest.mark.parametrize(("size", "threads"), [(1 << 10, {1}), (1 << 21, {3}), (None, {1, 3})])
def test_what_takes_little_time_runs_on_one_thread(size: int | None, threads: set[int]):
    model = build_model(
        [node("Relu", ["x"], "y", name="relu")], [tensor("x", None)], [tensor("y", None)], {}
    )
    runner, relu = NodeRunner(load_graph(model)), load_graph(model).nodes[0]
    with threads_per_session(3):
        for count in (size,) if size else (1 << 10, 1 << 21):
            (made,) = runner.run(relu, {"x": tensor_of(np.full(count, -1.0, np.float32))})
            assert not value_of(made).any()
    sessions = runner._sessions.values()
    assert {s.get_session_options().intra_op_num_threads for s in sessions} == threads


def test_a_node_that_fails_says_what_it_said_first():
    nodes = [node("Reshape", ["x", "shape"], "y", name="reshape")]
    model = build_model(
        nodes, [tensor("x", ["n"])], [tensor("y", None)], {"shape": np.array([2, 2])}
    )

    result = emulated_executor(model).compare({"x": normal(0, 3)}, lambda _: None)

    # With more known beforehand, ONNX-Runtime would speak of shape inference.
    assert "while running Reshape node" in result.failures[0]


def test_sessions_for_shapes_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(
        "polygraphy_layerprec.execution.kernels.node_session._MOST_SHAPED_SESSIONS", 3
    )
    model = shape_from_outside()
    model.graph.input[0].CopyFrom(tensor("x", ["steps", 4]))
    graph = load_graph(model)
    runner, scan = NodeRunner(graph), graph.nodes[1]
    weights = {name: tensor_of(graph.weights[name].read()) for name in ("s0", "shape", "flat")}

    for steps in range(1, 9):
        values = normal(steps, steps, 4)
        _, ys = runner.run(scan, {**weights, "u": tensor_of(values)})
        sums = np.tanh(np.cumsum(values, axis=0)).reshape(steps, 2, 2)
        np.testing.assert_allclose(value_of(ys), sums, rtol=1e-5)

    assert runner.session_count <= 3 + 2  # those that know types or ranks alone are kept


def dequantized_weight(element_type):
    """Returns y = x · W, where W has so few bits that numpy lacks its type."""
    few = helper.tensor_dtype_to_np_dtype(element_type)
    lowest = 0 if element_type == TensorProto.UINT4 else -7
    weight = np.random.default_rng(0).integers(lowest, 8, (16, 8)).astype(np.float32).astype(few)
    nodes = [
        node("DequantizeLinear", ["w", "scale"], "d", name="dequantize"),
        node("MatMul", ["x", "d"], "y", name="fc"),
    ]
    model = build_model(nodes, [tensor("x", ["n", 16])], [tensor("y", None)], opset=21)
    model.ir_version = 10
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.11), "scale"))
    return model, weight


FEW_BITS = [
    getattr(TensorProto, name)
    for name in ("INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ")
]


@pytest.mark.parametrize("element_type", FEW_BITS, ids=TensorProto.DataType.Name)
def test_weights_of_few_bits_are_ranked_with_the_values_of_the_whole_model(element_type):
    model, weight = dequantized_weight(element_type)
    sample = {"x": normal(1, 4, 16)}

    ranking = rank_model(model, [sample])

    expected = sample["x"].astype(np.float64) @ (weight.astype(np.float64) * np.float32(0.11))
    reference = node_by_node(model, sample)["y"]
    np.testing.assert_array_equal(reference, whole_model(model, sample)["y"])
    np.testing.assert_allclose(reference, expected, rtol=1e-5, atol=1e-5)
    assert [layer.name for layer in ranking.layers] == ["fc"]
    assert ranking.output_error.measured == pytest.approx(
        measure_output_error(model, [sample]), rel=1e-6
    )
    # Users run it as ONNX-Runtime optimises it; by default it would quantise `x` to eight bits.
    plain = PlainSession(model).run(sample)["y"]
    np.testing.assert_allclose(plain, reference, rtol=1e-5, atol=1e-5)


def test_weights_in_fp4_are_computed_where_onnxruntime_has_no_kernel():
    model, weight = dequantized_weight(TensorProto.FLOAT4E2M1)
    model.opset_import[0].version, model.ir_version = 23, 11
    sample = {"x": normal(1, 4, 16)}
    with pytest.raises(ExecutionError, match="NOT_IMPLEMENTED"):
        PlainSession(model).run(sample)

    ranking = rank_model(model, [sample])

    expected = sample["x"].astype(np.float64) @ (weight.astype(np.float64) * np.float32(0.11))
    np.testing.assert_allclose(node_by_node(model, sample)["y"], expected, rtol=1e-5, atol=1e-5)
    assert [layer.name for layer in ranking.layers] == ["fc"]
    assert ranking.output_error.measured == pytest.approx(
        measure_output_error(model, [sample]), rel=1e-6
    )


def test_a_conversion_that_nobody_knows_says_what_onnxruntime_said():
    model, _ = dequantized_weight(TensorProto.FLOAT4E2M1)
    model.opset_import[0].version, model.ir_version = 23, 11
    scales = numpy_helper.from_array(np.ones(5, np.float32), "scale")  # for 8 channels
    model.graph.initializer[1].CopyFrom(scales)

    with pytest.raises(ExecutionError, match="ONNXRuntimeError"):
        rank_model(model, [{"x": normal(1, 4, 16)}])


def test_an_identity_without_a_kernel_is_passed_through():
    model, _ = dequantized_weight(TensorProto.INT4)
    model.graph.node[0].input[0] = "shared"
    model.graph.node.insert(0, node("Identity", ["w"], "shared", name="identity"))
    sample = {"x": normal(1, 4, 16)}

    reference = node_by_node(model, sample)["y"]

    expected = PlainSession(model).run(sample)["y"]  # its optimisations take the node out
    np.testing.assert_allclose(reference, expected, rtol=1e-5, atol=1e-5)


def text_model():
    """Returns y = (text == constant) + x, and the text once more."""
    nodes = [
        node("Equal", ["text", "words"], "same", name="equal"),
        node("Cast", ["same"], "number", name="cast", to=TensorProto.FLOAT),
        node("Add", ["number", "x"], "y", name="add"),
        node("Identity", ["text"], "text_out", name="copy"),
    ]
    inputs = [tensor("text", [3], TensorProto.STRING), tensor("x", [3])]
    outputs = [tensor("y", [3]), tensor("text_out", [3], TensorProto.STRING)]
    words = np.array(["alpha", "beta", "gämma"], object)
    return build_model(nodes, inputs, outputs, {"words": words}, opset=19)


def test_text_passes_through_every_way_of_running():
    model = text_model()
    sample = {"text": np.array(["alpha", "delta", "gämma"]), "x": np.float32([1.1, 2.2, 3.3])}
    expected = np.float32([2.1, 2.2, 4.3])

    reference = node_by_node(model, sample)
    mixed = run_reference(model, sample)
    plain = PlainSession(model).run(sample)

    for outputs in (reference, mixed, plain):
        np.testing.assert_array_equal(outputs["y"], expected)
        assert outputs["text_out"].tolist() == ["alpha", "delta", "gämma"]
    assert [layer.name for layer in rank_model(model, [sample]).layers] == ["add"]


def test_text_is_known_by_what_it_says_and_not_by_where_it_lies():
    graph, other = load_graph(text_model()), load_graph(text_model())
    other.weights["words"].tensor.string_data[0] = b"z"
    digest = identify(graph).digest

    elsewhere = [graph.weights["words"].read() for _ in range(3)]  # takes what was free again

    assert identify(graph).digest == digest != identify(other).digest
    assert len(elsewhere) == 3


def test_a_constant_that_is_an_output_is_among_the_outputs():
    constant = normal(1, 3)
    nodes = [node("Exp", ["x"], "y", name="exp")]
    outputs = [tensor("y", [3]), tensor("k", [3])]
    model = build_model(nodes, [tensor("x", [3])], outputs, {"k": constant})
    sample = {"x": normal(0, 3)}

    mixed = run_lowered(model, sample)

    np.testing.assert_array_equal(node_by_node(model, sample)["k"], constant)
    np.testing.assert_array_equal(mixed["k"], constant)
