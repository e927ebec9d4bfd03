"""Rules of pooling over windows and over all of space."""

from __future__ import annotations

from functools import reduce

import numpy as np

from polygraphy_layerprec.arrays import namespace_of
from polygraphy_layerprec.divergence.rules.chain import finite
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)
from polygraphy_layerprec.divergence.rules.windows import Windows, windows

__all__: list[str] = []


@single_output_rule("MaxPool", reads_inputs=Reads.ALL, reads_outputs=True)
def _max_pool(application: Application, gradient: Array) -> Gradients:
    """ONNX MaxPool: the gradient goes to the first element of each window that attains it."""
    layout = _pool_windows(application)
    values = layout.pad(application.input(0), -np.inf)
    largest = application.output()
    spread = np.zeros_like(values, gradient.dtype)
    unclaimed = np.ones_like(gradient, bool)
    for places in layout.taps():
        hit = values[places] == largest
        hit &= unclaimed
        unclaimed ^= hit
        spread[places] += gradient * hit
    return [layout.crop(spread)]


@single_output_rule("AveragePool")
def _average_pool(application: Application, gradient: Array) -> Gradients:
    """ONNX AveragePool: y = sum x / n over the window, so dy/dx = 1/n, n the taps that count."""
    layout = _pool_windows(application)
    includes_padding = bool(application.attributes.get("count_include_pad", 0))
    counts = layout.coverage(includes_padding=includes_padding)
    taps = reduce(np.multiply.outer, counts).astype(gradient.dtype)
    share = gradient / namespace_of(gradient).asarray(taps)
    return [_spread_evenly(share, layout)]


@single_output_rule("LpPool", since=2, reads_inputs=Reads.ALL, reads_outputs=True)
def _lp_pool(application: Application, gradient: Array) -> Gradients:
    """ONNX LpPool: y = (sum |x|^p)^(1/p), so dy/dx = sign(x) (|x|/y)^(p-1)."""
    power = application.attributes.get("p", 2) - 1
    share = finite(gradient * application.output() ** -power)
    values = application.input(0)
    slope = np.sign(values) * np.abs(values) ** power
    return [_spread_evenly(share, _pool_windows(application)) * slope]


@single_output_rule("GlobalAveragePool")
def _global_average_pool(application: Application, gradient: Array) -> Gradients:
    """ONNX GlobalAveragePool: the mean over space, so dy/dx = 1/n."""
    shape = application.input_shape(0)
    size = max(int(np.prod(shape[2:])), 1)
    return [np.broadcast_to(gradient / size, shape)]


@single_output_rule("GlobalMaxPool", reads_inputs=Reads.ALL, reads_outputs=True)
def _global_max_pool(application: Application, gradient: Array) -> Gradients:
    """ONNX GlobalMaxPool: dy/dx = [x = y], shared evenly between equals."""
    hits = (application.input(0) == application.output()).astype(gradient.dtype)
    count = hits.sum(axis=tuple(range(2, hits.ndim)), keepdims=True)
    return [hits * (gradient / count)]


@single_output_rule("GlobalLpPool", since=2, reads_inputs=Reads.ALL, reads_outputs=True)
def _global_lp_pool(application: Application, gradient: Array) -> Gradients:
    """ONNX GlobalLpPool: y = (sum |x|^p)^(1/p), so dy/dx = sign(x) (|x|/y)^(p-1)."""
    power = application.attributes.get("p", 2) - 1
    values = application.input(0)
    share = finite(gradient * application.output() ** -power)
    return [share * np.sign(values) * np.abs(values) ** power]


def _pool_windows(application: Application) -> Windows:
    shape = application.output_shapes[0]
    kernel = tuple(application.attributes["kernel_shape"])
    narrow = () if shape is None else shape[2:]
    return windows(application, kernel, narrow=narrow, wide=application.input_shape(0)[2:])


def _spread_evenly(share: Array, layout: Windows) -> Array:
    padded = namespace_of(share).zeros(share.shape[:2] + layout.padded, share.dtype)
    for places in layout.taps():
        padded[places] += share
    return layout.crop(padded)
