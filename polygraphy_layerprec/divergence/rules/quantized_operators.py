"""Rules of ONNX-Runtime's operators from integers to integers, each with its scale and zero point.

What is computed of the floats for which the integers stand is divided by the scale of the result,
straight-through, and clipped to its range.
"""

from __future__ import annotations

from math import prod

import numpy as np

from polygraphy_layerprec.divergence.rules.chain import chain
from polygraphy_layerprec.divergence.rules.integer_products import unclipped
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)

__all__: list[str] = []

_DOMAIN = "com.microsoft"
_OPERANDS = (0, 3)
"""Positions of two operands; a scale and a zero point follow each."""
_RESULT = 6
"""Position of the scale of what is made of two operands."""


@single_output_rule("QLinearAdd", domain=_DOMAIN, reads_inputs=Reads.OTHERS, reads_outputs=True)
def _qlinear_add(application: Application, gradient: Array) -> Gradients:
    """ONNX-Runtime QLinearAdd: q = clip((A s_A + B s_B) / s + zero), so dq/dA = s_A / s."""
    within = unclipped(application, gradient) / _scale(application, gradient, _RESULT)
    gradients: list[Array | None] = [None] * len(application.input_shapes)
    for position in _OPERANDS:
        if position in application.wanted:
            scale = _scale(application, gradient, position + 1)
            gradients[position] = chain(within, scale, application.input_shape(position))
    return gradients


@single_output_rule("QLinearMul", domain=_DOMAIN, reads_inputs=Reads.OTHERS, reads_outputs=True)
def _qlinear_mul(application: Application, gradient: Array) -> Gradients:
    """ONNX-Runtime QLinearMul: q = clip(A s_A B s_B / s + zero), so dq/dA = s_A B s_B / s."""
    scales = [_scale(application, gradient, i) for i in (1, 4, _RESULT)]
    within = unclipped(application, gradient) * (scales[0] * scales[1] / scales[2])
    gradients: list[Array | None] = [None] * len(application.input_shapes)
    for position, other in zip(_OPERANDS, _OPERANDS[::-1], strict=True):
        if position in application.wanted:
            factor = application.input(other).astype(gradient.dtype)
            if application.has_input(other + 2):
                factor = factor - application.input(other + 2).astype(gradient.dtype)
            gradients[position] = chain(within, factor, application.input_shape(position))
    return gradients


@single_output_rule(
    "QLinearGlobalAveragePool", domain=_DOMAIN, reads_inputs=Reads.OTHERS, reads_outputs=True
)
def _qlinear_global_average_pool(application: Application, gradient: Array) -> Gradients:
    """ONNX-Runtime QLinearGlobalAveragePool: a mean over positions, times s_X / s."""
    shape = application.input_shape(0)
    ratio = _scale(application, gradient, 1) / _scale(application, gradient, 3)
    count = prod(shape) // max(prod(gradient.shape), 1)
    return [np.broadcast_to(unclipped(application, gradient) * (ratio / count), shape)]


@single_output_rule("QLinearConcat", domain=_DOMAIN, reads_inputs=Reads.OTHERS, reads_outputs=True)
def _qlinear_concat(application: Application, gradient: Array) -> Gradients:
    """ONNX-Runtime QLinearConcat: each operand is a slice of the result, times s_X / s."""
    axis = application.attributes["axis"]
    within = unclipped(application, gradient) / _scale(application, gradient, 0)
    positions = range(2, len(application.input_shapes), 3)
    sizes = [application.input_shape(position)[axis] for position in positions]
    gradients: list[Array | None] = [None] * len(application.input_shapes)
    parts = np.split(within, np.cumsum(sizes)[:-1].tolist(), axis=axis)
    for position, part in zip(positions, parts, strict=True):
        gradients[position] = part * _scale(application, gradient, position + 1)
    return gradients


def _scale(application: Application, gradient: Array, position: int) -> Array:
    return application.input(position).astype(gradient.dtype).reshape(())
