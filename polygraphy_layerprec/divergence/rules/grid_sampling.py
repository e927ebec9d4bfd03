"""Rule of GridSample: interpolation at given points, whose adjoint adds to the same neighbours."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)
from polygraphy_layerprec.divergence.rules.resampling import Coordinates, cubic_taps

__all__: list[str] = []

_CUBIC_COEFFICIENT = -0.75

Taps = tuple[npt.NDArray[np.int64], Coordinates]


@single_output_rule("GridSample", since=16, reads_inputs=Reads.OTHERS)
def _grid_sample(application: Application, gradient: Array) -> Gradients:
    """ONNX GridSample: y = sum of weight times x over neighbours, so dx adds weight times g.

    Serves the sampled tensor, not the grid.
    """
    shape = application.input_shape(0)
    if 0 not in application.wanted:
        return ()
    batch, channels, sizes = shape[0], shape[1], shape[2:]
    grid = application.input(1).astype(np.float64).reshape(batch, -1, len(sizes))
    # The grid names the last axis first.
    taps = [_taps(application, grid[..., -1 - axis], size) for axis, size in enumerate(sizes)]
    spread = np.zeros((batch, prod(sizes), channels), gradient.dtype)
    rows = gradient.reshape(batch, channels, -1).swapaxes(1, 2)
    samples = np.arange(batch)[:, None]
    for chosen in product(*(range(places.shape[-1]) for places, _ in taps)):
        place = np.zeros(grid.shape[:2], np.int64)
        weight = np.ones(grid.shape[:2])
        for (places, weights), tap, size in zip(taps, chosen, sizes, strict=True):
            place = place * size + places[..., tap]
            weight *= weights[..., tap]
        np.add.at(spread, (samples, place), rows * weight[..., None].astype(gradient.dtype))
    return [spread.swapaxes(1, 2).reshape(shape)]


def _taps(application: Application, grid: Coordinates, size: int) -> Taps:
    """Returns the neighbours along one axis of each point, and their weights."""
    attributes = application.attributes
    mode = attributes.get("mode", "linear").removeprefix("bi")
    padding = attributes.get("padding_mode", "zeros")
    aligns_corners = bool(attributes.get("align_corners", 0))
    points = (grid + 1) * (size - 1) / 2 if aligns_corners else ((grid + 1) * size - 1) / 2
    points = np.rint(points) if mode == "nearest" else points
    low, high = (0.0, size - 1.0) if aligns_corners else (-0.5, size - 0.5)
    if padding == "reflection":
        points = _reflected(points, low, high)
    if mode == "nearest":
        places, weights = points[..., None], np.ones((*points.shape, 1))
    elif mode == "cubic":
        places, weights = cubic_taps(points.reshape(-1), _CUBIC_COEFFICIENT)
        places, weights = (x.reshape(*points.shape, 4) for x in (places, weights))
    else:
        first = np.floor(points)
        places = np.stack([first, first + 1], axis=-1)
        weights = np.stack([1 - (points - first), points - first], axis=-1)
    if padding == "zeros":
        weights = weights * ((places >= 0) & (places < size))
    elif padding == "reflection":
        places = _reflected(places, low, high)
    # Clamping each neighbour is all that the mode `border` asks for, as in PyTorch.
    return places.clip(0, size - 1).astype(np.int64), weights


def _reflected(points: Coordinates, low: float, high: float) -> Coordinates:
    """Returns points folded back and forth between two borders."""
    span = high - low
    if span == 0:
        return np.full_like(points, low)
    return high - np.abs(span - (points - low) % (2 * span))
