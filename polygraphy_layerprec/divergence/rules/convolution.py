"""Rules of Conv and ConvTranspose: one matrix product for each tap of the kernel."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.arrays import namespace_of
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)
from polygraphy_layerprec.divergence.rules.windows import Windows, windows

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__: list[str] = []

Product = Callable[..., Array]
"""Multiplies matrices: see `Application.product`."""

_BIAS = 2
_JOINT_PRODUCT_BYTES = 2**25


@single_output_rule("Conv", reads_inputs=Reads.OTHERS, takes_coarse=True)
def _conv(application: Application, gradient: Array) -> Gradients:
    """ONNX Conv: y = W * x is linear in x and in W; dx is the transposed convolution of g by W."""
    shape, kernel_shape = application.input_shape(0), application.input_shape(1)
    layout = windows(application, kernel_shape[2:], narrow=gradient.shape[2:], wide=shape[2:])
    group = application.attributes.get("group", 1)
    by_input = by_kernel = by_bias = None
    if 0 in application.wanted:
        by_input = _spread(gradient, application.input(1), layout, group, application.product)
    if 1 in application.wanted:
        by_kernel = _correlate(gradient, application.input(0), layout, group=group)
    if _BIAS in application.wanted:
        by_bias = _sum_to_channels(gradient)
    return by_input, by_kernel, by_bias


@single_output_rule("ConvTranspose", reads_inputs=Reads.OTHERS, takes_coarse=True)
def _conv_transpose(application: Application, gradient: Array) -> Gradients:
    """ONNX ConvTranspose: the adjoint of a convolution, so dx is the convolution of g by W."""
    layout = _transposed_windows(application, gradient)
    group = application.attributes.get("group", 1)
    by_input = by_kernel = by_bias = None
    if 0 in application.wanted:
        by_input = _gather(gradient, application.input(1), layout, group, application.product)
    if 1 in application.wanted:
        by_kernel = _correlate(application.input(0), gradient, layout, group=group)
    if _BIAS in application.wanted:
        by_bias = _sum_to_channels(gradient)
    return by_input, by_kernel, by_bias


def _spread(narrow: Array, kernel: Array, layout: Windows, group: int, product: Product) -> Array:
    """Returns `(N, C, *wide)` from `(N, M, *narrow)` and a kernel `(M, C/group, *taps)`."""
    columns = _grouped(narrow, group)
    batch, channels = narrow.shape[0], group * kernel.shape[1]
    if layout.is_pointwise:
        weight = kernel.reshape(group, -1, kernel.shape[1])
        spread = _applied(weight, columns, product, transposed=True)
        return spread.reshape(batch, channels, *layout.wide)
    padded = namespace_of(narrow).zeros((batch, channels, *layout.padded), narrow.dtype)
    parts = _tap_products(columns, kernel, prod(layout.kernel), group, product)
    for part, places in zip(parts, layout.taps(), strict=True):
        padded[places] += part.reshape(batch, channels, *layout.narrow)
    return layout.crop(padded)


def _tap_products(
    columns: Array, kernel: Array, taps: int, group: int, product: Product
) -> Iterator[Array]:
    """Yields, for each tap, its transposed weights times `(N, group, M/group, positions)`."""
    batch, _, depth, positions = columns.shape
    size_bytes = batch * group * kernel.shape[1] * taps * positions * columns.itemsize
    if depth == 1 or size_bytes > _JOINT_PRODUCT_BYTES:
        for weight in _grouped_kernel(kernel, group):
            yield _applied(weight, columns, product, transposed=True)
        return
    # One product for all taps needs no copy of the kernel, which in late layers is the larger.
    weights = kernel.reshape(group, depth, -1)
    joint = product(weights, columns, transpose_first=True).reshape(batch, -1, taps, positions)
    for tap in range(taps):
        yield joint[:, :, tap]


def _gather(wide: Array, kernel: Array, layout: Windows, group: int, product: Product) -> Array:
    """Returns `(N, M, *narrow)` from `(N, C, *wide)` and a kernel `(M, C/group, *taps)`."""
    weights = _grouped_kernel(kernel, group)
    padded = layout.pad(wide, 0)
    total: Array | None = None
    for weight, places in zip(weights, layout.taps(), strict=True):
        part = _applied(weight, _grouped(padded[places], group), product, transposed=False)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total.reshape(wide.shape[0], kernel.shape[0], *layout.narrow)


def _correlate(narrow: Array, wide: Array, layout: Windows, *, group: int) -> Array:
    """Returns the kernel's gradient `(M, C/group, *taps)` from both sides of the windows."""
    rows = _grouped(narrow, group)
    padded = layout.pad(wide, 0)
    parts = [
        np.matmul(rows, _grouped(padded[places], group).swapaxes(-1, -2)).sum(axis=0)
        for places in layout.taps()
    ]
    stacked = np.stack(parts, axis=-1)
    return stacked.reshape(narrow.shape[1], wide.shape[1] // group, *layout.kernel)


def _grouped(values: Array, group: int) -> Array:
    return values.reshape(values.shape[0], group, values.shape[1] // group, -1)


def _grouped_kernel(kernel: Array, group: int) -> Array:
    """Returns one contiguous `(group, M/group, C/group)` for each tap."""
    taps = kernel.reshape(group, kernel.shape[0] // group, kernel.shape[1], -1)
    moved: Array = namespace_of(kernel).ascontiguousarray(np.moveaxis(taps, -1, 0))
    return moved


def _applied(weight: Array, columns: Array, product: Product, *, transposed: bool) -> Array:
    """Returns `(group, A, B) @ (N, group, B, P)`, or the same with the weights transposed."""
    if weight.shape[-2 if transposed else -1] == 1:
        # Depthwise: a matrix product of one column is slower than the multiplication it is.
        return (weight.swapaxes(-1, -2) if transposed else weight) * columns
    return product(weight, columns, transpose_first=transposed)


def _sum_to_channels(gradient: Array) -> Array:
    by_channel: Array = gradient.sum(axis=(0, *range(2, gradient.ndim)))
    return by_channel


def _transposed_windows(application: Application, gradient: Array) -> Windows:
    kernel = application.input_shape(1)[2:]
    narrow, wide = application.input_shape(0)[2:], gradient.shape[2:]
    rank = len(kernel)
    attributes = dict(application.attributes)
    layout = windows(application, kernel, narrow=narrow, wide=wide)
    automatic = attributes.get("auto_pad", "NOTSET")
    if automatic == "NOTSET" and not attributes.get("output_shape"):
        return layout
    extra = tuple(attributes.get("output_padding") or [0] * rank)
    totals = [
        max((n - 1) * s + e + (k - 1) * d + 1 - w, 0)
        for n, s, e, k, d, w in zip(
            narrow, layout.strides, extra, kernel, layout.dilations, wide, strict=True
        )
    ]
    small = tuple(total // 2 for total in totals)
    large = tuple(total - total // 2 for total in totals)
    begins, ends = (small, large) if automatic == "SAME_UPPER" else (large, small)
    if automatic == "VALID":
        begins = ends = (0,) * rank
    return Windows(kernel, layout.strides, layout.dilations, begins, ends, narrow, wide)
