"""What the charts along the depth of a network show, as numbers to draw."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from polygraphy_layerprec.precision import Precision
    from polygraphy_layerprec.records import RankedLayer

__all__ = [
    "BEYOND_NUMBERS",
    "BlockRun",
    "block_runs",
    "execution_positions",
    "finite_impact",
    "largest_magnitude",
    "log_axis",
    "magnitude_axis",
    "on_log_axis",
    "powers_of_ten",
    "underflow_fraction",
]

BEYOND_NUMBERS: Final = 1e300
"""What stands for infinity where a page sorts by numbers, as JSON has none."""

_SMALLEST_DRAWN: Final = 1e-300  # powers of ten beyond need not be numbers any more
_INFINITE: Final = 1e30
_DECADES_SHOWN: Final = 8
_DECADES_TO_LIMIT: Final = 12


@dataclass(frozen=True, slots=True)
class BlockRun:
    """Layers of one block that follow one another."""

    block: str
    """The part of the model, as in `RankedLayer`."""

    first: int
    """Position in execution order of the first of them, from 1."""

    last: int
    """Position of the last of them."""


def execution_positions(layers: Sequence[RankedLayer]) -> tuple[int, ...]:
    """Returns for each layer its place among them in execution order, from 1."""
    order = sorted(range(len(layers)), key=lambda index: layers[index].graph_index)
    positions = [0] * len(layers)
    for position, index in enumerate(order, start=1):
        positions[index] = position
    return tuple(positions)


def block_runs(layers: Sequence[RankedLayer]) -> tuple[BlockRun, ...]:
    """Returns the blocks as they follow one another in execution order."""
    ordered = sorted(layers, key=lambda layer: layer.graph_index)
    runs = []
    for block, members in groupby(enumerate(ordered, start=1), key=lambda item: item[1].block):
        positions = [position for position, _ in members]
        runs.append(BlockRun(block, positions[0], positions[-1]))
    return tuple(runs)


def log_axis(values: Iterable[float | None]) -> tuple[float, float]:
    """Returns the ends of a logarithmic axis, powers of ten: eight decades at most.

    Args:
        values: Numbers from 0 on; what is None is not drawn, and what is infinite, or as good as
            that, is drawn at the end.
    """
    drawn = (value for value in values if value is not None)
    positive = [value for value in drawn if _SMALLEST_DRAWN <= value <= _INFINITE]
    if not positive:
        return 1e-8, 1.0
    top = _power_above(max(positive))
    bottom = 10.0 ** (math.ceil(math.log10(min(positive))) - 1)
    return max(bottom, top / 10.0**_DECADES_SHOWN), top


def powers_of_ten(ends: tuple[float, float]) -> tuple[float, ...]:
    """Returns the powers of ten from one end of a logarithmic axis to the other."""
    first, last = (round(math.log10(end)) for end in ends)
    return tuple(10.0**exponent for exponent in range(first, last + 1))


def on_log_axis(value: float | None, ends: tuple[float, float]) -> float:
    """Returns where to draw `value`, what is beyond the axis at its end; NaN for None."""
    return math.nan if value is None else min(max(value, ends[0]), ends[1])


def magnitude_axis(
    magnitudes: Iterable[float], precision: Precision
) -> tuple[tuple[float, float], bool]:
    """Returns the ends of an axis of magnitudes, and whether the largest number is on it.

    It is not where all values are so far below that it would only press them together, as with
    BF16. An axis goes two decades beyond it at most: a mask of -3.4e38 says nothing more.

    Args:
        magnitudes: Largest |x| of each layer.
        precision: The low precision.
    """
    limit = precision.max_finite
    values = [value for value in magnitudes if value > 0.0]
    bottom, top = log_axis(value for value in values if value <= limit)
    if values and max(values) <= limit and limit / bottom > 10.0**_DECADES_TO_LIMIT:
        return (bottom, top), False
    highest = _power_above(max([limit, *values]))
    return (bottom, min(highest, 100.0 * _power_above(limit))), True


def finite_impact(layer: RankedLayer) -> float:
    """Returns the impact of a layer; infinity where it loses values, which no number stands for."""
    return math.inf if layer.lost else layer.impact


def largest_magnitude(layer: RankedLayer) -> float:
    """Returns the largest |x| that a layer takes or gives."""
    return max(layer.max_abs_input, layer.max_abs)


def underflow_fraction(layer: RankedLayer) -> float:
    """Returns the share of a layer's output elements that round to zero, in [0, 1]."""
    return layer.underflow_count / layer.element_count if layer.element_count else 0.0


def _power_above(value: float) -> float:
    finite = min(value, sys.float_info.max)
    return 10.0 ** min(math.floor(math.log10(finite)) + 1, sys.float_info.max_10_exp)
