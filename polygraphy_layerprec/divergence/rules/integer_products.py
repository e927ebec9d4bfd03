"""Rules of products of integers that stand for floats, and of products that quantize their result.

The rule of the same product of floats does the work, on integers without their zero points. A
result that is the least or the greatest integer was clipped, and nothing moves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from polygraphy_layerprec.divergence.rules.quantization import range_of
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    find_rule,
    single_output_rule,
)

__all__ = ["unclipped"]

_SECOND = 3
"""Position of the second factor where each comes with a scale and a zero point."""


@single_output_rule("MatMulInteger", since=10, reads_inputs=Reads.OTHERS)
def _matmul_integer(application: Application, gradient: Array) -> Gradients:
    """ONNX MatMulInteger: Y = (A - a) (B - b), so dA = G (B - b)^T and dB = (A - a)^T G."""
    first = _without_zero(application, gradient, 0, 2, axis=-2)
    second = _without_zero(application, gradient, 1, 3, axis=-1)
    return _product("MatMul", application, [first, second], (0, 1), gradient)


@single_output_rule("ConvInteger", since=10, reads_inputs=Reads.OTHERS)
def _conv_integer(application: Application, gradient: Array) -> Gradients:
    """ONNX ConvInteger: Y = (W - w) * (X - x), the convolution of integers."""
    factors = [
        _without_zero(application, gradient, 0, 2, axis=1),
        _without_zero(application, gradient, 1, 3, axis=0),
    ]
    return _product("Conv", application, factors, (0, 1), gradient)


@single_output_rule("QLinearMatMul", since=10, reads_inputs=Reads.OTHERS, reads_outputs=True)
def _qlinear_matmul(application: Application, gradient: Array) -> Gradients:
    """ONNX QLinearMatMul: q = clip((A - a) (B - b) s_A s_B / s_Y + zero), straight-through."""
    first_scale, second_scale, scale = (_scale(application, gradient, i) for i in (1, 4, 6))
    first_scale, scale = _as_rows(first_scale), _as_rows(scale)
    first = _without_zero(application, gradient, 0, 2, axis=-2)
    second = _without_zero(application, gradient, _SECOND, 5, axis=-1)
    factors = [
        None if first is None else first * first_scale,
        None if second is None else second * second_scale,
    ]
    within = unclipped(application, gradient) / scale
    by_first, by_second = _product("MatMul", application, factors, (0, _SECOND), within)
    return [
        None if by_first is None else by_first * first_scale,
        None,
        None,
        None if by_second is None else by_second * second_scale,
    ]


@single_output_rule("QLinearConv", since=10, reads_inputs=Reads.OTHERS, reads_outputs=True)
def _qlinear_conv(application: Application, gradient: Array) -> Gradients:
    """ONNX QLinearConv: q = clip((W - w) * (X - x) s_W s_X / s_Y + zero), straight-through."""
    if _SECOND in application.wanted:
        return ()
    scale_of_values, scale_of_kernel, scale = (_scale(application, gradient, i) for i in (1, 4, 6))
    kernel = _without_zero(application, gradient, _SECOND, 5, axis=0)
    factor = _per_channel(scale_of_kernel, gradient.ndim, axis=0)
    factors = [None, None if kernel is None else kernel * factor]
    within = unclipped(application, gradient) * (scale_of_values / scale)
    return _product("Conv", application, factors, (0, _SECOND), within)


def _product(
    op_type: str,
    application: Application,
    factors: Sequence[Array | None],
    positions: tuple[int, int],
    gradient: Array,
) -> Gradients:
    """The gradients of two factors of a product, where the rule of its floats finds them."""
    found = find_rule(op_type, "", application.opset)
    assert found is not None
    plain = replace(
        application,
        op_type=op_type,
        inputs=factors,
        outputs=[None],
        input_shapes=[application.input_shape(position) for position in positions],
        wanted=frozenset(i for i, p in enumerate(positions) if p in application.wanted),
    )
    return found.apply(plain, [gradient])


def _without_zero(
    application: Application, gradient: Array, position: int, zero: int, *, axis: int
) -> Array | None:
    """A factor as floats, 0 where its zero point was; None where the rule does not read it.

    Several zero points lie along `axis`, unless their own shape says where.
    """
    values = application.inputs[position]
    if values is None:
        return None
    offset = application.inputs[zero] if application.has_input(zero) else None
    centred: Array = values.astype(gradient.dtype)
    if offset is None:
        return centred
    offset = offset.astype(gradient.dtype)
    if offset.ndim <= 1:
        offset = _per_channel(offset, values.ndim, axis=axis)
    return np.asarray(centred - offset)


def unclipped(application: Application, gradient: Array) -> Array:
    """Returns the gradient where the result is neither the least nor the greatest integer."""
    result = application.output()
    low, high = range_of(result.dtype.name)
    return np.asarray(gradient * ((result > low) & (result < high)))


def _scale(application: Application, gradient: Array, position: int) -> Array:
    scale = application.input(position).astype(gradient.dtype)
    return scale.reshape(()) if scale.size == 1 else scale


def _as_rows(values: Array) -> Array:
    return values[:, None] if values.ndim == 1 else values


def _per_channel(values: Array, rank: int, *, axis: int) -> Array:
    if values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
