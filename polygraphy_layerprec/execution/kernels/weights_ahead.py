"""Reading one node's large weights while the node before it runs."""

from __future__ import annotations

from bisect import bisect_right
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.model import WeightBuffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from polygraphy_layerprec.model import Graph, Node, Weight

__all__ = ["WeightsAhead"]

_SMALLEST_BYTES: Final = 1 << 16  # handing over to the thread takes as long
_LARGEST_BYTES: Final = 64 << 20  # two nodes' weights are in memory at a time

Arrays = dict[str, "np.ndarray[Any, Any]"]


class WeightsAhead:
    """Reads on a thread of its own, one node ahead, to two buffers in turn.

    Reading leaves the interpreter to others, and computing in numpy leaves a core to this thread.
    """

    def __init__(self, graph: Graph) -> None:
        self._weights: dict[int, list[Weight]] = {}
        for node in graph.nodes:
            weights = [graph.weights[name] for name in node.sources if name in graph.weights]
            large = [
                weight
                for weight in weights
                if _SMALLEST_BYTES <= weight.nbytes <= _LARGEST_BYTES and not weight.dtype.hasobject
            ]
            if large:
                self._weights[node.index] = large
        self._order = sorted(self._weights)
        self._buffers = (WeightBuffer(), WeightBuffer())
        self._turn = 0
        self._thread = ThreadPoolExecutor(1)
        self._pending: tuple[int, Future[Arrays]] | None = None

    def take(self, node: Node) -> Arrays:
        """Returns the large weights that `node` reads, by name, valid until the next call.

        Raises:
            ModelError: If a file went away or became shorter since the model was loaded.
        """
        if node.index not in self._weights:
            return {}
        if self._pending is None or self._pending[0] != node.index:
            self._read_ahead(node.index)
        assert self._pending is not None
        arrays = self._pending[1].result()
        following = bisect_right(self._order, node.index)
        if following < len(self._order):
            self._read_ahead(self._order[following])
        else:
            self._pending = None
        return arrays

    def _read_ahead(self, index: int) -> None:
        if self._pending is not None:
            wait([self._pending[1]])  # of a node that did not run after all
        self._turn = 1 - self._turn
        buffer = self._buffers[self._turn]
        self._pending = index, self._thread.submit(_read, buffer, self._weights[index])


def _read(buffer: WeightBuffer, weights: Sequence[Weight]) -> Arrays:
    buffer.reset(weights)
    return {weight.name: weight.read(buffer) for weight in weights}
