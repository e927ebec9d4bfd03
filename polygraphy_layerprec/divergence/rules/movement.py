"""Rules of operators that move elements without looking at their values."""

from __future__ import annotations

from math import prod

import numpy as np

from polygraphy_layerprec.arrays import namespace_of
from polygraphy_layerprec.divergence.rules.chain import sum_to
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    rule,
    single_output_rule,
)

__all__: list[str] = []


@single_output_rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(application: Application, gradient: Array) -> Gradients:
    """ONNX Reshape and its kin: a relabelling, undone by the input's own shape."""
    return [gradient.reshape(application.input_shape(0))]


@rule("If")
def _join(application: Application, output_gradients: Gradients) -> Gradients:
    """ONNX If, joined from the branch that ran: each output is what the branch gives."""
    return output_gradients[: len(application.input_shapes)]


@single_output_rule("Transpose")
def _transpose(application: Application, gradient: Array) -> Gradients:
    """ONNX Transpose: a permutation, undone by its inverse."""
    order = application.attributes.get("perm") or range(gradient.ndim)[::-1]
    return [gradient.transpose(np.argsort(order).tolist())]


@single_output_rule("Expand", since=8)
def _expand(application: Application, gradient: Array) -> Gradients:
    """ONNX Expand: broadcasting copies, so dx sums over the copies."""
    return [sum_to(gradient, application.input_shape(0))]


@single_output_rule("Tile", since=6)
def _tile(application: Application, gradient: Array) -> Gradients:
    """ONNX Tile: repetition copies, so dx sums over the copies."""
    shape = application.input_shape(0)
    repeats = application.input(1).tolist()
    interleaved = [size for pair in zip(repeats, shape, strict=True) for size in pair]
    copies = tuple(range(0, 2 * len(shape), 2))
    return [gradient.reshape(interleaved).sum(axis=copies, keepdims=True).reshape(shape)]


@single_output_rule("Concat")
def _concat(application: Application, gradient: Array) -> Gradients:
    """ONNX Concat: each input is a slice of y, so dx is that slice of g."""
    axis = application.attributes.get("axis", 1)
    sizes = [application.input_shape(i)[axis] for i in range(len(application.input_shapes))]
    return np.split(gradient, np.cumsum(sizes)[:-1].tolist(), axis=axis)


@rule("Split")
def _split(application: Application, output_gradients: Gradients) -> Gradients:
    """ONNX Split: each output is a slice of x, so dx joins their gradients."""
    present = next(g for g in output_gradients if g is not None)
    xp = namespace_of(present)
    parts = [
        xp.zeros(shape, present.dtype) if gradient is None else gradient
        for gradient, shape in zip(output_gradients, application.output_shapes, strict=True)
        if shape is not None
    ]
    return [np.concatenate(parts, axis=application.attributes.get("axis", 0))]


@single_output_rule("Slice")
def _slice(application: Application, gradient: Array) -> Gradients:
    """ONNX Slice: a selection, so dx is g at the selected places and 0 elsewhere."""
    shape = application.input_shape(0)
    starts = _parameter(application, "starts", 1)
    ends = _parameter(application, "ends", 2)
    axes = _parameter(application, "axes", 3) or list(range(len(starts or ())))
    steps = _parameter(application, "steps", 4) or [1] * len(axes)
    places = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts or (), ends or (), axes, steps, strict=True):
        places[axis] = _slice_of(shape[axis], start, end, step)
    spread = namespace_of(gradient).zeros(shape, gradient.dtype)
    spread[tuple(places)] = gradient
    return [spread]


@single_output_rule("Trilu", since=14)
def _trilu(application: Application, gradient: Array) -> Gradients:
    """ONNX Trilu: keeps one triangle, so dx keeps the same one."""
    diagonal = int(application.input(1).item()) if application.has_input(1) else 0
    triangle = np.triu if application.attributes.get("upper", 1) else np.tril
    return [triangle(gradient, diagonal)]


@single_output_rule("DepthToSpace")
def _depth_to_space(application: Application, gradient: Array) -> Gradients:
    """ONNX DepthToSpace: a permutation within blocks, undone by its inverse."""
    block = application.attributes["blocksize"]
    batch, channels, height, width = application.input_shape(0)
    blocks = gradient.reshape(batch, channels // block**2, height, block, width, block)
    is_column_first = application.attributes.get("mode", "DCR") == "CRD"
    order = (0, 1, 3, 5, 2, 4) if is_column_first else (0, 3, 5, 1, 2, 4)
    return [blocks.transpose(order).reshape(application.input_shape(0))]


@single_output_rule("SpaceToDepth")
def _space_to_depth(application: Application, gradient: Array) -> Gradients:
    """ONNX SpaceToDepth: a permutation within blocks, undone by its inverse."""
    block = application.attributes["blocksize"]
    batch, channels, height, width = application.input_shape(0)
    blocks = gradient.reshape(batch, block, block, channels, height // block, width // block)
    return [blocks.transpose(0, 3, 4, 1, 5, 2).reshape(application.input_shape(0))]


@single_output_rule("ReverseSequence", since=10)
def _reverse_sequence(application: Application, gradient: Array) -> Gradients:
    """ONNX ReverseSequence: reverses the head of each sequence, and is its own inverse."""
    batch_axis = application.attributes.get("batch_axis", 1)
    time_axis = application.attributes.get("time_axis", 0)
    reversed_heads = gradient.copy()
    view = np.moveaxis(reversed_heads, (batch_axis, time_axis), (0, 1))
    source = np.moveaxis(gradient, (batch_axis, time_axis), (0, 1))
    for sequence, length in enumerate(application.input(1).tolist()):
        view[sequence, :length] = source[sequence, :length][::-1]
    return [reversed_heads]


@single_output_rule("CenterCropPad", since=18)
def _center_crop_pad(application: Application, gradient: Array) -> Gradients:
    """ONNX CenterCropPad: crops or pads around the centre, undone by the opposite."""
    spread = namespace_of(gradient).zeros(application.input_shape(0), gradient.dtype)
    overlap = []
    for size, narrow in zip(spread.shape, gradient.shape, strict=True):
        common, spare = min(size, narrow), abs(size - narrow)
        # A centred crop drops floor(spare / 2) first, and a centred pad adds as much.
        start = spare // 2
        within, beyond = slice(start, start + common), slice(0, common)
        overlap.append((within, beyond) if size > narrow else (beyond, within))
    spread[tuple(x for x, _ in overlap)] = gradient[tuple(y for _, y in overlap)]
    return [spread]


@single_output_rule("Compress", since=9, reads_inputs=Reads.OTHERS)
def _compress(application: Application, gradient: Array) -> Gradients:
    """ONNX Compress: a selection, so dx is g at the selected places and 0 elsewhere."""
    shape = application.input_shape(0)
    axis = application.attributes.get("axis")
    selected = np.flatnonzero(application.input(1))
    flat_shape = (prod(shape),) if axis is None else shape
    spread = namespace_of(gradient).zeros(flat_shape, gradient.dtype)
    np.moveaxis(spread, axis or 0, 0)[selected] = np.moveaxis(gradient, axis or 0, 0)
    return [spread.reshape(shape)]


@single_output_rule("Pad", since=2)
def _pad(application: Application, gradient: Array) -> Gradients:
    """ONNX Pad: border elements are constants or copies of inner ones, so dx sums over copies."""
    shape = application.input_shape(0)
    mode = application.attributes.get("mode", "constant")
    pads = _parameter(application, "pads", 1) or []
    axes = _parameter(application, "axes", 3) or list(range(len(shape)))
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        gradient = _unpad(gradient, axis % len(shape), begin, end, mode)
    return [gradient]


def _parameter(application: Application, name: str, position: int) -> list[int] | None:
    """Returns what is an attribute in older operator sets and an input in newer ones."""
    if name in application.attributes:
        return list(application.attributes[name])
    if not application.has_input(position):
        return None
    return [int(value) for value in application.input(position).reshape(-1)]


def _slice_of(size: int, start: int, end: int, step: int) -> slice:
    """Returns the slice that ONNX means; an `end` before the first element is none in Python."""
    if step > 0:
        return slice(start, end, step)
    start = min(start + size if start < 0 else start, size - 1)
    end = end + size if end < 0 else end
    return slice(max(start, 0), None if end < 0 else end, step)


def _unpad(gradient: Array, axis: int, begin: int, end: int, mode: str) -> Array:
    size = gradient.shape[axis] - begin - end
    if begin == end == 0:
        return gradient
    moved = np.moveaxis(gradient, axis, 0)
    xp = namespace_of(gradient)
    spread = xp.zeros((size, *moved.shape[1:]), gradient.dtype)
    sources = xp.arange(-begin, size + end)
    inside = (sources >= 0) & (sources < size)
    spread[sources[inside]] = moved[inside]
    if mode != "constant":
        outside = sources[~inside]
        xp.add.at(spread, _border_source(outside, size, mode), moved[~inside])
    return np.moveaxis(spread, 0, axis)


def _border_source(
    places: np.ndarray[tuple[int, ...], np.dtype[np.int64]], size: int, mode: str
) -> Array:
    if mode == "edge":
        return places.clip(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(2 * (size - 1), 1)
    return size - 1 - np.abs(size - 1 - places % period)
