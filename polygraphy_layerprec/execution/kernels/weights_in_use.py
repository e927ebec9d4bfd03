"""The constants of the node that runs now, exact and rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.kernels.cast_rounding import CastRounder
from polygraphy_layerprec.execution.kernels.node_session import tensor_of
from polygraphy_layerprec.execution.kernels.weights_ahead import ReadWeights, WeightsAhead
from polygraphy_layerprec.execution.streams import largest_finite
from polygraphy_layerprec.model import Weight, WeightBuffer
from polygraphy_layerprec.rounding import round_flat

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnxruntime as ort

    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["WeightsInUse"]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_KEPT_BYTES = 4096


class WeightsInUse:
    """Reads one node's weights into memory shared with the next node's."""

    def __init__(
        self, graph: Graph, ahead: WeightsAhead | None = None, *, most_bytes: int = 0
    ) -> None:
        """Prepares to read.

        Args:
            graph: The graph.
            ahead: What reads ahead, where others read with it in turn: see `start`.
            most_bytes: Memory for large weights, which are kept exact and rounded from their first
                use on, as many as fit.
        """
        self._graph = graph
        self._left_bytes = most_bytes
        self._ahead = ahead or WeightsAhead()
        self._rounder: CastRounder | None = None
        self._read_ahead = ReadWeights()
        self._buffer = WeightBuffer()
        self._kept: dict[str, tuple[np.ndarray[Any, Any], ort.OrtValue]] = {}
        self._rounded_kept: dict[tuple[str, Precision], tuple[ort.OrtValue, float]] = {}
        self._loaded: dict[str, np.ndarray[Any, Any]] = {}
        self._largest: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Begins a pass over the graph; what others read in the same memory becomes invalid."""
        known = self._graph.weights
        self._ahead.expect(
            (
                (node.index, [known[n] for n in node.sources if n in known and n not in self._kept])
                for node in self._graph.nodes
            ),
            self._rounder,
        )

    def load(self, node: Node) -> dict[str, ort.OrtValue]:
        """Returns the exact weights that `node` reads, by name, valid until the next call."""
        needed = [self._graph.weights[name] for name in node.sources if name in self._graph.weights]
        self._read_ahead = self._ahead.take(node.index)
        read = self._read_ahead.exact
        others = [weight for weight in needed if weight.name not in read]
        self._buffer.reset(w for w in others if w.name not in self._kept and not w.dtype.hasobject)
        pairs = {weight.name: self._pair(weight) for weight in needed}
        self._loaded = {name: values for name, (values, _) in pairs.items()}
        self._largest = self._read_ahead.largest
        return {name: tensor for name, (_, tensor) in pairs.items()}

    def hold(self, name: str, values: np.ndarray[Any, Any]) -> ort.OrtValue:
        """Returns values as the one weight that is loaded, in place of a whole one of this name."""
        self._loaded = {name: values}
        self._largest, self._read_ahead = {}, ReadWeights()
        return tensor_of(values)

    def largest(self, name: str) -> float:
        """Returns the largest finite magnitude of a loaded float weight, before it is rounded."""
        if name not in self._largest:
            self._largest[name] = largest_finite(self._loaded[name])
        return self._largest[name]

    def round(
        self, precision: Precision, names: Collection[str]
    ) -> tuple[dict[str, ort.OrtValue], float]:
        """Rounds some of the loaded weights; large ones in place, so the exact ones may be gone.

        Values beyond the range become the largest finite number, as when TensorRT's weights are
        converted.

        Args:
            precision: The low precision.
            names: Names of the weights to round; others are left alone.

        Returns:
            The rounded weights by name, without small ones that rounding leaves as they are, and
            the largest magnitude of the exact ones, 0 where there are none.
        """
        changed = {}
        largest = 0.0
        for name, values in self._loaded.items():
            if name not in names or values.dtype not in _FLOATS or not values.size:
                continue
            if name in self._kept and self._kept[name][0] is values:
                rounded, magnitude = self._round_kept(name, precision)
                if rounded is not self._kept[name][1]:
                    changed[name] = rounded
            else:
                magnitude = self.largest(name)
                changed[name] = tensor_of(self._rounded(name, magnitude, precision))
            largest = max(largest, magnitude)
        return changed, largest

    def _rounded(self, name: str, largest: float, precision: Precision) -> np.ndarray[Any, Any]:
        if self._rounder is None or self._rounder.precision != precision:
            self._rounder = self._ahead.rounder = CastRounder(precision)
        if self._read_ahead.precision == precision and name in self._read_ahead.rounded:
            return self._read_ahead.rounded[name]
        values = self._loaded[name]
        self._rounder.round_weight(values, largest, out=values)
        return values

    def _round_kept(self, name: str, precision: Precision) -> tuple[ort.OrtValue, float]:
        if (name, precision) not in self._rounded_kept:
            values, exact = self._kept[name]
            rounded = values.copy()
            round_flat(rounded.reshape(-1), rounded.reshape(-1), precision, saturate=True)
            same = np.array_equal(rounded, values, equal_nan=True)
            tensor = exact if same else tensor_of(rounded)
            self._rounded_kept[name, precision] = (tensor, largest_finite(values))
        return self._rounded_kept[name, precision]

    def _pair(self, weight: Weight) -> tuple[np.ndarray[Any, Any], ort.OrtValue]:
        """A weight of the node that runs now, and as a tensor."""
        if weight.name in self._kept:
            return self._kept[weight.name]
        values = self._read_ahead.exact.get(weight.name)
        if values is None:  # text has no bytes that a buffer could hold
            values = weight.read(None if weight.dtype.hasobject else self._buffer)
        needed_bytes = 2 * weight.nbytes if weight.nbytes > _KEPT_BYTES else 0
        if needed_bytes > self._left_bytes:
            return values, tensor_of(values)
        self._left_bytes -= needed_bytes
        # Kept for good: it may not lie in memory that the next node uses again.
        values = values.copy()
        self._kept[weight.name] = (values, tensor_of(values))
        return self._kept[weight.name]
