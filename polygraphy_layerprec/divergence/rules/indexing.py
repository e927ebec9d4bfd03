"""Rules of operators that read or write at positions given by an index tensor."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.arrays import namespace_of
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    single_output_rule,
)

__all__: list[str] = []

_UPDATES = 2

Indices = npt.NDArray[np.integer[Any]]


@single_output_rule("Gather")
def _gather(application: Application, gradient: Array) -> Gradients:
    """ONNX Gather: y = x[indices] along an axis, so dx adds each part of g where it came from."""
    shape = application.input_shape(0)
    axis = application.attributes.get("axis", 0) % len(shape)
    indices = namespace_of(gradient).asarray(application.input(1))
    spread = namespace_of(gradient).zeros(shape, gradient.dtype)
    rank = indices.ndim
    parts = np.moveaxis(gradient, range(axis, axis + rank), range(rank))
    parts = parts.reshape(indices.size, *parts.shape[rank:])
    _add_rows(np.moveaxis(spread, axis, 0), indices.reshape(-1) % shape[axis], parts)
    return [spread]


@single_output_rule("GatherElements", since=11)
def _gather_elements(application: Application, gradient: Array) -> Gradients:
    """ONNX GatherElements: y_i = x at an index, so dx adds each element of g where it came from."""
    shape = application.input_shape(0)
    places = _element_places(application, shape, namespace_of(gradient))
    xp = namespace_of(gradient)
    spread = xp.zeros(prod(shape), gradient.dtype)
    xp.add.at(spread, places.reshape(-1), gradient.reshape(-1))
    return [spread.reshape(shape)]


@single_output_rule("TopK", reads_outputs=True)
def _top_k(application: Application, gradient: Array) -> Gradients:
    """ONNX TopK: y = x at the indices put out beside it, so dx is g at those and 0 elsewhere."""
    xp = namespace_of(gradient)
    spread = xp.zeros(application.input_shape(0), gradient.dtype)
    axis = application.attributes.get("axis", -1)
    xp.put_along_axis(spread, xp.asarray(application.output(1)), gradient, axis)
    return [spread]


@single_output_rule("GatherND", since=11)
def _gather_nd(application: Application, gradient: Array) -> Gradients:
    """ONNX GatherND: y = x[index rows], so dx adds each part of g where it came from."""
    xp = namespace_of(gradient)
    shape, indices = application.input_shape(0), xp.asarray(application.input(1))
    batch = application.attributes.get("batch_dims", 0)
    places = _row_places(indices, shape, batch)
    row_shape = shape[batch + indices.shape[-1] :]
    spread = xp.zeros((prod(shape[: batch + indices.shape[-1]]), *row_shape), gradient.dtype)
    _add_rows(spread, places, gradient.reshape(-1, *row_shape))
    return [spread.reshape(shape)]


@single_output_rule("ScatterND", since=11)
def _scatter_nd(application: Application, gradient: Array) -> Gradients:
    """ONNX ScatterND: y = x with rows replaced or added to; g splits by which of them it saw."""
    shape = application.input_shape(0)
    indices = namespace_of(gradient).asarray(application.input(1))
    places = _row_places(indices, shape, 0)
    rows = gradient.reshape(-1, *shape[indices.shape[-1] :])
    return _scatter_gradients(application, rows, places)


@single_output_rule("Scatter", since=9)
@single_output_rule("ScatterElements", since=11)
def _scatter_elements(application: Application, gradient: Array) -> Gradients:
    """ONNX ScatterElements: y = x with elements replaced or added to; g splits by which it saw."""
    shape = application.input_shape(0)
    places = _element_places(application, shape, namespace_of(gradient)).reshape(-1)
    return _scatter_gradients(application, gradient.reshape(-1), places)


def _add_rows(target: Array, places: Indices, rows: Array) -> None:
    """Adds each row to `target[place]` in place."""
    if places.size == np.unique(places).size:
        # Each place once, the usual case, needs no slow unbuffered addition.
        target[places] = rows
    else:
        namespace_of(target).add.at(target, places, rows)


def _element_places(application: Application, shape: tuple[int, ...], xp: Any) -> Indices:
    """Returns the flat position in `shape` that each index of an elementwise operator means."""
    indices = xp.asarray(application.input(1))
    axis = application.attributes.get("axis", 0) % len(shape)
    grid = [xp.asarray(g) for g in np.ogrid[tuple(slice(size) for size in indices.shape)]]
    grid[axis] = indices % shape[axis]
    strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
    places: Indices = xp.asarray(sum(g * s for g, s in zip(grid, strides, strict=True)))
    return places


def _row_places(indices: Indices, shape: tuple[int, ...], batch: int) -> Indices:
    """Returns the flat position of each index row in the leading dimensions of `shape`."""
    depth = indices.shape[-1]
    sizes = shape[: batch + depth]
    strides = [prod(sizes[i + 1 :]) for i in range(len(sizes))]
    xp = namespace_of(indices)
    places: Indices = xp.zeros(indices.shape[:-1], np.int64)
    for axis in range(batch):
        along = xp.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(places.ndim)])
        places += along * strides[axis]
    for axis in range(depth):
        places += indices[..., axis] % shape[batch + axis] * strides[batch + axis]
    return places.reshape(-1)


def _scatter_gradients(application: Application, rows: Array, places: Indices) -> Gradients:
    reduction = application.attributes.get("reduction", "none")
    if reduction not in ("none", "add"):
        return ()
    by_data = by_updates = None
    if 0 in application.wanted:
        kept = rows
        if reduction == "none":
            kept = rows.copy()
            kept[places] = 0
        by_data = kept.reshape(application.input_shape(0))
    if _UPDATES in application.wanted:
        by_updates = rows[places].reshape(application.input_shape(_UPDATES))
    return by_data, None, by_updates
