"""Steps that every vector-Jacobian rule shares: multiply, drop non-finite values, unbroadcast."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.arrays import library_of, namespace_of

__all__ = ["chain", "finite", "sum_to"]

Array = npt.NDArray[Any]


def finite(values: Array) -> Array:
    """Returns `values` (any shape, any float) with each NaN and infinity replaced by 0.

    On the host, the argument itself comes back when all of it is finite.
    """
    is_finite = np.isfinite(values)
    # A device takes less time to copy than the host takes to wait for the answer.
    if library_of(values) is None and is_finite.all():
        return values
    return np.where(is_finite, values, values.dtype.type(0))


def sum_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Returns the gradient at an operand of `shape` that was broadcast to `gradient.shape`.

    Broadcasting copies, and the adjoint of a copy is a sum over the copies.
    """
    if gradient.shape == shape:
        return gradient
    added = gradient.ndim - len(shape)
    stretched = tuple(
        axis
        for axis, size in enumerate(gradient.shape)
        if axis < added or (shape[axis - added] == 1 and size != 1)
    )
    added_up: Array = gradient.sum(axis=stretched, keepdims=True).reshape(shape)
    return added_up


def chain(gradient: Array, derivative: Array, shape: tuple[int, ...] | None = None) -> Array:
    """Returns gradient times an elementwise derivative, summed to `shape` when that is given."""
    product = finite(namespace_of(gradient).asarray(gradient * derivative))
    return product if shape is None else sum_to(product, shape)
