"""ONNX's backend suite, saved in low precision and built with the script: all, and half of it."""

from __future__ import annotations

import contextlib
import io
import random
from typing import TYPE_CHECKING

import onnx
import onnxruntime as ort
import pytest

from polygraphy_layerprec.emit.mixed_onnx import lower_model
from polygraphy_layerprec.emit.name_bridge import LayerConstraint
from polygraphy_layerprec.emit.network_rewriter import constrain_network
from polygraphy_layerprec.model import ModelError, load_graph
from polygraphy_layerprec.plan import KeptLayers, Planner
from polygraphy_layerprec.plan.network_widths import network_widths
from polygraphy_layerprec.precision import BF16, FP16
from tests.backend_suite import suite_models

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision
    from polygraphy_layerprec.records import Constraint
    from tests.emit.conftest import Tensorrt

pytestmark = [pytest.mark.trt, pytest.mark.slow]

PARTS = 12
BUILT = 4
"""One in so many models is built; to build is what takes the time."""

CANNOT_BE_RAISED = (
    *("scan", "loop11"),  # the converter passes over bodies
    *("ai_onnx_ml", "adagrad", "adam", "momentum"),  # and over other domains
    "upsample_nearest",  # there is no such operator any more
)
"""Models of opsets without the precision that have to be exported again."""


def rankable_models(part: int) -> Iterator[tuple[str, onnx.ModelProto, Graph]]:
    for suite_model in suite_models()[part::PARTS]:
        try:
            graph = load_graph(suite_model.model)
        except ModelError:
            continue  # sequences and optionals, which cannot be fed
        if graph.layers:
            yield suite_model.name, suite_model.model, graph


def lowered(
    model: onnx.ModelProto, outputs: Collection[str], precision: Precision
) -> onnx.ModelProto | None:
    """Returns the saved model; None where the opset is too old and cannot be raised."""
    try:
        return lower_model(model, outputs, precision=precision)[0]
    except ValueError as error:
        if "cannot raise it: export the model" not in str(error):
            raise
        return None


def cannot_be_raised(name: str) -> bool:
    return any(part in name for part in CANNOT_BE_RAISED)


def half_of(graph: Graph) -> list[Node]:
    return random.Random(0).sample(graph.layers, len(graph.layers) // 2)


def is_valid(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def loads(model: onnx.ModelProto) -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(model.SerializeToString(), options)
    except Exception:  # noqa: BLE001 - ONNX-Runtime's many kinds
        return False
    return True


def is_parsed(tensorrt: Tensorrt, model: onnx.ModelProto) -> bool:
    try:
        tensorrt.parse(model)
    except AssertionError:
        return False
    return True


@pytest.mark.onnxrt
@pytest.mark.parametrize("part", range(PARTS))
def test_what_takes_a_model_takes_the_saved_one(part, tensorrt):
    lost, too_old = [], []
    for name, model, graph in rankable_models(part):
        takers = is_valid(model), loads(model), is_parsed(tensorrt, model)
        for kept in ([], half_of(graph)):
            for precision in (FP16, BF16):
                outputs = KeptLayers.of_nodes(kept).outputs
                mixed = lowered(model, outputs, precision)
                if mixed is None:
                    too_old.append(name)
                    continue
                after = (
                    is_valid(mixed),
                    precision is BF16 or loads(mixed),  # no kernels for it on a CPU
                    is_parsed(tensorrt, mixed),
                )
                if any(b and not a for b, a in zip(takers, after, strict=True)):
                    lost.append((name, precision.name, len(kept), takers, after))
    assert lost == []
    assert [name for name in too_old if not cannot_be_raised(name)] == []


def rewrite(network: object, graph: Graph, kept: list[Node]) -> None:
    widths = network_widths(Planner(graph, FP16).plan(KeptLayers.of_nodes(kept)))
    with contextlib.redirect_stdout(io.StringIO()):
        constrain_network(
            network,
            [_constraint(node) for node in kept],
            precision="fp16",
            left=[_with_fields_of(constraint) for constraint in widths.left],
            fp32_tensors=widths.fp32_tensors,
            low_tensors=widths.low_tensors,
        )


def _constraint(node: Node) -> LayerConstraint:
    trace = node.trace if node.path else ()
    return LayerConstraint(
        node.proto.name, node.op_type, node.inputs, node.outputs, "a test", trace
    )


def _with_fields_of(c: Constraint) -> LayerConstraint:
    return LayerConstraint(c.name, c.op, c.inputs, c.outputs, c.reason, c.trace)


@pytest.mark.parametrize("part", range(PARTS))
def test_what_builds_in_fp32_builds_with_the_script(part, tensorrt):
    refused, built = [], 0
    for name, model, graph in list(rankable_models(part))[::BUILT]:
        if not is_parsed(tensorrt, model) or tensorrt.build(tensorrt.parse(model)) is None:
            continue
        for kept in ([], half_of(graph)):
            parsed = tensorrt.parse(model)
            rewrite(parsed.network, graph, kept)
            built += 1
            if tensorrt.build(parsed) is None:
                refused.append((name, len(kept)))
    assert refused == []
    assert built
