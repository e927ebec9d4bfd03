"""Rules of reductions over axes, and of running sums."""

from __future__ import annotations

from dataclasses import dataclass

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


@single_output_rule("ReduceSum")
def _reduce_sum(application: Application, gradient: Array) -> Gradients:
    """ONNX ReduceSum: y = sum x, so dy/dx = 1."""
    reduction = _reduction(application)
    return [np.broadcast_to(reduction.keep(gradient), reduction.shape)]


@single_output_rule("ReduceMean")
def _reduce_mean(application: Application, gradient: Array) -> Gradients:
    """ONNX ReduceMean: y = sum x / n, so dy/dx = 1/n."""
    reduction = _reduction(application)
    count = max(int(np.prod([reduction.shape[axis] for axis in reduction.axes])), 1)
    return [np.broadcast_to(reduction.keep(gradient) / count, reduction.shape)]


@single_output_rule("ReduceMax", "ReduceMin", reads_inputs=Reads.ALL, reads_outputs=True)
def _reduce_extreme(application: Application, gradient: Array) -> Gradients:
    """ONNX ReduceMax, ReduceMin: dy/dx = [x = y], shared evenly between equals."""
    reduction = _reduction(application)
    hits = application.input(0) == reduction.keep(application.output())
    count = hits.sum(axis=reduction.axes, keepdims=True).astype(gradient.dtype)
    return [hits * (reduction.keep(gradient) / count)]


@single_output_rule("ReduceL1", reads_inputs=Reads.ALL)
def _reduce_l1(application: Application, gradient: Array) -> Gradients:
    """ONNX ReduceL1: y = sum |x|, so dy/dx = sign x."""
    return [_reduction(application).keep(gradient) * np.sign(application.input(0))]


@single_output_rule("ReduceL2", reads_inputs=Reads.ALL, reads_outputs=True)
def _reduce_l2(application: Application, gradient: Array) -> Gradients:
    """ONNX ReduceL2: y = sqrt(sum x^2), so dy/dx = x/y."""
    reduction = _reduction(application)
    slope = application.input(0) / reduction.keep(application.output())
    return [chain(reduction.keep(gradient), slope)]


@single_output_rule("ReduceSumSquare", reads_inputs=Reads.ALL)
def _reduce_sum_square(application: Application, gradient: Array) -> Gradients:
    """ONNX ReduceSumSquare: y = sum x^2, so dy/dx = 2x."""
    return [_reduction(application).keep(gradient) * 2 * application.input(0)]


@single_output_rule("ReduceLogSum", reads_outputs=True)
def _reduce_log_sum(application: Application, gradient: Array) -> Gradients:
    """ONNX ReduceLogSum: y = ln(sum x), so dy/dx = 1 / sum x = e^-y."""
    reduction = _reduction(application)
    share = chain(gradient, np.exp(-application.output()))
    return [np.broadcast_to(reduction.keep(share), reduction.shape)]


@single_output_rule("ReduceLogSumExp", reads_inputs=Reads.ALL, reads_outputs=True)
def _reduce_log_sum_exp(application: Application, gradient: Array) -> Gradients:
    """ONNX ReduceLogSumExp: y = ln(sum e^x), so dy/dx = e^(x-y)."""
    reduction = _reduction(application)
    slope = np.exp(application.input(0) - reduction.keep(application.output()))
    return [chain(reduction.keep(gradient), slope)]


@single_output_rule("ReduceProd", reads_inputs=Reads.ALL)
def _reduce_prod(application: Application, gradient: Array) -> Gradients:
    """ONNX ReduceProd: y = prod x, so dy/dx_i is the product of the others."""
    reduction = _reduction(application)
    values = application.input(0)
    is_zero = values == 0
    zeros = is_zero.sum(axis=reduction.axes, keepdims=True)
    # Dividing y by x leaves the product of the others, unless x is the only 0 among them.
    divisors = np.where(is_zero, values.dtype.type(1), values)
    product = divisors.prod(axis=reduction.axes, keepdims=True)
    reached = zeros == is_zero
    return [chain(reduction.keep(gradient) * product, reached / divisors)]


@single_output_rule("CumSum", since=11)
def _cumulative_sum(application: Application, gradient: Array) -> Gradients:
    """ONNX CumSum: each x adds to the sums after it, so dx is the running sum from the other end."""  # noqa: E501
    axis = int(application.input(1).reshape(-1)[0])
    is_forward = bool(application.attributes.get("reverse", 0))
    along = gradient if is_forward else np.flip(gradient, axis)
    sums = along.cumsum(axis=axis, dtype=gradient.dtype)
    if application.attributes.get("exclusive", 0):
        sums -= along
    return [sums if is_forward else np.flip(sums, axis)]


@dataclass(frozen=True, slots=True)
class _Reduction:
    """Axes of a reduction and how its result lines up with its input."""

    shape: tuple[int, ...]
    """Shape of the input."""

    axes: tuple[int, ...]
    """Reduced axes, from 0 to the rank of the input."""

    def keep(self, reduced: Array) -> Array:
        """Returns an array of the output's shape with the reduced axes at size 1."""
        return reduced.reshape(
            [1 if axis in self.axes else size for axis, size in enumerate(self.shape)]
        )


def _reduction(application: Application) -> _Reduction:
    shape = application.input_shape(0)
    axes = application.attributes.get("axes")
    if axes is None and application.has_input(1):
        axes = application.input(1).reshape(-1).tolist()
    if not axes:
        is_identity = bool(application.attributes.get("noop_with_empty_axes", 0))
        axes = () if is_identity else range(len(shape))
    return _Reduction(shape, tuple(axis % max(len(shape), 1) for axis in axes))
