"""What a network says about the layers of the model, with networks of the real TensorRT-RTX."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.backend.engines.obtained import network_types
from polygraphy_layerprec.backend.engines.obtained.network_types import read_network_types
from polygraphy_layerprec.backend.engines.obtained.precisions import AskedLayer
from polygraphy_layerprec.emit.name_bridge import as_layer_constraints
from polygraphy_layerprec.emit.network_rewriter import constrain_network
from polygraphy_layerprec.records import Constraint
from tests.emit.conftest import Tensorrt
from tests.emit.networks import make_model

pytestmark = pytest.mark.trt


@pytest.fixture(scope="module")
def tensorrt() -> Tensorrt:
    return Tensorrt(pytest.importorskip("tensorrt_rtx", reason="needs the TensorRT-RTX builder"))


def asked_layer(*node) -> AskedLayer:
    return AskedLayer(Constraint(*node, "a test"), in_fp32=True)


def asked(model, *names: str) -> list[AskedLayer]:
    nodes = {node.name: node for node in model.graph.node}
    return [
        asked_layer(n, nodes[n].op_type, tuple(nodes[n].input), tuple(nodes[n].output))
        for n in names
    ]


def keep(parsed, *layers: AskedLayer) -> None:
    constraints = as_layer_constraints(layer.node for layer in layers)
    constrain_network(parsed.network, constraints, precision="fp16")


def test_a_layer_between_casts_is_in_fp32_and_those_around_it_are_not(tensorrt):
    model = make_model(
        """(float[2,4] x) => (float[2,4] y) {
            a = Exp(x)
            n = LayerNormalization(a, s, b)
            y = Gemm(n, w)
        }""",
        "s[4] b[4] w[4,4]",
    )
    layers = asked(model, "Exp_a", "LayerNormalization_n", "Gemm_y")
    parsed = tensorrt.parse(model)
    keep(parsed, layers[1])

    found = read_network_types(parsed.network, layers)

    assert [found[i].widths for i in range(3)] == [{"low"}, {"fp32"}, {"low"}]
    assert [found[i].nodes for i in range(3)] == [{layer.node.name} for layer in layers]


def test_an_input_that_the_script_replaced_is_not_taken_for_the_layer(tensorrt):
    model = make_model(
        """(float[2,4] x) => (float[2,4] y) {
            a = Exp(x)
            q = QuantizeLinear(a, scale)
            d = DequantizeLinear(q, scale)
            y = MatMul(d, w)
        }""",
        "w[4,4]",
        {"scale": np.array(0.1, np.float32)},
        opset=19,
    )
    (layer,) = asked(model, "MatMul_y")
    parsed = tensorrt.parse(model)
    keep(parsed, layer)

    assert read_network_types(parsed.network, [layer])[0].widths == {"fp32"}


def test_nodes_of_a_branch_are_named_with_where_they_are(tensorrt):
    model = make_model(
        """(float[2,4] x, bool c) => (float[2,4] y) {
            b = If (c) <
                then_branch = then () => (float[2,4] t) { t = Exp(x) },
                else_branch = else () => (float[2,4] e) { e = Tanh(x) }
            >
            y = Sigmoid(b)
        }"""
    )
    layers = [asked_layer("Exp_t", "Exp", ("x",), ("t",))]

    found = read_network_types(tensorrt.parse(model).network, layers)

    (node,) = found[0].nodes
    assert node.startswith("Exp_t | then")


def test_types_say_nothing_where_the_builder_chooses(tensorrt, monkeypatch):
    model = make_model("(float[2,4] x) => (float[2,4] y) { y = Exp(x) }")
    monkeypatch.setattr(network_types, "is_strongly_typed", lambda *_: False)

    found = read_network_types(tensorrt.parse(model).network, asked(model, "Exp_y"))

    assert found[0].widths == set()


def test_what_the_network_lacks_is_left_unknown(tensorrt):
    model = make_model("(float[2,4] x) => (float[2,4] y) { y = Exp(x) }")
    layers = [asked_layer("other", "Exp", ("x",), ("z",))]

    found = read_network_types(tensorrt.parse(model).network, layers)

    assert (found[0].nodes, found[0].widths) == (set(), set())
