"""Rules of elementwise arithmetic: sums, products, powers, selections, with broadcasting."""

from __future__ import annotations

import numpy as np

from polygraphy_layerprec.arrays import namespace_of
from polygraphy_layerprec.divergence.rules.chain import chain, sum_to
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)

__all__: list[str] = []


@single_output_rule("Add", since=7)
@single_output_rule("Sum")
def _sum(application: Application, gradient: Array) -> Gradients:
    """ONNX Add, Sum: y = sum x_i, so dy/dx_i = 1."""
    return _for_wanted(application, gradient)


@single_output_rule("Mean")
def _mean(application: Application, gradient: Array) -> Gradients:
    """ONNX Mean: y = (1/n) sum x_i, so dy/dx_i = 1/n."""
    return _for_wanted(application, gradient / len(application.input_shapes))


@single_output_rule("Sub", since=7)
def _sub(application: Application, gradient: Array) -> Gradients:
    """ONNX Sub: y = a - b, so dy/da = 1 and dy/db = -1."""
    first, second = _for_wanted(application, gradient)
    return first, None if second is None else -second


@single_output_rule("Mul", since=7, reads_inputs=Reads.OTHERS, takes_coarse=True)
def _mul(application: Application, gradient: Array) -> Gradients:
    """ONNX Mul: y = ab, so dy/da = b and dy/db = a (product rule)."""
    return [
        chain(gradient, application.input(1 - position), application.input_shape(position))
        if position in application.wanted
        else None
        for position in (0, 1)
    ]


@single_output_rule(
    "Div", since=7, reads_inputs=Reads.OTHERS, takes_coarse=True, reads_always=frozenset({1})
)
def _div(application: Application, gradient: Array) -> Gradients:
    """ONNX Div: y = a/b, so dy/da = 1/b and dy/db = -a/b^2 (quotient rule)."""
    inverse = 1 / application.input(1)
    by_numerator = by_denominator = None
    if 0 in application.wanted:
        by_numerator = chain(gradient, inverse, application.input_shape(0))
    if 1 in application.wanted:
        derivative = -application.input(0) * inverse * inverse
        by_denominator = chain(gradient, derivative, application.input_shape(1))
    return by_numerator, by_denominator


@single_output_rule("Pow", since=7, reads_inputs=Reads.ALL)
def _pow(application: Application, gradient: Array) -> Gradients:
    """ONNX Pow: y = x^p, so dy/dx = p x^(p-1) and dy/dp = x^p ln x (power rule)."""
    base, exponent = application.input(0), application.input(1)
    exponent = namespace_of(gradient).asarray(exponent)
    # A float64 or integer exponent would otherwise turn the whole product into float64.
    exponent = exponent.astype(base.dtype, copy=False)
    by_base = by_exponent = None
    if 0 in application.wanted:
        derivative = 2 * base if np.all(exponent == 2) else exponent * base ** (exponent - 1)
        by_base = chain(gradient, derivative, application.input_shape(0))
    if 1 in application.wanted:
        derivative = base**exponent * np.log(base)
        by_exponent = chain(gradient, derivative, application.input_shape(1))
    return by_base, by_exponent


@single_output_rule("Mod", since=10, reads_inputs=Reads.ALL)
def _mod(application: Application, gradient: Array) -> Gradients:
    """ONNX Mod: y = a - b [a/b], so dy/da = 1 and dy/db = -[a/b], [] towards 0 with fmod."""
    by_dividend = by_divisor = None
    if 0 in application.wanted:
        by_dividend = sum_to(gradient, application.input_shape(0))
    if 1 in application.wanted:
        truncate = np.trunc if application.attributes.get("fmod", 0) else np.floor
        quotient = truncate(application.input(0) / application.input(1))
        by_divisor = chain(gradient, -quotient, application.input_shape(1))
    return by_dividend, by_divisor


@single_output_rule("Min", "Max", reads_inputs=Reads.ALL, reads_outputs=True)
def _extreme(application: Application, gradient: Array) -> Gradients:
    """ONNX Min, Max: dy/dx_i = [x_i = y], shared evenly between equals (a subgradient)."""
    extreme = application.output()
    attained = [application.input(i) == extreme for i in range(len(application.inputs))]
    count = sum(hit.astype(gradient.dtype) for hit in attained)
    share = gradient / count
    return [
        chain(share, hit, application.input_shape(i)) if i in application.wanted else None
        for i, hit in enumerate(attained)
    ]


@single_output_rule("Where", since=9, reads_inputs=Reads.OTHERS)
def _where(application: Application, gradient: Array) -> Gradients:
    """ONNX Where: y = c ? a : b, so dy/da = [c] and dy/db = [not c]."""
    condition = application.input(0)
    return [
        None,
        chain(gradient, condition, application.input_shape(1)) if 1 in application.wanted else None,
        chain(gradient, ~condition, application.input_shape(2))
        if 2 in application.wanted
        else None,
    ]


@single_output_rule("Clip", reads_outputs=True)
def _clip_by_attributes(application: Application, gradient: Array) -> Gradients:
    """ONNX Clip-6: y = min(max(x, low), high), so dy/dx = [low < y < high]."""
    low = application.attributes.get("min", -np.inf)
    high = application.attributes.get("max", np.inf)
    clipped = application.output()
    return [chain(gradient, (clipped > low) & (clipped < high))]


@single_output_rule("Clip", since=11, reads_inputs=Reads.OTHERS, reads_outputs=True)
def _clip(application: Application, gradient: Array) -> Gradients:
    """ONNX Clip: y = min(max(x, low), high), so each of the three has dy/d. = [y is it]."""
    clipped = application.output()
    gradients: list[Array | None] = [None] * len(application.inputs)
    inside = np.ones_like(clipped, bool)
    for bound, is_beyond in ((1, np.less_equal), (2, np.greater_equal)):
        if not application.has_input(bound):
            continue
        limit = application.inputs[bound]
        if limit is None:
            # Its own gradient alone is asked for: where it holds shows in what happened to x.
            beyond = ~is_beyond(clipped, application.input(0))
        else:
            beyond = is_beyond(clipped, limit)
        inside &= ~beyond
        if bound in application.wanted:
            gradients[bound] = chain(gradient, beyond, application.input_shape(bound))
    gradients[0] = chain(gradient, inside)
    return gradients


@single_output_rule("Neg")
def _neg(_: Application, gradient: Array) -> Gradients:
    """ONNX Neg: y = -x, so dy/dx = -1."""
    return [-gradient]


@single_output_rule("Abs", reads_inputs=Reads.ALL)
def _abs(application: Application, gradient: Array) -> Gradients:
    """ONNX Abs: y = |x|, so dy/dx = sign x."""
    return [gradient * np.sign(application.input(0))]


@single_output_rule("Sign", "Hardmax")
def _step(_: Application, gradient: Array) -> Gradients:
    """ONNX Sign, Hardmax: decisions, piecewise constant, so dy/dx = 0."""
    return [np.zeros_like(gradient)]


def _for_wanted(application: Application, gradient: Array) -> list[Array | None]:
    return [
        sum_to(gradient, application.input_shape(position))
        if position in application.wanted
        else None
        for position in range(len(application.input_shapes))
    ]
