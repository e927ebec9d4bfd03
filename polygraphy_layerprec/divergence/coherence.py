"""Which parts of a layer's error go together: what rounding one weight does everywhere it is used.

Rounded outputs err independently, element by element. A rounded weight errs in the same direction
wherever it is applied: at every position of an image, for every token. Such errors add up before
they are squared, and a mean over positions does not reduce them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.arrays import namespace_of
from polygraphy_layerprec.divergence.compact_errors import errors_of, size_of
from polygraphy_layerprec.divergence.powers import sum_of_squares
from polygraphy_layerprec.divergence.scratch import scratch

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.compact_errors import CompactErrors

__all__ = ["WeightedPowers", "coherent_axes", "coherent_groups", "weighted_powers"]

_CHANNEL_AXIS_1: Final = frozenset(
    {"BatchNormalization", "Conv", "ConvTranspose", "GroupNormalization", "InstanceNormalization"}
)
_PRODUCTS: Final = frozenset({"MatMul", "Gemm"})
_FEWEST_GROUPS: Final = 4
"""With one random probe, a sum of fewer squares says too little."""
_MANY: Final = 4096
"""Of so many numbers, enough have a say in their sum of squares."""


@dataclass(frozen=True, slots=True)
class WeightedPowers:
    """What the errors of a tensor, weighted with a gradient, amount to."""

    coherent: float
    """Sum of squares of their sums along the coherent axes."""

    independent: float
    """Sum of their squares."""

    count: float
    """How many numbers have a say in `coherent`, as the inverse of their participation ratio."""

    response: float
    """Their sum; NaN for a large tensor."""


def weighted_powers(
    gradient: npt.NDArray[Any],
    errors: CompactErrors,
    axes: tuple[int, ...],
    *,
    wants_response: bool = False,
) -> WeightedPowers:
    """Returns what g e amounts to, for a gradient g and errors e; 0 for what is not finite.

    Args:
        gradient: Gradient at the tensor, of its shape.
        errors: Its errors, as `measure_divergence` keeps them.
        axes: The tensor's coherent axes.
        wants_response: Whether the response of a large tensor is wanted too.
    """
    memory = scratch("errors", size_of(errors), namespace_of(errors).empty(0, np.float32))
    product = errors_of(errors, out=memory)
    product *= gradient.reshape(-1)
    independent = sum_of_squares(product)
    groups = product
    coherent = independent
    if axes:
        groups = coherent_groups(product.reshape(gradient.shape), axes)
        coherent = sum_of_squares(groups)
    return WeightedPowers(
        coherent if np.isfinite(coherent) else 0.0,
        independent if np.isfinite(independent) else 0.0,
        _participants(groups),
        float(groups.sum(dtype=np.float64))
        if wants_response or product.size <= _MANY
        else float("nan"),
    )


def _participants(numbers: npt.NDArray[Any]) -> float:
    if numbers.size > _MANY:
        return float(_MANY)
    squares = np.square(numbers, dtype=np.float64)
    fourth_powers = float(np.sum(squares * squares))
    return float(np.sum(squares)) ** 2 / fourth_powers if fourth_powers else 0.0


def coherent_axes(
    op_type: str, constant_shapes: Sequence[tuple[int, ...] | None], output_rank: int
) -> tuple[int, ...]:
    """Returns the axes of the output along which one rounded weight is used again and again.

    Args:
        op_type: ONNX operator.
        constant_shapes: Shape of each input if it is a float constant, else None.
        output_rank: Number of axes of the output.
    """
    if output_rank == 0 or all(shape is None for shape in constant_shapes):
        return ()
    own = _own_axes(op_type, constant_shapes, output_rank)
    return tuple(axis for axis in range(output_rank) if axis not in own)


def coherent_groups(product: npt.NDArray[Any], axes: tuple[int, ...]) -> npt.NDArray[Any]:
    """Returns `product` summed along `axes`, flat.

    Where that leaves too few numbers, the first axis is not summed, along which samples of a batch
    are probed on their own, and then the last one is not.
    """
    kept = [axis for axis in range(product.ndim) if axis not in axes]
    for more in (0, product.ndim - 1):
        groups = int(np.prod([product.shape[axis] for axis in kept], dtype=np.int64))
        if groups >= _FEWEST_GROUPS or more in kept or product.ndim == 0:
            continue
        kept.append(more)
    summed = tuple(axis for axis in range(product.ndim) if axis not in kept)
    return np.ravel(product.sum(axis=summed) if summed else product)


def _own_axes(
    op_type: str, constant_shapes: Sequence[tuple[int, ...] | None], rank: int
) -> set[int]:
    """Axes along which weights differ."""
    if op_type in _CHANNEL_AXIS_1:
        return {1} if rank > 1 else {0}
    factors = [shape is not None for shape in constant_shapes[:2]]
    if op_type in _PRODUCTS and any(factors):  # else a bias alone, which broadcasts
        return {rank - 1} if factors[-1] or rank == 1 else {rank - 2}
    own: set[int] = set()
    for shape in constant_shapes:
        for axis, extent in enumerate(reversed(shape or ())):
            if extent > 1 and axis < rank:
                own.add(rank - 1 - axis)
    return own
