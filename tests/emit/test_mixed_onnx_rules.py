"""The rules of lowering, each on the smallest graph that shows it, against closed forms."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from polygraphy_layerprec.emit.mixed_onnx import lower_model
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.precision import BF16, FP16
from tests.emit.onnx_zoo import ZOO, feeds, float_value, make_model, random_weights

_LOW, _FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def _initializers(model):
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _reasons(summary):
    return {(entry.op, entry.reason) for entry in summary.left_in_fp32}


def _chain(*ops):
    nodes = [helper.make_node(op, [f"t{index}"], [f"t{index + 1}"]) for index, op in enumerate(ops)]
    return make_model(
        nodes, [float_value("t0", 2, 4)], [float_value(f"t{len(ops)}", 2, 4)], opset=17
    )


def test_weight_of_kept_and_lowered_layers_exists_twice_and_else_once():
    model = ZOO["shared weight"]()

    both = _initializers(lower_model(model, ["a"])[0])
    low = _initializers(lower_model(model, ())[0])

    assert {name: t.data_type for name, t in both.items()} == {"w": _FLOAT, "w__fp16": _LOW}
    assert {name: t.data_type for name, t in low.items()} == {"w": _LOW}


def test_one_cast_serves_all_consumers():
    nodes = [helper.make_node("Exp", ["x"], [f"e{index}"]) for index in range(4)]
    nodes.append(helper.make_node("Sum", [f"e{index}" for index in range(4)], ["y"]))
    model = make_model(nodes, [float_value("x", 2)], [float_value("y", 2)], opset=13)

    assert lower_model(model, ())[1].casts == 2
    assert lower_model(model, ["e0", "e1"])[1].casts == 4


def test_movement_between_kept_layers_stays_in_fp32():
    model = _chain("Exp", "Relu", "Tanh")

    mixed, summary = lower_model(model, ["t1", "t3"])

    assert (summary.casts, summary.followed, summary.lowered) == (0, 1, 0)
    assert len(mixed.graph.node) == 3


def test_movement_behind_a_lowered_layer_is_lowered_before_a_kept_one():
    mixed, summary = lower_model(_chain("Exp", "Relu", "Tanh"), ["t3"])

    assert [node.op_type for node in mixed.graph.node] == ["Cast", "Exp", "Relu", "Cast", "Tanh"]
    assert (summary.lowered, summary.kept, summary.casts) == (2, 1, 2)


def test_output_of_a_lowered_layer_is_read_inside_without_a_cast():
    mixed, _ = lower_model(ZOO["inner outputs"](), ())

    casts = {n.input[0]: n.output[0] for n in mixed.graph.node if n.op_type == "Cast"}
    tanh = next(node for node in mixed.graph.node if node.op_type == "Tanh")
    assert casts[tanh.input[0]] == "inner"


def test_shape_arithmetic_stays_exact():
    _, summary = lower_model(ZOO["float shape arithmetic"](), ())

    assert {(n.op, n.reason) for n in summary.left_in_fp32} == {
        ("Mul", "it computes shapes"),
        ("Floor", "it computes shapes"),
    }


def test_picking_from_a_table_by_a_shape_is_not_shape_arithmetic():
    nodes = [
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("Gather", ["table", "n"], ["g"]),
        helper.make_node("Exp", ["g"], ["y"]),
    ]
    model = make_model(
        nodes, [float_value("x", 3)], [float_value("y", 1, 2)], random_weights(table=(8, 2)),
        opset=13,
    )  # fmt: skip

    mixed, summary = lower_model(model, ())

    assert summary.left_in_fp32 == ()
    assert _initializers(mixed)["table"].data_type == _LOW


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("cast like", ("CastLike", "its type is that of its second input")),
        ("celu without half kernel", ("Celu", "Celu-12 does not take tensor(float16)")),
        ("contributed operator",
         ("QuickGelu", "operators of other domains than ONNX's stay in FP32")),
        ("cumulative sum without half kernel",
         ("CumSum", "CumSum-11 does not take tensor(float16)")),
        ("detection",
         ("NonMaxSuppression", "NonMaxSuppression-11 does not take tensor(float16)")),
        ("loop", ("Loop", "in a saved model, its body stays in FP32")),
        ("optional", ("Optional", "it handles values that are not tensors")),
        ("quantized with a tiny scale", ("DequantizeLinear", "its scale is out of range")),
        ("quantized, opset 13",
         ("DequantizeLinear", "DequantizeLinear-13 does not take tensor(float16)")),
        ("quantized, opset 21", ("QuantizeLinear", "quantisation stays in FP32")),
        ("random draws", ("RandomNormal", "random draws stay in FP32")),
        ("scan", ("Scan", "in a saved model, its body stays in FP32")),
        ("scatter and gather", ("ScatterElements", "it accumulates into scattered places")),
    ],
)  # fmt: skip
def test_node_that_cannot_be_lowered_says_why(case, expected):
    _, summary = lower_model(ZOO[case](), ())

    assert expected in _reasons(summary)


def test_dequantized_weight_keeps_its_exact_scale_where_the_opset_allows():
    newer, _ = lower_model(ZOO["quantized, opset 23"](), ())
    older, _ = lower_model(ZOO["quantized, opset 21"](), ())

    assert _initializers(newer)["ws"].data_type == _FLOAT
    assert _initializers(older)["ws"].data_type == _LOW
    types = [
        attribute.i
        for node in newer.graph.node
        for attribute in node.attribute
        if attribute.name == "output_dtype"
    ]
    assert types == [_LOW, _LOW]


def test_loop_is_fed_through_an_addition_of_negative_zero():
    mixed, _ = lower_model(ZOO["transposed recurrent"](), ["out"])

    gru = next(node for node in mixed.graph.node if node.op_type == "GRU")
    makers = {node.output[0]: node for node in mixed.graph.node}
    addition = makers[gru.input[0]]
    assert addition.op_type == "Add"
    assert np.signbit(numpy_helper.to_array(_initializers(mixed)[addition.input[1]]))


def test_bodies_capture_fp32_under_any_io_precision():
    mixed, _ = lower_model(ZOO["nested bodies"](), (), io_precision="low")

    onnx.checker.check_model(mixed, full_check=True)
    text = onnx.printer.to_text(next(n for n in mixed.graph.node if n.op_type == "Loop"))
    assert "x__fp32" in text
    assert mixed.graph.input[0].type.tensor_type.elem_type == _LOW


def test_movement_that_a_body_captures_is_not_rounded():
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 13]>
        graph (float[2] x, bool c) => (float[2] y, float[2] z) {
            r = Relu (x)
            y = Exp (r)
            z = If (c) <then_branch = a () => (float[2] t) { t = Neg (r) },
                        else_branch = b () => (float[2] e) { e = Abs (r) }>
        }""")

    mixed, summary = lower_model(model, ())

    x = np.array([1 / 3, 2 / 3], np.float32)
    _, z = ReferenceEvaluator(mixed).run(None, {"x": x, "c": np.ones((), np.bool_)})
    np.testing.assert_array_equal(z, -x)
    assert summary.followed == 4  # Relu, both branches, and the If itself


def test_weights_of_old_models_are_converted_and_no_longer_declared_as_inputs():
    model = ZOO["declared weights"]()

    mixed, _ = lower_model(model, ())

    assert [value.name for value in mixed.graph.input] == ["x"]
    assert {tensor.data_type for tensor in mixed.graph.initializer} == {_LOW}
    assert mixed.ir_version == 4


def test_names_of_expanded_functions_are_accepted():
    model = ZOO["local functions"]()
    inner = [node for node in load_graph(model).nodes if node.path]

    _, summary = lower_model(model, [inner[0].outputs[0], "y"])

    assert summary.kept == 2


def test_unsorted_graph_is_sorted():
    model = ZOO["attention block, opset 17"]()
    expected, _ = lower_model(model, ["s"])
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(model)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(reversed(model.graph.node))

    mixed, _ = lower_model(shuffled, ["s"])

    onnx.checker.check_model(mixed, full_check=True)
    outputs = [ReferenceEvaluator(m).run(None, feeds(model))[0] for m in (mixed, expected)]
    np.testing.assert_array_equal(*outputs)


def test_duplicate_node_names_are_kept():
    model = _chain("Exp", "Tanh", "Exp")
    for node in model.graph.node:
        node.name = "same"

    mixed, summary = lower_model(model, ["t2"])

    assert [n.name for n in mixed.graph.node if n.op_type != "Cast"] == ["same"] * 3
    assert (summary.lowered, summary.kept) == (2, 1)


def test_unknown_name_is_refused_with_the_nearest_ones():
    with pytest.raises(ValueError, match="got 'residuall'; nearest: 'residual'"):
        lower_model(ZOO["attention block, opset 17"](), ["residuall"])


@pytest.mark.parametrize("name", ["x", "w1"])
def test_name_that_no_layer_makes_is_refused(name):
    with pytest.raises(ValueError, match="must name outputs of layers"):
        lower_model(ZOO["multilayer perceptron"](), [name])


def test_cyclic_graph_is_refused():
    model = _chain("Exp", "Tanh")
    model.graph.node[0].input[0] = "t2"

    with pytest.raises(ValueError, match="has a cycle"):
        lower_model(model, ())


def test_unknown_io_precision_is_refused():
    with pytest.raises(ValueError, match="io_precision must be one of"):
        lower_model(_chain("Exp"), (), io_precision="fp16")


def test_parameters_that_are_folded_are_no_inputs_any_more():
    """As exporters write them that keep initialisers as inputs: all of these could be fed."""
    session = ort.InferenceSession(lower_model(_normalized(), ())[0].SerializeToString())

    assert [value.name for value in session.get_inputs()] == ["x"]
    assert np.isfinite(session.run(None, {"x": np.ones((1, 4, 2, 2), np.float32)})[0]).all()


def _normalized():
    names = ("scale", "bias", "mean", "variance")
    return make_model(
        [helper.make_node("BatchNormalization", ["x", *names], ["y"])],
        [float_value("x", 1, 4, 2, 2), *[float_value(name, 4) for name in names]],
        [float_value("y", 1, 4, 2, 2)],
        {name: np.full(4, 0.5, np.float32) for name in names},
        opset=17,
    )


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda precision: precision.name)
def test_a_model_says_its_precision_once_whatever_becomes_of_its_layers(precision):
    model = _chain("Exp", "Tanh")

    mixed, summary = lower_model(model, ["t1", "t2"], precision=precision)
    again, _ = lower_model(mixed, (), precision=FP16)

    assert summary.lowered == 0
    said = [(entry.key, entry.value) for entry in mixed.metadata_props]
    assert said == [("polygraphy_layerprec.precision", precision.name)]
    assert [entry.value for entry in again.metadata_props] == ["fp16"]
