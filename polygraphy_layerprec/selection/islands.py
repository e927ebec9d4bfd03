"""Sets of FP32 layers as minimum cuts: for a price on error, the cheapest set there is.

Keeping a layer costs; lowering one costs its error, and so does every border where an FP32 output
is rounded for a lowered reader. All of these are paid by cutting an edge of a graph whose source
side is FP32, so that the cheapest set is a minimum cut (Greig, Porteous, Seheult, 1989). Such sets
grow as the price of error rises, and they are contiguous islands where borders cost.

One cast serves all readers on the other side. So the border of a producer is two more vertices,
which its readers tie to one side by edges too dear to cut: the first to that of the lowered ones,
if there are any, the second to that of the ones in FP32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.selection.forecast import SetForecast
    from polygraphy_layerprec.selection.prices import Prices

__all__ = ["IslandCuts"]

_CAPACITY_TOTAL: Final = 1e9  # the flow is computed in 32-bit integers
_FORBIDDEN: Final = 2_000_000_000


class IslandCuts:
    """Finds, for a price on error, the cheapest set of layers to keep in FP32."""

    def __init__(
        self,
        forecast: SetForecast,
        *,
        prices: Prices,
        required: npt.NDArray[np.bool_],
        allowed: npt.NDArray[np.bool_],
    ) -> None:
        """Prepares the graph.

        Args:
            forecast: Errors of layers and borders.
            prices: What layers and casts cost.
            required: Layers that must be kept.
            allowed: Layers that may be kept.
        """
        self._forecast = forecast
        self._prices = prices
        self._required = required
        self._allowed = allowed | required

    def cheapest(self, error_price: float) -> npt.NDArray[np.bool_]:
        """Returns the mask of the cheapest set when unit squared error costs `error_price`."""
        forecast = self._forecast
        count = len(forecast.layers)
        source, sink = count, count + 1
        layers = np.arange(count)
        producers, border_of = np.unique(forecast.producers, return_inverse=True)
        leaving = count + 2 + np.arange(producers.size)
        entering = leaving + producers.size
        prices = [
            error_price * forecast.powers,
            self._prices.layers,
            error_price * forecast.edge_powers,
            self._prices.casts[producers],
        ]
        scale = _CAPACITY_TOTAL / sum(float(price.sum()) for price in prices)
        capacities = [np.rint(price * scale).astype(np.int32) for price in prices]
        uncut = np.full_like(border_of, _FORBIDDEN)
        capacities[0][self._required] = _FORBIDDEN
        capacities[1][~self._allowed] = _FORBIDDEN
        edges = [
            (np.full(count, source), layers, capacities[0]),
            (layers, np.full(count, sink), capacities[1]),
            (forecast.producers, forecast.readers, capacities[2]),
            (producers, leaving, capacities[3]),
            (leaving[border_of], forecast.readers, uncut),
            (forecast.readers, entering[border_of], uncut),
            (entering, producers, capacities[3]),
        ]
        graph = _graph(edges, size=count + 2 + 2 * producers.size)
        residual = graph - maximum_flow(graph, source, sink).flow
        residual.data = (residual.data > 0).astype(np.int32)
        residual.eliminate_zeros()
        reached = breadth_first_order(residual, source, return_predecessors=False)
        kept = np.zeros(count, bool)
        kept[reached[reached < count]] = True
        return kept


def _graph(
    edges: Sequence[
        tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.integer[Any]]]
    ],
    *,
    size: int,
) -> csr_matrix:
    tails, heads, capacities = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    return csr_matrix((capacities.astype(np.int32), (tails, heads)), shape=(size, size))
