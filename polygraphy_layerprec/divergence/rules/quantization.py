"""Rules of changes of representation: identities, casts, and quantization as straight-through.

Rounding has derivative 0 almost everywhere, which would hide everything before it. Its gradient
is taken as that of its argument instead (the straight-through estimator: Bengio et al., 2013,
arXiv:1308.3432), and as 0 where the argument is beyond the range that the integers have, since
there nothing moves. Quantization is then q = clip(x / scale + zero) and dequantization
x = (q - zero) scale, so that a pair of them passes gradients on unchanged within the range.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np

from polygraphy_layerprec.arrays import namespace_of
from polygraphy_layerprec.divergence.rules.chain import chain
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)

__all__ = ["range_of"]

_SCALE: Final = 1
_ZERO: Final = 2
_NAMES: Final = {
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    25: "uint2",
    26: "int2",
}
"""Types to quantize to, by the number that ONNX gives them."""
_LARGEST_FLOATS: Final = {
    "float8_e4m3fn": 448.0,
    "float8_e4m3fnuz": 240.0,
    "float8_e5m2": 57344.0,
    "float8_e5m2fnuz": 57344.0,
    "float4_e2m1fn": 6.0,
}


def range_of(kind: str) -> tuple[float, float]:
    """Returns the least and the greatest number of a type to quantize to, such as `int4`."""
    if kind in _LARGEST_FLOATS:
        return -_LARGEST_FLOATS[kind], _LARGEST_FLOATS[kind]
    bits = int(kind.lstrip("uint"))
    if kind.startswith("u"):
        return 0.0, 2.0**bits - 1.0
    return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1.0


@single_output_rule("CastLike", since=15)
def _cast_like(application: Application, gradient: Array) -> Gradients:
    """ONNX CastLike: a Cast; of the other input the type alone counts, so its gradient is 0."""
    return gradient, namespace_of(gradient).zeros(application.input_shape(1), gradient.dtype)


@single_output_rule("Identity", "Cast", "Dropout", "Ceil", "Floor", "Round")
def _identity(_: Application, gradient: Array) -> Gradients:
    """ONNX Identity, Cast, Round, Dropout in inference: y = x up to rounding, so dy/dx = 1."""
    return [gradient]


@single_output_rule("QuantizeLinear", since=10, reads_inputs=Reads.ALL)
def _quantize(application: Application, gradient: Array) -> Gradients:
    """ONNX QuantizeLinear, straight-through: q = clip(x / s + zero), so dq/dx = 1/s, dq/ds = -x/s^2."""  # noqa: E501
    values = application.input(0)
    scale = _scale(application, values.shape, gradient.dtype)
    steps = values / scale
    low, high = _steps_in_range(application, values)
    inside = chain(gradient / scale, (steps >= low) & (steps <= high))
    by_scale = None
    if _SCALE in application.wanted:
        by_scale = _sum_to_scale(application, chain(inside, -steps))
    return inside, by_scale


@single_output_rule("DequantizeLinear", since=10, reads_inputs=Reads.OTHERS)
def _dequantize(application: Application, gradient: Array) -> Gradients:
    """ONNX DequantizeLinear: y = (q - zero) s, so dy/dq = s and dy/ds = q - zero."""
    by_values = by_scale = None
    if 0 in application.wanted:
        by_values = gradient * _scale(application, gradient.shape, gradient.dtype)
    if _SCALE in application.wanted:
        zero = _zero(application, gradient.shape, gradient.dtype)
        centred = application.input(0).astype(gradient.dtype) - zero
        by_scale = _sum_to_scale(application, chain(gradient, centred))
    return by_values, by_scale


@single_output_rule("DynamicQuantizeLinear", since=11, reads_outputs=True)
def _dynamic_quantize(application: Application, gradient: Array) -> Gradients:
    """ONNX DynamicQuantizeLinear, straight-through: q = x / scale + zero, dq/dx = 1 / scale.

    All values are in range. What their extremes do to the scale undoes itself: what is divided by
    it here is multiplied by it later, but for a rest below one step.
    """
    return [chain(gradient, 1 / application.output(1).astype(gradient.dtype))]


def _scale(application: Application, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Returns the scale, for a tensor, a channel or a block, in a shape that broadcasts."""
    return _spread(application, application.input(_SCALE).astype(dtype, copy=False), shape)


def _zero(application: Application, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Returns the zero point in the same way, 0 where there is none."""
    zero = application.inputs[_ZERO] if application.has_input(_ZERO) else None
    return np.zeros((), dtype) if zero is None else _spread(application, zero.astype(dtype), shape)


def _spread(application: Application, values: Array, shape: tuple[int, ...]) -> Array:
    axis = application.attributes.get("axis", 1)
    block = application.attributes.get("block_size", 0)
    if values.size == 1:
        return values.reshape(())
    if block:
        return np.repeat(values, block, axis=axis).take(range(shape[axis]), axis=axis)
    return values.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])


def _sum_to_scale(application: Application, gradient: Array) -> Array:
    """The adjoint of `_spread`."""
    shape = application.input_shape(_SCALE)
    axis = application.attributes.get("axis", 1)
    block = application.attributes.get("block_size", 0)
    if prod(shape) == 1:
        return np.asarray(gradient.sum()).reshape(shape)
    if block:
        starts = range(0, gradient.shape[axis], block)
        return np.add.reduceat(gradient, list(starts), axis=axis)
    others = tuple(i for i in range(gradient.ndim) if i != axis % gradient.ndim)
    return np.asarray(gradient.sum(axis=others)).reshape(shape)


def _steps_in_range(application: Application, values: Array) -> tuple[Array, Array]:
    """Between which x / scale the result moves; half a step beyond the last it still does."""
    zero = application.inputs[_ZERO] if application.has_input(_ZERO) else None
    if zero is not None:
        kind = zero.dtype.name
    else:
        kind = _NAMES.get(application.attributes.get("output_dtype", 0), "uint8")
    low, high = range_of(kind)
    spare = 0.0 if kind.startswith("float") else 0.5
    offset = _zero(application, values.shape, values.dtype)
    return low - spare - offset, high + spare - offset
