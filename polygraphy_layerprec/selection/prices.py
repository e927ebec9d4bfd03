"""What keeping layers in FP32 is taken to cost, as one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.selection.forecast import SetForecast

__all__ = ["CostKind", "Prices", "prices_for"]

CostKind = Literal["count", "flops", "casts"]

_LAYER_PRICES: Final = {"count": 1.0, "flops": 0.02, "casts": 0.5}
_FLOPS_PRICES: Final = {"count": 0.0, "flops": 1.0, "casts": 0.0}
_CAST_PRICES: Final = {"count": 0.02, "flops": 0.02, "casts": 1.0}
"""In units of a layer. What is not to be saved breaks ties; casts alone cannot be the price, since
a model all in FP32 has none."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in units of an average layer."""

    layers: npt.NDArray[np.float64]
    """For keeping each layer, in the ranking's order."""

    cast: float
    """For each tensor that passes between an FP32 layer and a lowered one."""

    def of(self, kept: npt.NDArray[np.bool_], cast_count: int) -> float:
        """Returns the price of a set with so many casts."""
        return float(self.layers[kept].sum()) + self.cast * cast_count


def prices_for(cost: CostKind, forecast: SetForecast) -> Prices:
    """Returns the prices when `cost` is what is to be saved."""
    flops = np.array([layer.flops for layer in forecast.layers], np.float64)
    total = float(flops.sum()) or 1.0
    layers = _LAYER_PRICES[cost] + _FLOPS_PRICES[cost] * flops.size * flops / total
    return Prices(layers, _CAST_PRICES[cost])
