"""What is done to a parsed network before it is built: looked at, lowered, constrained."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.backend.engines.specs import EngineError
from polygraphy_layerprec.emit.name_bridge import (
    LayerConstraint,
    as_layer_constraints,
    match_layers,
)
from polygraphy_layerprec.emit.network_rewriter import constrain_network
from polygraphy_layerprec.emit.network_view import (
    LayerView,
    NetworkError,
    NetworkView,
    find_tensorrt,
)

if TYPE_CHECKING:
    from polygraphy_layerprec.records import RequestedPrecisions

__all__ = ["check_outputs", "constrain", "lower_all", "lower_one_layer", "why_not_markable"]

_REGION_STARTS: Final = frozenset({"CONDITIONAL_INPUT", "ITERATOR", "RECURRENCE"})
_REGION_ENDS: Final = frozenset({"CONDITIONAL_OUTPUT", "LOOP_OUTPUT"})


def why_not_markable(network: Any, names: Sequence[str]) -> dict[str, str]:
    """Returns for each tensor why it cannot be marked as an output; empty text where it can be."""
    trt = find_tensorrt(network)
    view = NetworkView(network, trt)
    inside = _layers_in_regions(view)
    by_name: dict[str, str] = {}
    for tensor in view.tensors:
        if tensor.is_shape:
            reason = "it is a shape tensor in the network"
        elif not tensor.is_float:
            reason = f"it is of type {tensor.tensor.dtype.name} in the network"
        elif tensor.producer in inside:
            reason = "it is inside a loop or a branch"
        else:
            reason = ""
        by_name[tensor.name] = reason
    return {name: by_name.get(name, "the network has no such tensor") for name in names}


def lower_all(network: Any, precision: str) -> None:
    """Lowers every layer of a network, by the rules of the emitted script."""
    # The script prints what it did for those who build with it; here that is noise.
    with contextlib.redirect_stdout(io.StringIO()), _told(network, "lowered"):
        constrain_network(network, (), precision=precision)


def constrain(network: Any, asked: RequestedPrecisions) -> None:
    """Lowers a network but for the layers that are asked for, and prints what was done.

    Not by the user's script, which is never run: the same code, fed with the same data.

    Raises:
        EngineError: If a constraint matches no layer or cannot be met.
    """
    with _told(network, "constrained"):
        constrain_network(
            network,
            as_layer_constraints(asked.constraints),
            precision=asked.precision,
            left=as_layer_constraints(asked.widths.left),
            fp32_tensors=asked.widths.fp32_tensors,
            low_tensors=asked.widths.low_tensors,
        )


def lower_one_layer(network: Any, layer: LayerConstraint, precision: str) -> None:
    """Lowers one layer of a network and keeps all others in FP32.

    Raises:
        EngineError: If the network has no such layer.
    """
    with contextlib.redirect_stdout(io.StringIO()), _told(network, "lowered"):
        view = NetworkView(network, find_tensorrt(network))
        (match,) = match_layers(view, [layer])
        if not match.layers:
            raise NetworkError(f"the network has no layer {layer.name or layer.outputs[0]!r}")
        kept = [_as_constraint(other) for other in view.layers if other not in match.layers]
        constrain_network(
            network,
            [constraint for constraint in kept if constraint.outputs],
            precision=precision,
            allow_unmatched=True,
        )


def check_outputs(network: Any, wanted: Collection[str]) -> None:
    """Checks that a network, about to be built, has the outputs that are to be compared.

    Raises:
        EngineError: If one is missing.
    """
    found = [network.get_output(index).name for index in range(network.num_outputs)]
    missing = sorted(set(wanted).difference(found))
    if missing:
        raise EngineError(
            f"The network has no output {missing[0]!r}, though it was asked to.\n"
            f"Note: Its outputs are: {found[:10]!r}. Something renamed them.\n"
            f"Leave out what changes names, for example a script of `--trt-npps`."
        )


def _as_constraint(layer: LayerView) -> LayerConstraint:
    """A layer of the network as if it were a node, so that it is found by its own tensors."""
    inputs = tuple(tensor.name for tensor in layer.inputs if tensor is not None)
    outputs = tuple(tensor.name for tensor in layer.outputs)
    return LayerConstraint(layer.name, "", inputs, outputs, "")


def _layers_in_regions(view: NetworkView) -> set[LayerView]:
    """Returns the layers between the start and the end of a loop or a conditional."""
    starts = [layer for layer in view.layers if layer.kind in _REGION_STARTS]
    inside = dict.fromkeys(starts)
    for layer in (pending := starts):  # grows on the way
        for consumer in layer.consumers:
            if consumer not in inside and consumer.kind not in _REGION_ENDS:
                inside[consumer] = None
                pending.append(consumer)
    return set(inside)


@contextlib.contextmanager
def _told(network: Any, done: str) -> Iterator[None]:
    try:
        yield
    except NetworkError as error:
        raise EngineError(
            f"The network of {network.num_layers} layers cannot be {done}: {error}."
        ) from error
