"""What keeping layers in FP32 is taken to cost, as one number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.selection.forecast import SetForecast

__all__ = ["CostKind", "Hardware", "Prices", "prices_for"]

CostKind = Literal["time", "count", "flops", "casts"]

_LAYER_PRICES: Final = {"count": 1.0, "flops": 0.02, "casts": 0.5}
_FLOPS_PRICES: Final = {"count": 0.0, "flops": 1.0, "casts": 0.0}
_CAST_PRICES: Final = {"count": 0.02, "flops": 0.02, "casts": 1.0}
"""In units of a layer. What is not to be saved breaks ties; casts alone cannot be the price, since
a model all in FP32 has none."""

_KEPT: Final = 0.25
"""What keeping a layer costs beside its time, in units of the average layer: no layer is kept only
to save the cast of a tensor of like size."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """Two ratios that an estimate of time rests on."""

    fp16_speedup: float = 8.0
    """How much faster products are in low precision than in FP32, without TF32: 4 on an A10, 8 on
    an A100 of 156 dense against 19.5 TFLOPS, 15 on an H100."""

    flops_per_byte: float = 12.0
    """FP32 operations in the time that a byte of memory takes: 12.5 on an A100 of 19.5 TFLOPS and
    1.56 TB/s, 20 on an H100, 52 on an A10."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in units of an average layer."""

    layers: npt.NDArray[np.float64]
    """For keeping each layer, in the ranking's order."""

    casts: npt.NDArray[np.float64]
    """For a cast of what each layer makes, between an FP32 layer and a lowered one."""

    def of(self, kept: npt.NDArray[np.bool_], cast_count: int) -> float:
        """Returns the price of a set with so many casts of average size."""
        cast = float(self.casts.mean()) if self.casts.size else 0.0
        return float(self.layers[kept].sum()) + cast * cast_count


def prices_for(cost: CostKind, forecast: SetForecast, hardware: Hardware = Hardware()) -> Prices:
    """Returns the prices when `cost` is what is to be saved.

    Args:
        cost: What is to be saved.
        forecast: Of the ranked layers.
        hardware: For `time`: what it rests on.
    """
    if cost == "time":
        return _time_prices(forecast, hardware)
    flops = np.array([layer.flops for layer in forecast.layers], np.float64)
    total = float(flops.sum()) or 1.0
    layers = _LAYER_PRICES[cost] + _FLOPS_PRICES[cost] * flops.size * flops / total
    return Prices(layers, np.full(flops.size, _CAST_PRICES[cost]))


def _time_prices(forecast: SetForecast, hardware: Hardware) -> Prices:
    """The larger of operations over peak and bytes over bandwidth, in FP32 less than lowered.

    A layer is taken to read as much as it writes. Elements are added up over samples, operations
    are of one: their ratio within a ranking is what counts, so that elements are scaled to one.
    """
    flops = np.array([layer.flops for layer in forecast.layers], np.float64)
    elements = np.array([layer.element_count for layer in forecast.layers], np.float64)
    moved = 2.0 * hardware.flops_per_byte * elements / max(forecast.sample_count, 1)
    wide = np.maximum(flops, 4.0 * moved)
    narrow = np.maximum(flops / hardware.fp16_speedup, 2.0 * moved)
    cast = moved  # fused with its neighbours: two bytes more for each element
    unit = float(wide.sum()) / max(wide.size, 1) or 1.0
    return Prices((wide - narrow) / unit + _KEPT, cast / unit + _CAST_PRICES["count"])
