"""From ONNX nodes to TensorRT layers, whatever they are called."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.emit.name_bridge import LayerConstraint, shorten
from polygraphy_layerprec.emit.network_rewriter import constrain_network
from polygraphy_layerprec.emit.network_view import NetworkError
from tests.emit.networks import MODELS, make_model

pytestmark = pytest.mark.trt

HOSTILE_NAMES = {
    "single quote": "it's",
    "double quotes": 'a"b"""c',
    "code": '"); import os; os.system("touch pwned"); ("',
    "newline": "a\nb\r\nc",
    "backslashes": "a\\b\\\\n\\",
    "braces": "{0} {name!r} {{}} %s %(x)s",
    "unicode": "слой/层/🧨/e\u0301/\u202egnp",
    "long": "n" * 2000,
    "metadata lookalike": "[ONNX Layer: other | x]",
    "blank": " ",
    "comment": "# x */ --> '''",
}


def chain(names, *, tensors=None):
    """A chain of two MatMuls, `names` long, whose nodes have these names."""
    tensors = tensors or [f"t{index}" for index in range(len(names))]
    nodes, previous = [], "x"
    for name, tensor in zip(names, tensors, strict=True):
        nodes.append(onnx.helper.make_node("MatMul", [previous, "w"], [tensor], name=name))
        previous = tensor
    model = make_model("(float[4,4] x) => (float[4,4] y) { y = Exp (x) }", "w[4,4]")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.output[0].name = previous
    return model


def kept_tensors(network):
    """Names of the outputs of the matrix products that are in FP32."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    outputs = [x.get_output(0) for x in layers if x.type.name == "MATRIX_MULTIPLY"]
    return {tensor.name for tensor in outputs if tensor.dtype.name == "FLOAT"}


def constrain(tensorrt, model, constraints, **options):
    parsed = tensorrt.parse(model)
    summary = constrain_network(parsed.network, constraints, precision="fp16", **options)
    assert tensorrt.build(parsed) is not None
    return parsed.network, summary


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_hostile_names_of_nodes_and_tensors_match(tensorrt, constraints_of, name):
    model = chain(["first", name, "last"], tensors=["t0", f"{name}_tensor", "y"])
    constraint = constraints_of(model)[1]

    network, summary = constrain(tensorrt, model, [constraint])

    assert kept_tensors(network) == {f"{name}_tensor"}
    assert "1 of 1 constraints matched (1 by tensor names)" in summary


def test_names_that_differ_only_in_case_are_different(tensorrt, constraints_of):
    model = chain(["Layer", "layer", "LAYER"], tensors=["Tensor", "tensor", "TENSOR"])

    network, _ = constrain(tensorrt, model, constraints_of(model)[1:2])

    assert kept_tensors(network) == {"tensor"}


def test_nodes_of_the_same_name_are_told_apart_by_their_tensors(tensorrt, constraints_of):
    model = chain(["same", "same", "same_0", "same"])

    network, _ = constrain(tensorrt, model, constraints_of(model)[1:2])

    assert kept_tensors(network) == {"t1"}


def test_nodes_without_names_are_found_by_their_tensors(tensorrt, constraints_of):
    model = chain(["", "", ""])

    network, _ = constrain(tensorrt, model, constraints_of(model)[1:2])

    assert kept_tensors(network) == {"t1"}


def test_a_node_whose_tensors_are_not_in_the_network_is_found_by_metadata(tensorrt):
    lost = LayerConstraint("second", "MatMul", ("t0",), ("renamed",), "a test")

    network, summary = constrain(tensorrt, chain(["first", "second", "third"]), [lost])

    assert kept_tensors(network) == {"t1"}
    assert "1 by metadata" in summary


def test_without_metadata_the_layer_name_is_taken(tensorrt):
    # Constants have no metadata, and no ONNX name on their tensors.
    lost = LayerConstraint("w", "Constant", (), ("gone",), "a test")

    _, summary = constrain(tensorrt, chain(["first"]), [lost])

    assert "1 by layer names" in summary


def test_a_constraint_that_matches_nothing_names_the_nearest_and_changes_nothing(tensorrt):
    parsed = tensorrt.parse(chain(["encoder/first", "encoder/second"]))
    lost = LayerConstraint("encoder/secand", "MatMul", ("t0",), ("gone",), "a test")

    with pytest.raises(NetworkError) as caught:
        constrain_network(parsed.network, [lost], precision="fp16")

    assert "1 of 1 constraints match no layer" in str(caught.value)
    assert "'encoder/secand' of type 'MatMul'; nearest in the network: 'encoder/second'" in str(
        caught.value
    )
    assert kept_tensors(parsed.network) == {"t0", "t1"}


def test_a_constraint_that_matches_nothing_may_be_a_warning(tensorrt, capsys):
    lost = LayerConstraint("lost", "MatMul", (), ("gone",), "a test")

    _, summary = constrain(tensorrt, chain(["a"]), [lost], allow_unmatched=True)

    assert "0 of 1 constraints matched (none), 1 unmatched" in summary
    assert "Warning: 1 of 1 constraints match no layer" in capsys.readouterr().out


def test_an_empty_constraint_matches_nothing(tensorrt):
    empty = LayerConstraint("", "MatMul", ("",), ("",), "a test")

    with pytest.raises(NetworkError, match="match no layer"):
        constrain(tensorrt, chain(["", ""]), [empty])


def test_all_layers_between_outputs_and_inputs_belong_to_a_node(tensorrt, constraints_of):
    model = MODELS["mlp"]()  # Gemm becomes a product and a sum
    parsed = tensorrt.parse(model)

    summary = constrain_network(parsed.network, constraints_of(model)[2:], precision="fp16")

    layers = [parsed.network.get_layer(i) for i in range(parsed.network.num_layers)]
    second = [x for x in layers if x.metadata == "[ONNX Layer: Gemm_y]"]
    assert {x.type.name for x in second} == {"MATRIX_MULTIPLY", "ELEMENTWISE"}
    assert all(x.get_output(0).dtype.name == "FLOAT" for x in second)
    assert "1 of 1 constraints matched" in summary


def test_a_node_keeps_no_layers_of_the_nodes_before_it(tensorrt):
    model = chain(["first", "second", "third"])
    # As after a pass that renamed the tensor between the nodes.
    constraint = LayerConstraint("third", "MatMul", ("renamed", "w"), ("t2",), "a test")

    network, _ = constrain(tensorrt, model, [constraint])

    assert kept_tensors(network) == {"t2"}


@pytest.mark.parametrize(
    ("name", "operator", "kept", "lowered"),
    [
        ("loop", "Loop", {"Mul_grown", "Add_next", "Sub_seen"}, {"Mul_s", "Exp_u", "Add_y"}),
        ("scan", "Scan", {"Add_sum", "Mul_next", "Add_seen"}, {"Mul_s", "Mul_r"}),
        ("if", "If", {"Add_a", "Mul_b", "Mul_d", "Exp_e", "Mul_f"}, {"Exp_extra", "Add_y"}),
        ("lstm", "LSTM", {"LSTM_y"}, {"Mul_s", "Mul_z"}),
    ],
)
def test_a_node_with_a_body_keeps_the_body_and_not_what_it_captures(
    tensorrt, constraints_of, name, operator, kept, lowered
):
    model = MODELS[name]()
    constraint = next(c for c in constraints_of(model) if c.op == operator)

    network, _ = constrain(tensorrt, model, [constraint])

    types = {}
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        node = layer.metadata.removeprefix("[ONNX Layer: ").removesuffix("]").split(" | ")[0]
        if layer.type.name in ("ELEMENTWISE", "UNARY", "MATRIX_MULTIPLY", "ACTIVATION"):
            types.setdefault(node, set()).add(layer.get_output(0).dtype.name)
    assert all(types[node] == {"FLOAT"} for node in kept)
    assert all(types[node] == {"HALF"} for node in lowered)


@settings(max_examples=20)
@given(name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_any_unicode_name_matches(tensorrt, constraints_of, name):
    model = chain(["first", name])

    network, _ = constrain(tensorrt, model, constraints_of(model)[1:])

    assert kept_tensors(network) == {"t1"}


def test_many_lost_constraints_are_counted_and_the_first_ones_described(tensorrt):
    lost = [LayerConstraint(f"lost {i}", "MatMul", (), (f"gone {i}",), "") for i in range(30)]

    with pytest.raises(NetworkError, match=r"'lost 9' of type 'MatMul'.*\n  and 20 more$"):
        constrain(tensorrt, chain(["a"]), lost)


def test_long_names_are_shortened_to_a_line():
    assert shorten("n" * 10_000) == repr("n" * 77 + "...")
    assert shorten("a\nbß") == "'a\\nb\\xdf'"
