"""Proof without a GPU: an engine is built, and its kernels tell what each layer obtained."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.backend.engine_building import quiet_log
from polygraphy_layerprec.backend.engine_inspection import parse_layer_information
from polygraphy_layerprec.backend.engine_listing import is_listing, parse_listing
from polygraphy_layerprec.backend.network_types import read_network_types
from polygraphy_layerprec.backend.obtained_precisions import (
    AskedLayer,
    NetworkTypes,
    compare_precisions,
)
from polygraphy_layerprec.backend.tensorrt_errors import recorded_messages
from polygraphy_layerprec.backend.tensorrt_module import count_gpus
from polygraphy_layerprec.emit.name_bridge import shorten
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.matching.constraint_matching import kept_layers_of
from polygraphy_layerprec.model import Role
from polygraphy_layerprec.records import EngineMeasurement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from polygraphy_layerprec.backend.engine_layers import EngineLayer
    from polygraphy_layerprec.backend.engines import EngineName
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import AskedPrecisions, Constraint, Verification

__all__ = ["Builder", "asked_layers", "prove_precisions", "with_proof"]


class Builder(Protocol):
    """Makes an engine, and reads it where there is a GPU."""

    def build(self, name: EngineName) -> bytes:
        """Returns a serialised engine."""

    def inspect(self, plan: bytes) -> str:
        """Returns the engine inspector's JSON."""


def prove_precisions(
    graph: Graph,
    asked: AskedPrecisions,
    make_builder: Callable[[Callable[[Any], None]], Builder],
) -> EngineMeasurement:
    """Returns the constrained engine, built and not run, and what its layers obtained.

    Args:
        graph: The model.
        asked: Which layers stay in FP32; all others are to be lowered.
        make_builder: Returns what builds engines, given what to call with each network.

    Raises:
        ExecutionError: If no engine can be built as asked, or it does not tell of its layers.
    """
    wanted = asked_layers(graph, asked.constraints)
    network_types: dict[int, NetworkTypes] = {}
    builder = make_builder(
        lambda network: network_types.update(read_network_types(network, wanted))
    )
    G_LOGGER.info("Building an engine, to see what its layers obtain")
    with recorded_messages("extra_verbose", is_listing) as listings, quiet_log():
        plan = builder.build("constrained")
    layers = [layer for listing in listings for layer in parse_listing(listing)]
    if not layers and count_gpus():
        layers = list(parse_layer_information(builder.inspect(plan)))
    _check_telling(layers)
    obtained = compare_precisions(layers, wanted, network_types)
    return EngineMeasurement("constrained", len(plan), None, obtained)


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


def asked_layers(graph: Graph, constraints: Sequence[Constraint]) -> tuple[AskedLayer, ...]:
    """Returns what is asked of each layer of a model, in its order.

    Constrained nodes that only move or choose values, or give no floats, are left out: nothing is
    rounded there. Those that depend on constants alone are not.

    Raises:
        ExecutionError: If a constraint matches no layer of the model.
    """
    kept = kept_layers_of(graph, constraints)
    return tuple(
        AskedLayer(
            name=node.proto.name,
            op=node.op_type,
            inputs=node.inputs,
            outputs=node.outputs,
            in_fp32=node in kept,
            has_weights=any(name in graph.weights for name in node.inputs),
            is_folded=node.role is Role.FOLDED,
            trace=node.trace if node.path else (),
        )
        for node in graph.nodes
        if node.is_layer or (node.role is Role.FOLDED and node in kept)
    )


def _check_telling(layers: Sequence[EngineLayer]) -> None:
    if any(layer.nodes for layer in layers):
        return
    raise ExecutionError(
        "The engine was built, but TensorRT does not tell which ONNX nodes its kernels hold.\n"
        "Note: It lists them from version 8.6 on; without a GPU, the log of the build must do so.\n"
        "Build with TensorRT-RTX: install it with `pip install tensorrt-rtx` and set "
        "POLYGRAPHY_USE_TENSORRT_RTX=1 in the environment. Or use `--backend tensorrt`, on a GPU."
    )
