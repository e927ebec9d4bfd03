"""Proof without a GPU: an engine is built, and its kernels tell what each layer obtained."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.backend.engines.obtained.build_log import is_listing, parse_listing
from polygraphy_layerprec.backend.engines.obtained.inspector import parse_layer_information
from polygraphy_layerprec.backend.engines.obtained.network_types import read_network_types
from polygraphy_layerprec.backend.engines.obtained.precisions import (
    AskedLayer,
    NetworkTypes,
    compare_precisions,
)
from polygraphy_layerprec.backend.engines.specs import constrained_engine
from polygraphy_layerprec.backend.engines.tensorrt_errors import recorded_messages
from polygraphy_layerprec.backend.engines.tensorrt_module import count_gpus
from polygraphy_layerprec.emit.name_bridge import shorten
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.matching.constraint_matching import kept_layers_of, plan_of
from polygraphy_layerprec.model import Role
from polygraphy_layerprec.plan import Verdict
from polygraphy_layerprec.plan.network_widths import constraint_of
from polygraphy_layerprec.records import EngineMeasurement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.backend.engines.obtained.layers import EngineLayer
    from polygraphy_layerprec.backend.engines.session import EngineStack
    from polygraphy_layerprec.backend.engines.specs import EngineSpec
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.plan import Plan
    from polygraphy_layerprec.records import Constraint, RequestedPrecisions, Verification

__all__ = ["asked_layers", "prove_precisions", "with_proof"]


def prove_precisions(
    graph: Graph, asked: RequestedPrecisions, *, stack: EngineStack, mixed_path: str | None = None
) -> EngineMeasurement:
    """Returns the constrained engine, built and not run, and what its layers obtained.

    Args:
        graph: The model.
        asked: Which layers stay in FP32; all others are to be lowered.
        stack: Builds and keeps engines, and opens them where there is a GPU.
        mixed_path: A mixed-precision form of the model to make the engine of.

    Raises:
        ExecutionError: If no engine can be built as asked, or it does not tell of its layers.
    """
    wanted = asked_layers(graph, asked.constraints, plan_of(graph, asked))
    spec = constrained_engine(asked, mixed_path)
    found = stack.store.result(
        {"what": "log of the build", "engine": stack.engines.identity(spec)},
        lambda: _build(stack, spec, wanted),
    )
    layers = [layer for listing in found["listings"] for layer in parse_listing(listing)]
    if found["layer_information"]:
        layers += parse_layer_information(found["layer_information"])
    _check_telling(layers)
    network_types = {
        index: NetworkTypes(frozenset(nodes), frozenset(widths))
        for index, nodes, widths in found["network_types"]
    }
    obtained = compare_precisions(layers, wanted, network_types)
    return EngineMeasurement("constrained", found["size_bytes"], None, obtained)


def _build(stack: EngineStack, spec: EngineSpec, asked: Sequence[AskedLayer]) -> dict[str, Any]:
    """Builds an engine even if it is kept already: nothing but a build is logged."""
    G_LOGGER.info("Building an engine, to see what its layers obtain")
    network_types: dict[int, NetworkTypes] = {}

    def observe(network: Any) -> None:
        network_types.update(read_network_types(network, asked))

    with recorded_messages("extra_verbose", is_listing) as listings:
        plan = stack.engines.build(spec, observe=observe)
    stack.store.engine(stack.engines.identity(spec), lambda: plan)
    information = ""
    if not any(map(parse_listing, listings)) and count_gpus():
        with stack.engines.open(spec, plan) as engine:
            information = engine.layer_information()
    return {
        "listings": listings,
        "layer_information": information,
        "network_types": [
            [index, sorted(types.nodes), sorted(types.widths)]
            for index, types in network_types.items()
        ],
        "size_bytes": len(plan),
    }


def with_proof(verification: Verification, proof: EngineMeasurement) -> Verification:
    """Returns a verification that holds what was proven, and fails where a layer was not kept."""
    obtained = proof.obtained
    failures = verification.failures
    if obtained is not None and obtained.failures:
        failed = obtained.failures
        reason = (
            f"{len(failed)} of {len(obtained.kept)} layers that were to stay in FP32 are in "
            f"{verification.precision.upper()} in the engine, {shorten(failed[0].name)} the first"
        )
        failures += (reason,)
    return dataclasses.replace(
        verification, engines=(*verification.engines, proof), failures=failures
    )


def asked_layers(
    graph: Graph, constraints: Sequence[Constraint], plan: Plan | None = None
) -> tuple[AskedLayer, ...]:
    """Returns what is asked of each layer of a model, in its order.

    Constrained nodes that only move or choose values, or give no floats, are left out: nothing is
    rounded there. Those that depend on constants alone are not. Nothing is asked of layers that a
    plan leaves in FP32 by a rule.

    Raises:
        ExecutionError: If a constraint matches no layer of the model.
    """
    kept = kept_layers_of(graph, constraints)
    return tuple(
        AskedLayer(
            constraint_of(node),
            in_fp32=node in kept,
            has_weights=any(name in graph.weights for name in node.inputs),
            is_folded=node.role is Role.FOLDED,
        )
        for node in graph.nodes
        if (node.is_layer and not _is_left(plan, node))
        or (node.role is Role.FOLDED and node in kept)
    )


def _is_left(plan: Plan | None, node: Node) -> bool:
    return plan is not None and plan.of(node).verdict is Verdict.LEFT


def _check_telling(layers: Sequence[EngineLayer]) -> None:
    if any(layer.nodes for layer in layers):
        return
    raise ExecutionError(
        "The engine was built, but TensorRT does not tell which ONNX nodes its kernels hold.\n"
        "Note: It lists them from version 8.6 on; without a GPU, the log of the build must do so.\n"
        "Build with TensorRT-RTX: install it with `pip install tensorrt-rtx` and set "
        "POLYGRAPHY_USE_TENSORRT_RTX=1 in the environment. Or use `--backend tensorrt`, on a GPU."
    )
