"""The rewriter on real networks: every construct, with the real TensorRT-RTX builder."""

from __future__ import annotations

import gc
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.emit.network_rewriter import constrain_network
from polygraphy_layerprec.emit.network_view import NetworkError
from tests.emit.networks import MODELS, make_model

pytestmark = pytest.mark.trt

NOT_BUILDABLE = {"non_maximum_suppression"}
"""Models that TensorRT-RTX parses but does not build, as they are, for want of a GPU plugin."""

FREELY_CONSTRAINED = sorted(MODELS.keys() - {"attention"})
"""Models of which every node can be kept in FP32."""

ROUNDING = {
    *("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "ELEMENTWISE", "SOFTMAX"),
    *("SCALE", "NORMALIZATION", "LRN", "RESIZE", "CUMULATIVE", "GRID_SAMPLE"),
    *("PARAMETRIC_RELU", "ROTARY_EMBEDDING"),
}
"""Types of layers that are always lowered, other than those that depend on an attribute."""

TYPED_OTHERWISE = {
    "casts": {"Mul_hh"},  # in FP16 in the model itself
    "float_shape_arithmetic": {"Mul_g", "Floor_i"},
    "resize_by_computed_scales": {"Div_g", "Resize_u"},
}
"""Nodes whose type is not for the rewriter to say: most compute shapes in floating point."""

WITH_BODIES = {"If", "Loop", "Scan", "scaled"}
"""Operators that keep layers of other nodes as well."""


def layers_of(network):
    return [network.get_layer(index) for index in range(network.num_layers)]


def types_of(layer):
    tensors = [layer.get_input(index) for index in range(layer.num_inputs)]
    tensors += [layer.get_output(index) for index in range(layer.num_outputs)]
    return {tensor.dtype.name for tensor in tensors if tensor is not None}


def result_types_of(layer):
    return {layer.get_output(index).dtype.name for index in range(layer.num_outputs)}


def outputs_of(network):
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return [(output.name, output.dtype.name) for output in outputs]


def inputs_of(network):
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return [(tensor.name, tensor.dtype.name) for tensor in inputs]


def node_of(layer):
    return layer.metadata.removeprefix("[ONNX Layer: ").removesuffix("]").split(" | ")[0]


def casts_of(network):
    return [layer for layer in layers_of(network) if layer.name.startswith("layerprec_cast")]


def check_types(network, name, constraints, precision, left=()):
    """Every layer of a kept node is in FP32, and every other one that rounds is not.

    Nodes named in `left` are in FP32 by a rule.
    """
    kept = {constraint.name for constraint in constraints}
    keeps_bodies = any(constraint.op in WITH_BODIES for constraint in constraints)
    for layer in layers_of(network):
        node, kind, types = node_of(layer), layer.type.name, types_of(layer)
        if not node or kind not in ROUNDING or (kind, precision) == ("DECONVOLUTION", "bf16"):
            continue
        if node in TYPED_OTHERWISE.get(name, ()) or node in left:
            continue
        if not result_types_of(layer) & {"FLOAT", "HALF", "BF16"}:
            continue  # a comparison takes what it gets
        if node in kept:
            assert not types & {"HALF", "BF16"}, f"{layer.name} was to be kept"
        elif not keeps_bodies:
            assert "FLOAT" not in types, f"{layer.name} was to be lowered"


def check(tensorrt, name, constraints, precision="fp16"):
    parsed = tensorrt.parse(MODELS[name]())
    interface = inputs_of(parsed.network), outputs_of(parsed.network)

    summary = constrain_network(parsed.network, constraints, precision=precision)

    check_types(parsed.network, name, constraints, precision)
    assert (inputs_of(parsed.network), outputs_of(parsed.network)) == interface
    if name not in NOT_BUILDABLE:
        assert tensorrt.build(parsed) is not None
    return parsed.network, summary


@pytest.mark.parametrize("name", sorted(MODELS))
def test_without_constraints_everything_is_lowered_and_builds(tensorrt, name):
    network, summary = check(tensorrt, name, [])

    assert any("HALF" in types_of(layer) for layer in layers_of(network))
    assert "0 layers kept" in summary


@pytest.mark.parametrize("name", sorted(MODELS))
def test_bf16_builds_as_well(tensorrt, name):
    network, _ = check(tensorrt, name, [], precision="bf16")

    assert name == "deconvolution" or any("BF16" in types_of(x) for x in layers_of(network))


@pytest.mark.parametrize("name", FREELY_CONSTRAINED)
def test_with_every_layer_constrained_all_stays_in_fp32(tensorrt, constraints_of, name):
    constraints = constraints_of(MODELS[name]())
    before = Counter(str(types_of(x)) for x in layers_of(tensorrt.parse(MODELS[name]()).network))

    network, summary = check(tensorrt, name, constraints)

    assert f"{len(constraints)} of {len(constraints)} constraints matched" in summary
    assert Counter(str(types_of(x)) for x in layers_of(network)) == before
    assert not casts_of(network)


@pytest.mark.parametrize("name", FREELY_CONSTRAINED)
def test_random_sets_of_constraints_build(tensorrt, constraints_of, name):
    constraints = constraints_of(MODELS[name]())
    chosen = random.Random(name).sample(constraints, (len(constraints) + 1) // 2)

    _, summary = check(tensorrt, name, chosen)

    assert f"{len(chosen)} of {len(chosen)} constraints matched" in summary


@settings(max_examples=60)
@given(data=st.data(), name=st.sampled_from(FREELY_CONSTRAINED))
def test_any_set_of_constraints_builds(tensorrt, constraints_of, data, name):
    constraints = constraints_of(MODELS[name]())
    chosen = data.draw(st.lists(st.sampled_from(constraints), unique=True))

    _, summary = check(tensorrt, name, chosen)

    assert f"{len(chosen)} of {len(chosen)} constraints matched" in summary


def test_one_cast_serves_all_consumers_of_a_tensor(tensorrt):
    model = make_model(
        """(float[4,4] x) => (float[4,4] y) {
            a = MatMul (x, w)
            b = MatMul (x, v)
            c = Mul (x, x)
            y = Sum (a, b, c)
        }""",
        "w[4,4] v[4,4]",
    )
    parsed = tensorrt.parse(model)

    summary = constrain_network(parsed.network, [], precision="fp16")

    assert "2 casts inserted" in summary  # one of the input, one of the output
    assert len(casts_of(parsed.network)) == 2


def test_layers_that_do_not_round_need_no_cast(tensorrt, constraints_of):
    model = make_model(
        """(float[1,4,4,4] x) => (float[4,16] y) {
            a = Conv (x, k)
            b = Relu (a)
            c = MaxPool <kernel_shape=[1,1]> (b)
            d = Transpose <perm=[1,0,2,3]> (c)
            y = Flatten (d)
        }""",
        "k[4,4,1,1]",
    )
    parsed = tensorrt.parse(model)

    constrain_network(parsed.network, constraints_of(model)[:1], precision="fp16")

    assert not casts_of(parsed.network)
    assert all("HALF" not in types_of(layer) for layer in layers_of(parsed.network))


@pytest.mark.parametrize(
    "joined",
    [
        "j = Concat <axis=0> (a, b)",
        "j = Where (c, a, b)",
        "j = Where (c, a, w)",
        "j = ScatterElements (a, i, b)",
        "r = ReduceMax <axes=[1], keepdims=1> (a)  j = Expand (r, shape)",
        "r = Neg (a)  f = Floor (r)  j = Abs (f)",
        "o = OneHot <axis=1> (k, depth, v)  j = Concat <axis=0> (o, a)",
    ],
)
def test_what_joins_fp32_layers_without_rounding_stays_in_fp32(tensorrt, constraints_of, joined):
    text = f"""(float[4,4] x, bool[4,4] c, int64[4,4] i, int64[4] k) => (float[n,4] y) {{
        a = Exp (x)
        b = Tanh (x)
        {joined}
        y = Exp (j)
    }}"""
    arrays = {"shape": np.array([4, 4]), "depth": np.array(4), "v": np.array([0, 1], np.float32)}
    model = make_model(text, "w[4]", arrays, opset=13)
    kept = [c for c in constraints_of(model) if c.op in ("Exp", "Tanh")]
    parsed = tensorrt.parse(model)

    summary = constrain_network(parsed.network, kept, precision="fp16")

    assert "0 casts inserted" in summary
    assert all("HALF" not in types_of(layer) for layer in layers_of(parsed.network))
    assert tensorrt.build(parsed) is not None


@pytest.mark.parametrize(
    ("names", "expected", "casts"),
    [
        ((), "HALF", 2),  # the input, and the output
        (("Exp_a", "Tanh_b"), "FLOAT", 2),  # behind it, and the output
        (("Exp_a",), "HALF", 3),  # the input for Tanh, one of the two before it, and the output
        (("Exp_a", "Exp_y"), "FLOAT", 2),  # the input for Tanh, and its output
    ],
)
def test_a_concatenation_is_cast_as_little_as_can_be(
    tensorrt, constraints_of, names, expected, casts
):
    model = make_model(
        """(float[4,4] x) => (float[8,4] y) {
            a = Exp (x)
            b = Tanh (x)
            j = Concat <axis=0> (a, b)
            y = Exp (j)
        }"""
    )
    chosen = [c for c in constraints_of(model) if c.name in names]
    parsed = tensorrt.parse(model)

    summary = constrain_network(parsed.network, chosen, precision="fp16")

    joint = next(x for x in layers_of(parsed.network) if x.type.name == "CONCATENATION")
    assert types_of(joint) == {expected}
    assert f"{casts} casts inserted" in summary
    assert tensorrt.build(parsed) is not None


def test_casts_are_not_shared_between_branches(tensorrt):
    network, _ = check(tensorrt, "if", [])
    users = Counter()
    for layer in layers_of(network):
        for source in {layer.get_input(i).name for i in range(layer.num_inputs)}:
            if source.startswith("layerprec_cast"):
                users[source, " | ".join(layer.metadata.split(" | ")[1:])] += 1
    branches = Counter(source for source, branch in users if "_branch" in branch)

    assert all(count == 1 for count in branches.values())


def test_layers_of_unknown_types_stay_in_fp32_and_are_reported(tensorrt):
    network, summary = check(tensorrt, "non_maximum_suppression", [])
    nms = next(layer for layer in layers_of(network) if layer.type.name == "NMS")

    assert "left in FP32 by type: NMS 1" in summary
    assert "HALF" not in types_of(nms)


def test_shape_arithmetic_in_floating_point_stays_in_fp32(tensorrt):
    network, summary = check(tensorrt, "float_shape_arithmetic", [])
    arithmetic = [x for x in layers_of(network) if node_of(x) in ("Mul_g", "Floor_i", "Cast_k")]

    assert "shape arithmetic 5" in summary
    assert len(arithmetic) == 3
    assert all("HALF" not in types_of(layer) for layer in arithmetic)


HELD_INPUTS = {"fill", "float_shape_arithmetic", "if", "layer_normalization", "mlp", "nested_if"}
HELD_INPUTS |= {"resize_by_computed_scales", "two_lstms"}
"""Models with inputs that TensorRT-RTX cannot replace: of dynamic shape, or scalars."""


@pytest.mark.parametrize("name", sorted(MODELS))
def test_low_precision_inputs_and_outputs_are_given_on_request(tensorrt, constraints_of, name):
    constraints = constraints_of(MODELS[name]()) if name in FREELY_CONSTRAINED else []
    for chosen in ([], constraints, random.Random(name).sample(constraints, len(constraints) // 2)):
        parsed = tensorrt.parse(MODELS[name]())
        inputs, outputs = inputs_of(parsed.network), outputs_of(parsed.network)

        summary = constrain_network(parsed.network, chosen, precision="fp16", io_precision="low")

        assert inputs_of(parsed.network) == (inputs if name in HELD_INPUTS else lowered(inputs))
        assert outputs_of(parsed.network) == lowered(outputs)
        assert ("inputs stay in FP32, since" in summary) == (name in HELD_INPUTS)
        assert name in NOT_BUILDABLE or tensorrt.build(parsed) is not None


def lowered(tensors):
    return [(name, "HALF" if dtype == "FLOAT" else dtype) for name, dtype in tensors]


def test_inputs_that_hold_their_type_are_named_and_outputs_are_lowered(tensorrt):
    parsed = tensorrt.parse(MODELS["mlp"]())

    summary = constrain_network(parsed.network, [], precision="fp16", io_precision="low")

    assert "; 0 inputs and 1 outputs in fp16; inputs stay in FP32, since this" in summary
    assert "scalars and shape tensors, here 'x';" in summary


def test_an_input_that_decides_a_shape_holds_the_type_of_those_before_it(tensorrt):
    text = """(float[4,4] x, int64[2] s) => (float[a,b] y) { e = Exp (x)
                                                            y = Reshape (e, s) }"""
    swapped = text.replace("float[4,4] x, int64[2] s", "int64[2] s, float[4,4] x")

    found = []
    for model in (make_model(text), make_model(swapped)):
        network = tensorrt.parse(model).network
        constrain_network(network, [], precision="fp16", io_precision="low")
        found.append(inputs_of(network))

    assert found == [
        [("x", "FLOAT"), ("s", "INT64")],
        [("s", "INT64"), ("x", "HALF")],
    ]


def test_inputs_keep_their_order_and_what_is_not_float_keeps_its_type(tensorrt):
    model = make_model(
        """(int64[3] i, float[3,4] x, bool[3,4] c, float[3,4] z) => (float[3,4] y) {
            g = Gather (x, i)
            y = Where (c, g, z)
        }"""
    )
    parsed = tensorrt.parse(model)

    summary = constrain_network(parsed.network, [], precision="fp16", io_precision="low")

    expected = [("i", "INT64"), ("x", "HALF"), ("c", "BOOL"), ("z", "HALF")]
    assert inputs_of(parsed.network) == expected
    assert "0 casts inserted" in summary
    assert "; 2 inputs and 1 outputs in fp16; " in summary
    assert tensorrt.build(parsed) is not None


def test_an_fp16_input_is_cast_where_an_fp32_layer_reads_it(tensorrt, constraints_of):
    model = make_model(
        """(float[4,4] x) => (float[4,4] y) {
            a = Exp (x)
            b = Tanh (x)
            y = Add (a, b)
        }"""
    )
    parsed = tensorrt.parse(model)

    constrain_network(
        parsed.network, constraints_of(model)[:1], precision="fp16", io_precision="low"
    )

    exp, tanh = layers_of(parsed.network)[:2]
    assert exp.get_input(0).dtype.name == "FLOAT"
    assert tanh.get_input(0).name == "x"
    assert tensorrt.build(parsed) is not None


def test_fp32_attention_is_refused_before_anything_changes(tensorrt, constraints_of):
    model = MODELS["attention"]()
    parsed = tensorrt.parse(model)
    before = [types_of(layer) for layer in layers_of(parsed.network)]

    with pytest.raises(NetworkError, match="attention layers have no FP32 implementation"):
        constrain_network(parsed.network, constraints_of(model), precision="fp16")

    assert [types_of(layer) for layer in layers_of(parsed.network)] == before


def test_fp32_attention_is_lowered_with_a_warning_where_that_is_allowed(
    tensorrt, constraints_of, capsys
):
    model = MODELS["attention"]()
    parsed = tensorrt.parse(model)

    constrain_network(parsed.network, constraints_of(model), precision="fp16", allow_unmatched=True)

    assert "Warning: attention layers have no FP32" in capsys.readouterr().out
    assert tensorrt.build(parsed) is not None


def test_constants_that_vanish_are_named(tensorrt, capsys):
    check(tensorrt, "decomposed_normalization", [])

    assert "every value of 'eps' (weights) becomes 0 in fp16" in capsys.readouterr().out


def test_layers_are_left_as_they_were_handed_out(tensorrt):
    parsed = tensorrt.parse(MODELS["cnn"]())
    held = layers_of(parsed.network)

    constrain_network(parsed.network, [], precision="fp16")

    assert all(isinstance(layer.type, tensorrt.module.LayerType) for layer in held)


def test_dequantization_keeps_its_zero_point(tensorrt):
    before = tensorrt.parse(MODELS["quantized_per_tensor"]()).network
    network, _ = check(tensorrt, "quantized_per_tensor", [])

    counts = [x.num_inputs for x in layers_of(before) if x.type.name == "DEQUANTIZE"]
    lowered = [
        layer
        for layer in layers_of(network)
        if layer.type.name == "DEQUANTIZE" and layer.get_output(0).dtype.name == "HALF"
    ]
    assert [layer.num_inputs for layer in lowered] == counts == [3, 3, 3]


def test_scales_of_blocks_serve_both_precisions(tensorrt, constraints_of):
    model = MODELS["quantized_in_blocks"]()
    constraints = [c for c in constraints_of(model) if c.name == "DequantizeLinear_d"]

    network, _ = check(tensorrt, "quantized_in_blocks", constraints)

    pairs = {
        (layer.get_input(1).dtype.name, layer.get_output(0).dtype.name)
        for layer in layers_of(network)
        if layer.type.name == "DEQUANTIZE"
    }
    assert pairs == {("FLOAT", "FLOAT"), ("HALF", "HALF")}


def test_what_a_loop_reads_is_cast_before_it(tensorrt, constraints_of):
    # TensorRT-RTX 1.7 refuses a cast right behind the iterator of this second loop.
    model = MODELS["two_lstms"]()
    names = {"LSTM_y", "Mul_s", "Squeeze_y2"}
    constraints = [c for c in constraints_of(model) if c.name in names]

    network, _ = check(tensorrt, "two_lstms", constraints)

    iterators = [layer for layer in layers_of(network) if layer.type.name == "ITERATOR"]
    assert [str(types_of(layer)) for layer in iterators] == ["{'FLOAT'}", "{'HALF'}"]


def test_back_edges_of_loops_are_connected_last(tensorrt):
    network, _ = check(tensorrt, "lstm", [])
    layers = layers_of(network)
    order = [layer.get_output(0).name for layer in casts_of(network)]
    outputs = {name for name, _ in outputs_of(network)}
    edges = {layer.get_input(1).name for layer in layers if layer.type.name == "RECURRENCE"}

    within = [name for name in order if name not in outputs]
    assert set(within[-2:]) == edges & set(within)
    assert len(edges & set(within)) == 2


def test_a_constant_that_is_an_output_is_not_rounded(tensorrt):
    network, _ = check(tensorrt, "constant_output", [])
    constants = [layer for layer in layers_of(network) if layer.type.name == "CONSTANT"]

    assert [str(types_of(layer)) for layer in constants] == ["{'FLOAT'}"]


def test_an_output_name_that_is_taken_is_not_used_twice(tensorrt):
    model = make_model(
        "(float[4] x) => (float[4] y) { y_fp16 = Exp (x) y = Exp (y_fp16) }",
    )
    parsed = tensorrt.parse(model)

    constrain_network(parsed.network, [], precision="fp16")

    names = [x.get_output(0).name for x in layers_of(parsed.network)]
    assert sorted(names) == sorted(set(names))
    assert outputs_of(parsed.network) == [("y", "FLOAT")]


def test_what_is_not_a_network_is_refused():
    with pytest.raises(NetworkError, match="must be a TensorRT network, got 'dict'"):
        constrain_network({}, [], precision="fp16")


def test_converted_weights_are_in_the_engine_and_fp32_ones_are_not(tensorrt):
    matrix = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    model = make_model(
        "(float[4,64] x) => (float[4,64] y) { y = MatMul (x, w) }", arrays={"w": matrix}
    )
    plain = tensorrt.build(tensorrt.parse(model))
    parsed = tensorrt.parse(model)

    constrain_network(parsed.network, [], precision="fp16")
    gc.collect()  # nothing that the network points to may go
    noise = [np.full(matrix.shape, 7.0, np.float16) for _ in range(100)]
    engine = tensorrt.build(parsed)

    assert noise
    assert holds(plain, matrix)
    assert holds(engine, matrix.astype(np.float16))
    assert not holds(engine, matrix)


def holds(engine: bytes, matrix) -> bool:
    return any(bytes(m) in engine for m in (matrix.tobytes(), np.ascontiguousarray(matrix.T)))


def test_weights_shared_by_both_precisions_stay_in_fp32(tensorrt, constraints_of):
    model = MODELS["shared_weights"]()
    constraints = [c for c in constraints_of(model) if c.name == "MatMul_b"]

    network, _ = check(tensorrt, "shared_weights", constraints)

    constants = [layer for layer in layers_of(network) if layer.type.name == "CONSTANT"]
    assert {str(types_of(layer)) for layer in constants} >= {"{'FLOAT'}"}
    assert len(casts_of(network)) >= 3


@pytest.mark.parametrize("in_fp32", [(), ("turned",)])
def test_casts_before_kept_products_are_fenced_and_no_others(tensorrt, constraints_of, in_fp32):
    """Of what is kept, one product reads a lowered layer, one by way of a transposition."""
    model = make_model(
        """(float[4,4] x) => (float[4,4] y) {
            h = Exp (x)
            turned = Transpose <perm=[1,0]> (h)
            a = MatMul (h, w)
            b = MatMul (turned, w)
            t = Tanh (x)
            c = Mul (t, w)
            moved = Transpose <perm=[1,0]> (c)
            y = Sum (a, b, moved)
        }""",
        "w[4,4]",
    )
    kept = [c for c in constraints_of(model) if c.op in {"MatMul", "Mul"}]
    parsed = tensorrt.parse(model)

    constrain_network(parsed.network, kept, precision="fp16", fp32_tensors=in_fp32)

    makers = {
        layer.get_output(index).name: layer
        for layer in layers_of(parsed.network)
        for index in range(layer.num_outputs)
    }
    behind = {
        node_of(layer): {
            makers[source.name].name.rstrip("_0123456789")
            for index in range(layer.num_inputs)
            if (source := layer.get_input(index)).name in makers
        }
        for layer in layers_of(parsed.network)
    }
    assert "layerprec_fence" in behind["MatMul_a"]
    assert "layerprec_fence" in behind["Transpose_turned" if in_fp32 else "MatMul_b"]
    assert "layerprec_cast" in behind["Mul_c"]
    assert "layerprec_fence" not in behind["Mul_c"] | behind["Transpose_moved"]
    assert tensorrt.build(parsed) is not None
