"""What is done to networks that the real TensorRT-RTX parsed, and builds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.backend.engines.networks import (
    check_outputs,
    constrain,
    lower_all,
    lower_one_layer,
    why_not_markable,
)
from polygraphy_layerprec.backend.engines.specs import EngineError
from polygraphy_layerprec.emit.name_bridge import LayerConstraint
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.records import Constraint, RequestedPrecisions
from tests.emit.conftest import Tensorrt
from tests.emit.onnx_zoo import ZOO
from tests.models import (
    build_model,
    chain,
    node,
    normal,
    small_transformer,
    tensor,
)

pytestmark = pytest.mark.trt


@pytest.fixture(scope="module")
def tensorrt() -> Tensorrt:
    return Tensorrt(pytest.importorskip("tensorrt_rtx", reason="needs the TensorRT-RTX builder"))


def products() -> onnx.ModelProto:
    """Returns three matrix products in a row: `first`, `second` and `third`."""
    nodes = [
        node("MatMul", ["x", "w1"], "a", name="first"),
        node("MatMul", ["a", "w2"], "b", name="second"),
        node("MatMul", ["b", "w3"], "y", name="third"),
    ]
    weights = {f"w{i}": normal(i, 16, 16) for i in (1, 2, 3)}
    return build_model(nodes, [tensor("x", [4, 16])], [tensor("y", [4, 16])], weights)


def types_of(parsed) -> dict[str, str]:
    network = parsed.network
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return {
        layer.name: layer.get_output(0).dtype.name
        for layer in layers
        if layer.name in {"first", "second", "third"}
    }


def stored(plan: bytes, model: onnx.ModelProto, dtype) -> set[str]:
    """Returns the weights that an engine holds in a type."""
    arrays = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    return {name for name, array in arrays.items() if array.astype(dtype).tobytes() in plan}


def test_float_tensors_of_the_main_graph_can_be_marked(tensorrt):
    parsed = tensorrt.parse(small_transformer())

    reasons = why_not_markable(parsed.network, ["up", "probabilities", "h0", "mask_float"])

    assert reasons == dict.fromkeys(reasons, "")


def test_a_name_that_the_network_lacks_is_told(tensorrt):
    parsed = tensorrt.parse(chain(2))

    assert why_not_markable(parsed.network, ["gone"]) == {"gone": "the network has no such tensor"}


def test_integers_are_not_marked(tensorrt):
    parsed = tensorrt.parse(small_transformer())

    assert "INT64" in why_not_markable(parsed.network, ["ids"])["ids"]


@pytest.mark.parametrize("name", ["loop", "scan", "conditional"])
def test_what_is_inside_a_loop_or_branch_is_not_marked(tensorrt, name):
    model = ZOO[name]()
    parsed = tensorrt.parse(model)
    (region,) = [n for n in model.graph.node if n.op_type in {"Loop", "Scan", "If"}]
    bodies = [attribute.g for attribute in region.attribute if attribute.HasField("g")]
    inner = [name for body in bodies for n in body.node for name in n.output]
    network = parsed.network
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    there = {layer.get_output(i).name for layer in layers for i in range(layer.num_outputs)}

    reasons = why_not_markable(network, [*inner, region.output[-1]])

    present = [reasons[name] for name in inner if name in there]
    assert present
    assert "it is inside a loop or a branch" in present
    assert reasons[region.output[-1]] == ""


def test_float_shape_arithmetic_is_not_marked(tensorrt):
    nodes = [
        node("Shape", ["x"], "extents"),
        node("Cast", ["extents"], "floats", to=onnx.TensorProto.FLOAT),
        node("Mul", ["floats", "half"], "halves", name="halve"),
        node("Cast", ["halves"], "sizes", to=onnx.TensorProto.INT64),
        node("Expand", ["one", "sizes"], "y", name="expand"),
    ]
    weights = {"half": np.float32([0.5]), "one": np.float32([1.0])}
    model = build_model(nodes, [tensor("x", ["n"])], [tensor("y", ["m"])], weights)

    reasons = why_not_markable(tensorrt.parse(model).network, ["halves"])

    assert reasons == {"halves": "it is a shape tensor in the network"}


def test_all_layers_are_lowered(tensorrt):
    model = products()
    parsed = tensorrt.parse(model)

    lower_all(parsed.network, "fp16")
    plan = tensorrt.build(parsed)

    assert set(types_of(parsed).values()) == {"HALF"}
    assert stored(plan, model, np.float16) == {"w1", "w2", "w3"}
    assert parsed.network.get_output(0).dtype.name == "FLOAT"
    check_outputs(parsed.network, ["y"])


def test_one_layer_is_lowered_and_all_others_stay(tensorrt, capsys):
    model = products()
    parsed = tensorrt.parse(model)
    layer = LayerConstraint("second", "MatMul", ("a", "w2"), ("b",), "")

    lower_one_layer(parsed.network, layer, "fp16")
    plan = tensorrt.build(parsed)

    assert types_of(parsed) == {"first": "FLOAT", "second": "HALF", "third": "FLOAT"}
    assert stored(plan, model, np.float16) == {"w2"}
    assert stored(plan, model, np.float32) == {"w1", "w3"}
    assert capsys.readouterr().out == ""


def test_layers_that_are_asked_for_stay_and_all_others_are_lowered(tensorrt, capsys):
    model = products()
    parsed = tensorrt.parse(model)
    kept = Constraint("second", "MatMul", ("a", "w2"), ("b",), "a test")

    constrain(parsed.network, RequestedPrecisions("a test", "fp16", (kept,), ()))

    assert stored(tensorrt.build(parsed), model, np.float32) == {"w2"}
    assert "1 of 1 constraints matched" in capsys.readouterr().out


def test_a_constraint_that_matches_nothing_is_an_error(tensorrt):
    stray = Constraint("up?", "MatMul", (), ("nope",), "")

    with pytest.raises(EngineError, match="cannot be constrained: 1 of 1 constraints match no"):
        constrain(
            tensorrt.parse(products()).network, RequestedPrecisions("a test", "fp16", (stray,), ())
        )


def test_marked_tensors_of_a_lowered_network_keep_name_and_type(tensorrt):
    parsed = tensorrt.parse(products())
    network = parsed.network
    mark_outputs(network, ["a"])

    lower_all(network, "bf16")

    found = [network.get_output(i) for i in range(network.num_outputs)]
    assert {t.name: t.dtype.name for t in found} == {"y": "FLOAT", "a": "FLOAT"}
    assert tensorrt.build(parsed) is not None


def test_a_layer_that_the_network_lacks_is_an_error(tensorrt):
    parsed = tensorrt.parse(products())
    stray = LayerConstraint("gone", "MatMul", (), ("nope",), "")

    with pytest.raises(EngineError, match="has no layer 'gone'"):
        lower_one_layer(parsed.network, stray, "fp16")


def test_an_output_under_another_name_is_an_error_that_says_what_to_do(tensorrt):
    parsed = tensorrt.parse(products())
    parsed.network.get_output(0).name = "renamed"

    with pytest.raises(EngineError, match=r"no output 'y'[\s\S]*renamed[\s\S]*--trt-npps"):
        check_outputs(parsed.network, ["y"])


@pytest.mark.parametrize(
    "name",
    [
        "batch normalization, opset 17",
        "conditional",
        "float shape arithmetic",
        "loop",
        "quantized, opset 21",
        "recurrent LSTM",
        "resize, opset 18",
        "scan",
    ],
)
def test_what_can_be_marked_builds_in_fp32_and_lowered(tensorrt, name):
    model = ZOO[name]()
    graph = load_graph(model)
    names = [name for n in graph.layers for name in n.outputs if name and name not in graph.outputs]
    for lowers in (False, True):
        parsed = tensorrt.parse(model)
        reasons = why_not_markable(parsed.network, names)
        marked = [name for name in names if not reasons[name]]
        mark_outputs(parsed.network, marked)

        if lowers:
            lower_all(parsed.network, "fp16")

        assert marked
        check_outputs(parsed.network, [*graph.outputs, *marked])
        assert tensorrt.build(parsed) is not None


def mark_outputs(network, names) -> None:
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    tensors = [la.get_output(i) for la in layers for i in range(la.num_outputs)]
    for tensor_ in tensors:
        if tensor_.name in names:
            network.mark_output(tensor_)
