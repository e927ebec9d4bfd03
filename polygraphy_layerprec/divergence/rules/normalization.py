"""Rules of the normalizations: over layers, batches, instances, groups and channels."""

from __future__ import annotations

from math import prod

import numpy as np

from polygraphy_layerprec.divergence.rules.chain import chain, sum_to
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    rule,
    single_output_rule,
)

__all__: list[str] = []

_SCALE, _BIAS = 1, 2
_MEAN, _VARIANCE = 3, 4
_GROUP_SCALE_BY_CHANNEL = 21
_SUM_OUTPUT = 3


@single_output_rule("LayerNormalization", since=17, reads_inputs=Reads.ALL)
def _layer_normalization(application: Application, gradient: Array) -> Gradients:
    """ONNX LayerNormalization: y = x^ scale + bias, x^ = (x - mean) / std over the last axes."""
    values = application.input(0)
    axes = _trailing_axes(application, values.ndim)
    return _affine_gradients(application, gradient, values, axes)


@single_output_rule("RMSNormalization", since=23, reads_inputs=Reads.ALL)
@single_output_rule("SimplifiedLayerNormalization", reads_inputs=Reads.ALL)
def _rms_normalization(application: Application, gradient: Array) -> Gradients:
    """ONNX RMSNormalization: y = x^ scale, x^ = x / rms(x) over the last axes."""
    values = application.input(0)
    axes = _trailing_axes(application, values.ndim)
    return _affine_gradients(application, gradient, values, axes, is_centred=False)


@rule("SkipLayerNormalization", domain="com.microsoft", reads_inputs=Reads.ALL)
def _skip_layer_normalization(application: Application, gradients: Gradients) -> Gradients:
    """ONNX Runtime SkipLayerNormalization: LayerNormalization of x + skip + bias, also put out."""
    return _skip_normalization(application, gradients, bias=4, is_centred=True)


@rule("SkipSimplifiedLayerNormalization", domain="com.microsoft", reads_inputs=Reads.ALL)
def _skip_rms_normalization(application: Application, gradients: Gradients) -> Gradients:
    """ONNX Runtime SkipSimplifiedLayerNormalization: RMSNormalization of x + skip + bias."""
    return _skip_normalization(application, gradients, bias=3, is_centred=False)


@single_output_rule("BatchNormalization", since=7, reads_inputs=Reads.OTHERS)
def _batch_normalization(application: Application, gradient: Array) -> Gradients:
    """ONNX BatchNormalization in inference: y = (x - mean) scale / sqrt(var + eps) + bias."""
    attributes = application.attributes
    if attributes.get("training_mode", 0) or not attributes.get("spatial", 1):
        return ()
    by_channel = (-1, *[1] * (gradient.ndim - 2))
    deviation = application.inputs[_VARIANCE]
    if deviation is None:
        return ()
    inverse = 1 / np.sqrt(deviation + attributes.get("epsilon", 1e-5)).astype(gradient.dtype)
    results: list[Array | None] = [None] * len(application.inputs)
    over = (0, *range(2, gradient.ndim))
    if application.wanted & {0, _MEAN}:
        slope = application.input(_SCALE) * inverse
        by_input = chain(gradient, slope.reshape(by_channel))
        results[0], results[_MEAN] = by_input, -by_input.sum(axis=over)
    if _SCALE in application.wanted:
        centred = application.input(0) - application.input(_MEAN).reshape(by_channel)
        results[_SCALE] = inverse * (gradient * centred).sum(axis=over)
    if _BIAS in application.wanted:
        results[_BIAS] = gradient.sum(axis=over)
    return results


@single_output_rule("InstanceNormalization", since=6, reads_inputs=Reads.ALL)
def _instance_normalization(application: Application, gradient: Array) -> Gradients:
    """ONNX InstanceNormalization: y = x^ scale + bias, x^ = (x - mean) / std over space."""
    values = application.input(0)
    by_channel = (-1, *[1] * (values.ndim - 2))
    return _affine_gradients(
        application, gradient, values, tuple(range(2, values.ndim)), parameter_shape=by_channel
    )


@single_output_rule("GroupNormalization", since=18, reads_inputs=Reads.ALL)
def _group_normalization(application: Application, gradient: Array) -> Gradients:
    """ONNX GroupNormalization: y = x^ scale + bias, x^ over groups of channels and space.

    Scale and bias hold one value for each group up to operator set 20, then one for each channel.
    """
    shape = application.input_shape(0)
    groups = application.attributes["num_groups"]
    split = (shape[0], groups, shape[1] // groups, prod(shape[2:]))
    by_channel = application.opset >= _GROUP_SCALE_BY_CHANNEL
    results = _affine_gradients(
        application,
        gradient.reshape(split),
        application.input(0).reshape(split),
        (2, 3),
        parameter_shape=(*split[1:3], 1) if by_channel else (groups, 1, 1),
    )
    return [results[0].reshape(shape) if results[0] is not None else None, *results[1:]]


@single_output_rule("MeanVarianceNormalization", since=9, reads_inputs=Reads.ALL)
def _mean_variance_normalization(application: Application, gradient: Array) -> Gradients:
    """ONNX MeanVarianceNormalization: y = (x - mean) / std over `axes`."""
    axes = tuple(application.attributes.get("axes", (0, 2, 3)))
    standard, inverse = _standardize(application.input(0), axes, epsilon=0.0, is_centred=True)
    return [_through_standard(gradient, standard, inverse, axes, is_centred=True)]


@single_output_rule("LpNormalization", reads_inputs=Reads.ALL)
def _lp_normalization(application: Application, gradient: Array) -> Gradients:
    """ONNX LpNormalization: y = x/n, so dx = (g - n' sum(g y)) / n, n' = sign(x) or, for p = 2, y."""  # noqa: E501
    values = application.input(0)
    axis = application.attributes.get("axis", -1)
    if application.attributes.get("p", 2) == 1:
        norm = np.abs(values).sum(axis=axis, keepdims=True)
        norm_slope, unit = np.sign(values), values / norm
    else:
        norm = np.sqrt(np.square(values).sum(axis=axis, keepdims=True))
        norm_slope = unit = values / norm
    projection = (gradient * unit).sum(axis=axis, keepdims=True)
    return [(gradient - norm_slope * projection) / norm]


@single_output_rule("LRN", reads_inputs=Reads.ALL)
def _local_response_normalization(application: Application, gradient: Array) -> Gradients:
    """ONNX LRN: y = x d^-beta, d = bias + alpha/n sum x^2 over n channels around (product rule)."""
    attributes = application.attributes
    values = application.input(0)
    alpha, beta = attributes.get("alpha", 1e-4), attributes.get("beta", 0.75)
    size = attributes["size"]
    before, after = (size - 1) // 2, size // 2
    neighbours = _channel_sums(values * values, before, after)
    divisor = attributes.get("bias", 1.0) + (alpha / size) * neighbours
    power = divisor**-beta
    pull = _channel_sums(gradient * values * power / divisor, after, before)
    return [gradient * power - (2 * alpha * beta / size) * values * pull]


def _trailing_axes(application: Application, rank: int) -> tuple[int, ...]:
    axis = application.attributes.get("axis", -1)
    return tuple(range(axis + rank if axis < 0 else axis, rank))


def _skip_normalization(
    application: Application, gradients: Gradients, *, bias: int, is_centred: bool
) -> Gradients:
    total = application.input(0) + application.input(1)
    if application.has_input(bias):
        total = total + application.input(bias)
    last = (total.ndim - 1,)
    scale = application.input(2)
    by_total: Array | None = gradients[_SUM_OUTPUT] if len(gradients) > _SUM_OUTPUT else None
    if gradients[0] is not None:
        epsilon = application.attributes.get("epsilon", 1e-12)
        standard, inverse = _standardize(total, last, epsilon=epsilon, is_centred=is_centred)
        through = _through_standard(
            gradients[0] * scale, standard, inverse, last, is_centred=is_centred
        )
        by_total = through if by_total is None else through + by_total
    if by_total is None:
        return ()
    results: list[Array | None] = [None] * len(application.input_shapes)
    for position in (0, 1, bias):
        if application.has_input(position) and position in application.wanted:
            results[position] = sum_to(by_total, application.input_shape(position))
    return results


def _affine_gradients(
    application: Application,
    gradient: Array,
    values: Array,
    axes: tuple[int, ...],
    *,
    parameter_shape: tuple[int, ...] | None = None,
    is_centred: bool = True,
) -> list[Array | None]:
    """Returns the gradients of `standardized(values) * scale + bias`, inputs 0, 1 and 2."""
    epsilon = application.attributes.get("epsilon", 1e-5)
    standard, inverse = _standardize(values, axes, epsilon=epsilon, is_centred=is_centred)
    results: list[Array | None] = [None] * len(application.input_shapes)
    if 0 in application.wanted:
        scale = application.input(_SCALE)
        scaled = gradient * (scale if parameter_shape is None else scale.reshape(parameter_shape))
        results[0] = _through_standard(scaled, standard, inverse, axes, is_centred=is_centred)
    for position, slope in ((_SCALE, standard), (_BIAS, None)):
        if position in application.wanted:
            shape = application.input_shape(position)
            product = gradient if slope is None else gradient * slope
            broadcast = shape if parameter_shape is None else parameter_shape
            broadcast = broadcast if -1 not in broadcast else (shape[0], *broadcast[1:])
            results[position] = sum_to(product, broadcast).reshape(shape)
    return results


def _standardize(
    values: Array, axes: tuple[int, ...], *, epsilon: float, is_centred: bool
) -> tuple[Array, Array]:
    """Returns (x - mean) / sqrt(mean square + epsilon), and the inverse of that root."""
    if is_centred:
        values = values - values.mean(axis=axes, keepdims=True)
    mean_square = np.square(values).mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(mean_square + epsilon)
    return values * inverse, inverse


def _through_standard(
    gradient: Array, standard: Array, inverse: Array, axes: tuple[int, ...], *, is_centred: bool
) -> Array:
    """Returns dx = inverse (g - mean g - x^ mean(g x^)); uncentred, the mean of g stays."""
    projection = (gradient * standard).mean(axis=axes, keepdims=True)
    remainder: Array = gradient - standard * projection
    if is_centred:
        remainder -= gradient.mean(axis=axes, keepdims=True)
    remainder *= inverse
    return remainder


def _channel_sums(values: Array, before: int, after: int) -> Array:
    """Returns, for each channel (axis 1), the sum over it and its neighbours."""
    channels = values.shape[1]
    total = np.zeros_like(values)
    for offset in range(-before, after + 1):
        low, high = max(0, -offset), min(channels, channels - offset)
        if low < high:
            total[:, low:high] += values[:, low + offset : high + offset]
    return total
