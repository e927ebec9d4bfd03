"""The constants of the node that runs now, on a device: read once as far as they fit there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.arrays import is_same
from polygraphy_layerprec.execution.kernels.device import current_device, is_placed_there
from polygraphy_layerprec.execution.kernels.ort_tensors import tensor_of, value_of
from polygraphy_layerprec.execution.kernels.weights_in_use import WeightsInUse
from polygraphy_layerprec.execution.streams import largest_finite
from polygraphy_layerprec.rounding import round_to_precision

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import onnxruntime as ort

    from polygraphy_layerprec.execution.kernels.device import Device
    from polygraphy_layerprec.execution.kernels.weights_ahead import WeightsAhead
    from polygraphy_layerprec.model import Graph, Node, Weight
    from polygraphy_layerprec.precision import Precision

__all__ = ["WeightsOnDevice", "constants_from", "weights_of"]

_SMALL_BYTES: Final = 4096


def weights_of(
    graph: Graph, ahead: WeightsAhead | None = None, *, most_bytes: int = 0
) -> WeightsInUse | WeightsOnDevice:
    """Returns what reads the weights of a graph for what is chosen around the call.

    Args:
        graph: The graph.
        ahead: As in `WeightsInUse`.
        most_bytes: As in `WeightsInUse`; a device has room of its own.
    """
    device = current_device()
    if device is None:
        return WeightsInUse(graph, ahead, most_bytes=most_bytes)
    return WeightsOnDevice(graph, WeightsInUse(graph, ahead), device)


def constants_from(
    weights: Sequence[Weight], read: Callable[[Weight], np.ndarray[Any, Any]]
) -> dict[str, Any]:
    """Returns constants by name, read where they do not lie on the device already.

    Args:
        weights: The constants.
        read: Reads one; what it returned may lie in memory that is used again.
    """
    device = current_device()
    if device is None:
        return {weight.name: read(weight) for weight in weights}
    found = {}
    for weight in weights:
        kept = device.weights.get(weight)
        values = read(weight) if kept is None else kept
        is_here = kept is None and is_placed_there(values.dtype)
        found[weight.name] = device.array_from(values) if is_here else values
    return found


class WeightsOnDevice:
    """As `WeightsInUse`, with floats on a device; exact weights stay when they are rounded."""

    def __init__(self, graph: Graph, reader: WeightsInUse, device: Device) -> None:
        self._graph = graph
        self._device = device
        self._reader = reader
        self._loaded: dict[str, Any] = {}
        self._largest: dict[str, float] = {}
        self._small: dict[str, Any] = {}
        self._held: str | None = None

    def start(self) -> None:
        """As `WeightsInUse.start`."""
        self._reader.start()

    def load(self, node: Node) -> dict[str, ort.OrtValue]:
        """As `WeightsInUse.load`."""
        self._forget(self._held)
        self._held = None
        names = [name for name in node.sources if name in self._graph.weights]
        kept = {name: self._device.weights.get(self._graph.weights[name]) for name in names}
        if any(array is None for array in kept.values()):
            for name, tensor in self._reader.load(node).items():
                if kept[name] is None:
                    kept[name] = self._placed(name, value_of(tensor))
        self._loaded = kept
        return {name: tensor_of(array) for name, array in kept.items()}

    def hold(self, name: str, values: np.ndarray[Any, Any]) -> ort.OrtValue:
        """As `WeightsInUse.hold`."""
        self._forget(name)
        self._held = name
        self._loaded = {name: self._device.array_from(values)}
        return tensor_of(self._loaded[name])

    def _forget(self, name: str | None) -> None:
        if name is not None:  # other rows, or all of them, have another magnitude
            self._largest.pop(name, None)
            self._small.pop(name, None)

    def largest(self, name: str) -> float:
        """As `WeightsInUse.largest`."""
        if name not in self._largest:
            self._largest[name] = largest_finite(self._loaded[name])
        return self._largest[name]

    def round(
        self, precision: Precision, names: Collection[str]
    ) -> tuple[dict[str, ort.OrtValue], float]:
        """As `WeightsInUse.round`."""
        changed = {}
        largest = 0.0
        for name, values in self._loaded.items():
            if name not in names or not is_placed_there(values.dtype) or not values.size:
                continue
            rounded = self._rounded(name, values, precision)
            if rounded is not values:
                changed[name] = tensor_of(rounded)
            largest = max(largest, self.largest(name))
        return changed, largest

    def _rounded(self, name: str, values: Any, precision: Precision) -> Any:
        if name in self._small:
            return self._small[name]
        rounded = round_to_precision(values, precision, saturate=True)
        if values.nbytes <= _SMALL_BYTES:  # as on the host, where these alone are compared
            self._small[name] = values if is_same(rounded, values) else rounded
            return self._small[name]
        return rounded

    def _placed(self, name: str, values: np.ndarray[Any, Any]) -> Any:
        weight = self._graph.weights[name]
        if not is_placed_there(values.dtype):
            # The host's memory is used again for the next node.
            return values.copy() if values.base is not None or not values.flags.owndata else values
        array = self._device.array_from(values)
        self._device.weights.keep(weight, array)
        return array
