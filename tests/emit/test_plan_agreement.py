"""The networks that a script makes have the widths of the plan, tensor by tensor."""

from __future__ import annotations

import contextlib
import functools
import io
import random
from typing import TYPE_CHECKING, Any

import pytest

from polygraphy_layerprec.emit.name_bridge import LayerConstraint
from polygraphy_layerprec.emit.network_rewriter import constrain_network
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.plan import KeptLayers, Planner
from polygraphy_layerprec.plan.network_widths import network_widths
from polygraphy_layerprec.precision import PRECISIONS
from tests.emit.networks import MODELS
from tests.emit.onnx_zoo import ZOO
from tests.random_graphs import random_model

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.records import NetworkWidths
    from tests.emit.conftest import Tensorrt

pytestmark = pytest.mark.trt

BUILDERS: dict[str, Callable[[], onnx.ModelProto]] = {**ZOO, **MODELS}
TYPES = {"fp16": "HALF", "bf16": "BF16"}
NEVER_KEPT = {"Attention"}
"""Operators that TensorRT-RTX has in low precision only, which the script says."""


@functools.cache
def graph_of(name: str) -> Graph:
    return load_graph(BUILDERS[name]())


def constraint_of(node: Node) -> LayerConstraint:
    trace = node.trace if node.path else ()
    return LayerConstraint(
        node.proto.name, node.op_type, node.inputs, node.outputs, "a test", trace
    )


def types_in(network: Any) -> dict[str, str]:
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    outputs = [layer.get_output(i) for layer in layers for i in range(layer.num_outputs)]
    return {tensor.name: tensor.dtype.name for tensor in outputs}


def rewritten_types(
    tensorrt: Tensorrt, model: onnx.ModelProto, graph: Graph, precision: str, kept: list[Node]
) -> tuple[NetworkWidths, dict[str, str]]:
    """Returns the plan's widths in the network, and the types in it once it is rewritten."""
    plan = Planner(graph, PRECISIONS[precision]).plan(KeptLayers.of_nodes(kept))
    widths = network_widths(plan)
    parsed = tensorrt.parse(model)
    with contextlib.redirect_stdout(io.StringIO()):
        constrain_network(
            parsed.network,
            [constraint_of(node) for node in kept],
            precision=precision,
            left=[
                LayerConstraint(c.name, c.op, c.inputs, c.outputs, c.reason, c.trace)
                for c in widths.left
            ],
            fp32_tensors=widths.fp32_tensors,
            low_tensors=widths.low_tensors,
        )
    return widths, types_in(parsed.network)


def differing(
    graph: Graph, widths: NetworkWidths, types: dict[str, str], precision: str
) -> dict[str, tuple[str, str]]:
    """Returns the types of tensors that are not the plan's, with what the plan says."""
    return {
        tensor: (types[tensor], wanted)
        for tensors, wanted in (
            (widths.fp32_tensors, "FLOAT"),
            (widths.low_tensors, TYPES[precision]),
        )
        for tensor in tensors
        if tensor in types and tensor not in graph.outputs and types[tensor] != wanted
    }


def is_parsed(tensorrt: Tensorrt, name: str) -> bool:
    try:
        tensorrt.parse(BUILDERS[name]())
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_network_has_the_widths_of_the_plan(name, share, precision, tensorrt):
    if not is_parsed(tensorrt, name):
        pytest.skip("TensorRT's parser takes no such model")
    graph = graph_of(name)
    layers = [node for node in graph.layers if node.op_type not in NEVER_KEPT]
    kept = random.Random(0).sample(layers, round(len(layers) * share))

    widths, types = rewritten_types(tensorrt, BUILDERS[name](), graph, precision, kept)

    assert differing(graph, widths, types, precision) == {}
    assert types


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(30))
def test_networks_of_random_models_have_the_widths_of_the_plan(seed, share, precision, tensorrt):
    model = random_model(seed)
    graph = load_graph(model)
    kept = random.Random(seed).sample(graph.layers, round(len(graph.layers) * share))

    widths, types = rewritten_types(tensorrt, model, graph, precision, kept)

    assert differing(graph, widths, types, precision) == {}
    assert types.keys() & {*widths.fp32_tensors, *widths.low_tensors}
