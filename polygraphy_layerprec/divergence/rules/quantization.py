"""Rules of changes of representation: identities, casts, and quantization as straight-through.

Rounding has derivative 0 almost everywhere, which would hide everything before it. Its gradient
is taken as that of its argument instead (the straight-through estimator: Bengio et al., 2013,
arXiv:1308.3432), in the saturated range too. Quantization is then q = x / scale and
dequantization x = q scale, so that a pair of them passes gradients on unchanged.
"""

from __future__ import annotations

import numpy as np

from polygraphy_layerprec.divergence.rules.chain import chain
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)

__all__: list[str] = []


@single_output_rule("Identity", "Cast", "CastLike", "Dropout")
def _identity(_: Application, gradient: Array) -> Gradients:
    """ONNX Identity, Cast, Dropout in inference: y = x up to rounding, so dy/dx = 1."""
    return [gradient]


@single_output_rule("QuantizeLinear", since=10, reads_inputs=Reads.OTHERS)
def _quantize(application: Application, gradient: Array) -> Gradients:
    """ONNX QuantizeLinear, straight-through: q = x / scale + zero, so dq/dx = 1 / scale."""
    return [chain(gradient, 1 / _scale(application, gradient))]


@single_output_rule("DequantizeLinear", since=10, reads_inputs=Reads.OTHERS)
def _dequantize(application: Application, gradient: Array) -> Gradients:
    """ONNX DequantizeLinear: y = (q - zero) scale, so dy/dq = scale."""
    return [gradient * _scale(application, gradient)]


@single_output_rule("DynamicQuantizeLinear", since=11, reads_outputs=True)
def _dynamic_quantize(application: Application, gradient: Array) -> Gradients:
    """ONNX DynamicQuantizeLinear, straight-through: q = x / scale + zero, dq/dx = 1 / scale."""
    return [chain(gradient, 1 / application.output(1).astype(gradient.dtype))]


def _scale(application: Application, gradient: Array) -> Array:
    """Returns the scale, for a tensor, a channel or a block, in a shape that broadcasts."""
    scale = application.input(1).astype(gradient.dtype, copy=False)
    axis = application.attributes.get("axis", 1)
    block = application.attributes.get("block_size", 0)
    if scale.size == 1:
        return scale.reshape(())
    if block:
        size = gradient.shape[axis]
        return np.repeat(scale, block, axis=axis).take(range(size), axis=axis)
    return scale.reshape([-1 if i == axis % gradient.ndim else 1 for i in range(gradient.ndim)])
