"""The float graph of a quantised model, its pairs, and what cannot be meant."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.execution.emulation.quantized_runs import executor_for
from polygraphy_layerprec.model import ModelError, load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.plan.quantized_planning import planner_for
from polygraphy_layerprec.precision import QDQ
from polygraphy_layerprec.ranking.quantized_units import pair_warnings
from tests.model_parts import build_model, node, normal, save_with_external_data, tensor
from tests.pair_models import cnn, cnn_inputs, in_fp16, mlp, mlp_inputs, quantised, run_whole
from tests.quantized_models import MODELS

pytestmark = pytest.mark.onnxrt

INT8, FP8 = TensorProto.INT8, TensorProto.FLOAT8E4M3FN
CASES = [
    *((INT8, "tensor", opset) for opset in (13, 17, 19, 21, 22, 23, 24, 25)),
    *((INT8, "channel", opset) for opset in (13, 21)),
    *((FP8, granularity, opset) for granularity in ("tensor", "channel") for opset in (19, 21)),
    *((kind, "block", 21) for kind in (INT8, FP8)),
]


def passed_by(model, reference=None):
    return pass_pairs_by(load_graph(model), None if reference is None else load_graph(reference))


def mlp_pairs(**options):
    return quantised(mlp(), mlp_inputs(), ops={"MatMul"}, **options)


@pytest.mark.parametrize(("kind", "granularity", "opset"), CASES)
def test_without_its_pairs_a_quantised_model_is_the_reference(kind, granularity, opset):
    reference, inputs = mlp(opset), mlp_inputs()
    model = quantised(reference, inputs, kind=kind, granularity=granularity, ops={"MatMul"})

    graph = passed_by(model, reference)

    made = executor_for(graph, QDQ).run(inputs)
    np.testing.assert_allclose(made["y"], run_whole(reference, inputs)["y"], rtol=1e-5, atol=1e-5)
    assert {pair.source for pair in graph.pairs} == {
        *("x", "r"),
        *(f"{name}_quantized" for name in ("wq", "wk", "wo")),
    }
    assert not graph.unranked


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "floats"])
def test_a_convolutional_model_is_the_reference_too(stored):
    reference, inputs = cnn(), cnn_inputs()
    model = quantised(reference, inputs, stored=stored)

    graph = passed_by(model, reference if stored else None)

    made = executor_for(graph, QDQ).run(inputs)
    np.testing.assert_allclose(made["y"], run_whole(reference, inputs)["y"], rtol=1e-5, atol=1e-6)
    assert not graph.unknown_weights


def test_without_a_reference_constants_are_what_they_are_stored_as():
    reference, inputs = cnn(), cnn_inputs()

    graph = passed_by(quantised(reference, inputs))

    assert set(graph.unknown_weights) == {f"{w}_quantized" for w in ("w1", "w2", "w3", "wf")}
    assert all(not pair.is_stored for pair in graph.pairs)


def units_of(graph):
    return [{node.name for node in unit} for unit in graph.decisions]


def test_operators_that_share_a_pair_are_one_decision():
    graph = passed_by(mlp_pairs(), mlp())

    assert units_of(graph) == [{"/attention/q", "/attention/k"}, {"/out"}]


def test_what_moves_values_between_pairs_belongs_to_the_reader():
    graph = passed_by(quantised(cnn(), cnn_inputs()), cnn())

    assert units_of(graph) == [
        {"/stem/Conv"},
        {"/body/Conv", "/body/Add"},
        {"/pool", "/head/Conv"},
        {"/head/Gemm"},
    ]
    assert graph.carried == {"pooled"}


def test_a_pair_before_an_output_belongs_to_what_makes_it():
    model = mlp_pairs()
    model.graph.node[-1].output[0] = "raw"
    scale = numpy_helper.from_array(np.float32(0.1), "last_scale")
    model.graph.initializer.append(scale)
    model.graph.node.extend(
        [
            node("QuantizeLinear", ["raw", "last_scale", "x_zero"], "last_q", name="/last/Q"),
            node("DequantizeLinear", ["last_q", "last_scale", "x_zero"], "y", name="/last/DQ"),
        ]
    )

    graph = passed_by(model, mlp())

    assert units_of(graph)[-1] == {"/out", "/last/DQ"}
    assert graph.outputs == ("y",)


def test_pairs_around_a_decision_are_seen_where_it_reads():
    model = mlp_pairs()
    pair = [n for n in model.graph.node if n.name in {"r/Q", "r/DQ"}]
    model.graph.node.append(node("ArgMax", [pair[1].output[0]], "best", name="/best", axis=1))
    model.graph.output.append(tensor("best", [32, 1], TensorProto.INT64))
    reference = mlp()
    reference.graph.node.append(node("ArgMax", ["r"], "best", name="/best", axis=1))
    reference.graph.output.append(tensor("best", [32, 1], TensorProto.INT64))

    graph = passed_by(model, reference)

    assert units_of(graph)[-1] == {"/out", "r/DQ"}
    assert graph.producers["best"].inputs == ("r_DequantizeLinear_Output",)


def test_a_transposed_constant_belongs_to_its_reader():
    model = mlp_pairs()
    for one in model.graph.node:
        if one.name == "/out":
            one.input[1] = "turned"
    model.graph.node.insert(
        0, node("Transpose", ["wo_DequantizeLinear_Output"], "turned", name="/turn")
    )
    (weight,) = (t for t in model.graph.initializer if t.name == "wo_quantized")
    turned = helper.make_tensor(
        "wo_quantized", INT8, (8, 16), numpy_helper.to_array(weight).T.ravel()
    )
    model.graph.initializer.remove(weight)
    model.graph.initializer.append(turned)
    for name in ("wo_scale", "wo_zero"):
        (constant,) = (t for t in model.graph.initializer if t.name == name)
        first = numpy_helper.to_array(constant).ravel()[0]
        constant.CopyFrom(helper.make_tensor(name, constant.data_type, (), [first]))
    for one in model.graph.node:
        if one.name == "wo/DQ":
            del one.attribute[:]
    order = sorted(model.graph.node, key=lambda one: one.name != "wo/DQ")
    del model.graph.node[:]
    model.graph.node.extend(order)

    graph = passed_by(model)

    # Without its float values, the constant is part of both; with them, of the product's error.
    assert units_of(graph)[-1] == {"/out"}
    floats = mlp()
    floats.graph.node[-1].input[1] = "turned"
    (wo,) = (t for t in floats.graph.initializer if t.name == "wo")
    wo.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(wo).T), "wo"))
    floats.graph.node.insert(0, node("Transpose", ["wo"], "turned", name="/turn"))

    assert {"/out", "/turn"} in units_of(passed_by(model, floats))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("uint8", "it is UINT8"),
        ("int16", "it is INT16"),
        ("dynamic", "its scale is computed"),
        ("computed scale", "its scale is computed"),
        ("product of integers", "its integers go to QLinearMatMul"),
        ("moved between", "its integers go to Reshape"),
    ],
)
def test_other_pairs_are_named_and_not_ranked(name, words):
    with pytest.raises(ModelError, match=r"no pair .* that can be ranked") as raised:
        passed_by(MODELS[name]())

    assert words in str(raised.value)


def test_among_others_a_pair_without_readers_is_named():
    model = mlp_pairs()
    model.graph.node.extend(
        [
            node("QuantizeLinear", ["x", "x_scale", "x_zero"], "idle_q", name="/idle/Q"),
            node("DequantizeLinear", ["idle_q", "x_scale", "x_zero"], "idle", name="/idle/DQ"),
        ]
    )

    graph = passed_by(model, mlp())

    assert [(n.name, n.reason) for n in graph.unranked] == [
        ("/idle/DQ", "nothing reads what it makes")
    ]


def test_among_others_a_quantizer_without_its_counterpart_is_named():
    model = mlp_pairs()
    model.graph.node.append(
        node("QuantizeLinear", ["y", "x_scale", "x_zero"], "integers", name="/lonely/Q")
    )
    model.graph.output.append(tensor("integers", [32, 8], TensorProto.INT8))
    reference = mlp()
    reference.graph.node.append(node("Cast", ["y"], "integers", name="/cast", to=TensorProto.INT8))
    reference.graph.output.append(tensor("integers", [32, 8], TensorProto.INT8))

    graph = passed_by(model, reference)

    assert [n.reason for n in graph.unranked] == ["its integers are an output of the model"]


def test_a_model_without_pairs_is_refused_with_what_to_do():
    with pytest.raises(ModelError, match=r"no pairs of QuantizeLinear.*\n.*--precision fp16"):
        passed_by(mlp())


def replaced(model, name, values):
    (old,) = (t for t in model.graph.initializer if t.name == name)
    old.CopyFrom(
        values if isinstance(values, TensorProto) else numpy_helper.from_array(values, name)
    )
    return model


BROKEN = {
    "zero": ("x_scale", np.float32(0), "'x_scale' is 0;"),
    "negative": ("x_scale", np.float32(-0.1), "'x_scale' is -0.1;"),
    "not a number": ("x_scale", np.float32(np.nan), "'x_scale' is nan;"),
    "zero in a channel": (
        "wq_scale",
        np.array([0.1] * 3 + [0] + [0.1] * 12, np.float32),
        r"'wq_scale' is 0 at \[3\]",
    ),
    "too few channels": ("wq_scale", np.full(7, 0.1, np.float32), r"shape \[7\]; .*\[16\] is due"),
    "two axes": ("wq_scale", np.full((4, 4), 0.1, np.float32), r"shape \[4, 4\]"),
    "zero point of another type": ("x/DQ", np.uint8(0), "is UINT8, and the integers are INT8"),
    "zero points of another shape": ("wq_zero", np.zeros(3, np.int8), r"shape \[3\]"),
    "zero point out of range": (
        "x_zero",
        TensorProto(name="x_zero", data_type=INT8, int32_data=[300]),
        "from 300 to 300, and INT8 from -128 to 127",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "values", "words"), BROKEN.values(), ids=list(BROKEN))
def test_scales_and_zero_points_that_cannot_be_meant_are_errors(name, values, words):
    model = mlp_pairs()
    if name == "x/DQ":  # as its own constant: the integers are what the QuantizeLinear makes
        (back,) = (one for one in model.graph.node if one.name == name)
        back.input[2] = "other_zero"
        model.graph.initializer.append(numpy_helper.from_array(values, "other_zero"))
    else:
        replaced(model, name, values)

    with pytest.raises(ModelError, match=words) as raised:
        passed_by(model, mlp())

    assert "Quantise the model again" in str(raised.value) or "damaged" in str(raised.value)


def test_scales_of_another_type_are_an_error():
    model = quantised(mlp(17), mlp_inputs(), ops={"MatMul"})

    with pytest.raises(ModelError, match="'x_scale' is DOUBLE; FLOAT, FLOAT16 or BFLOAT16 is due"):
        passed_by(replaced(model, "x_scale", np.float64(0.1)), mlp(17))


def test_blocks_of_a_negative_size_are_an_error():
    model = mlp_pairs(granularity="block")
    (back,) = (one for one in model.graph.node if one.name == "wq/DQ")
    back.attribute[1].i = -8

    with pytest.raises(ModelError, match=r"'wq/DQ' .* the size of its blocks is -8"):
        passed_by(model, mlp())


def test_integers_that_are_an_input_are_told_as_such():
    nodes = [node("DequantizeLinear", ["x", "scale"], "y", name="/DQ")]
    model = build_model(
        nodes,
        [tensor("x", [4], TensorProto.INT8)],
        [tensor("y", [4])],
        {"scale": np.float32(0.1)},
        opset=21,
    )

    with pytest.raises(
        ModelError, match="its integers come from an input of the model, not from a"
    ):
        passed_by(model)


def test_what_quantises_and_is_not_ranked_is_told_unless_nothing_reads_it():
    model = mlp_pairs()
    model.graph.node.extend(
        [
            node("QuantizeLinear", ["x", "x_scale", "x_zero"], "idle_q", name="/idle/Q"),
            node("DequantizeLinear", ["idle_q", "x_scale", "x_zero"], "idle", name="/idle/DQ"),
        ]
    )
    replaced(model, "r_zero", np.uint8(0))

    graph = passed_by(model, mlp())

    assert [one.name for one in graph.alike] == ["r/DQ"]
    assert any("'r/DQ' (it is UINT8;" in warning for warning in pair_warnings(graph))


@pytest.mark.parametrize(
    ("name", "values", "is_told"),
    [
        ("other", np.float32(0.5), True),
        ("other", "x_scale", False),
        ("moved", np.int8(1), True),
        ("moved", np.int8(0), False),
    ],
)
def test_a_pair_that_multiplies_or_moves_is_told(name, values, is_told):
    model = mlp_pairs()
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values = constants[values].reshape(1) if isinstance(values, str) else values
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    (back,) = (one for one in model.graph.node if one.name == "x/DQ")
    back.input[1 if name == "other" else 2] = name

    warnings = pair_warnings(passed_by(model, mlp()))

    assert any("of 1 pair, 'x/DQ' the first" in warning for warning in warnings) is is_told


def test_a_reference_that_is_quantised_is_refused():
    with pytest.raises(ModelError, match=r"quantised itself: 'x/DQ' is the first of 2 pairs"):
        passed_by(mlp_pairs(), mlp_pairs())


def test_fp8_knows_no_zero_point():
    model = mlp_pairs(kind=FP8, granularity="tensor")
    replaced(model, "x_zero", helper.make_tensor("x_zero", FP8, (), [1.0]))

    with pytest.raises(ModelError, match="not 0, which FLOAT8E4M3FN does not know"):
        passed_by(model, mlp())


def test_a_reference_with_other_outputs_is_refused():
    other = mlp()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "z"

    with pytest.raises(ModelError, match=r"another model .* outputs are \['z'\] and \['y'\]"):
        passed_by(mlp_pairs(), other)


def test_a_reference_without_the_constants_is_refused():
    other = build_model(
        [node("Gemm", ["x", "w"], "y", name="/other")],
        [tensor("x", [32, 16])],
        [tensor("y", [32, 8])],
        {"w": normal(1, 16, 8)},
    )

    with pytest.raises(ModelError, match="none of the 3 constants that are stored quantised"):
        passed_by(mlp_pairs(), other)


def test_a_model_with_stored_constants_alone_needs_a_reference():
    model = quantised(mlp(), mlp_inputs(), ops={"MatMul"})
    for one in list(model.graph.node):
        if one.name in {"x/Q", "x/DQ", "r/Q", "r/DQ"}:
            model.graph.node.remove(one)
        elif one.op_type == "MatMul":
            one.input[0] = {"x_DequantizeLinear_Output": "x"}.get(one.input[0], "r")

    with pytest.raises(ModelError, match=r"Give the float model .* with `--reference`"):
        passed_by(model)
    assert len(passed_by(model, mlp()).units) == 3


def test_weights_of_the_reference_stay_on_disk(tmp_path):
    save_with_external_data(mlp(), tmp_path / "float.onnx")

    graph = pass_pairs_by(load_graph(mlp_pairs()), load_graph(tmp_path / "float.onnx"))

    assert graph.weights["wq_DequantizeLinear_Output"].path is not None
    made, inputs = executor_for(graph, QDQ).run(mlp_inputs()), mlp_inputs()
    np.testing.assert_allclose(made["y"], run_whole(mlp(), inputs)["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("with_reference", [True, False], ids=["reference", "alone"])
def test_fp16_around_pairs_is_taken_for_fp32(with_reference):
    reference, inputs = mlp(), mlp_inputs()

    graph = passed_by(in_fp16(mlp_pairs()), reference if with_reference else None)

    executor, planner = executor_for(graph, QDQ), planner_for(graph, QDQ)
    made, lowered = executor.run(inputs), executor.run(inputs, planner.plan())
    assert all(graph.element_type(name) != TensorProto.FLOAT16 for name in graph.types)
    if with_reference:
        expected = run_whole(reference, inputs)["y"]
        np.testing.assert_allclose(made["y"], expected, rtol=1e-5, atol=1e-5)
    whole = run_whole(mlp_pairs(), inputs)["y"]
    assert np.linalg.norm(lowered["y"] - whole) < 0.02 * np.linalg.norm(whole)
    assert len(graph.units) == 2
