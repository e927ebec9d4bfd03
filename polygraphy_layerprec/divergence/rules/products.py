"""Rules of matrix products: MatMul, Gemm, Einsum."""

from __future__ import annotations

import numpy as np

from polygraphy_layerprec.arrays import namespace_of
from polygraphy_layerprec.divergence.rules.chain import sum_to
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)

__all__: list[str] = []

_MATRIX = 2


@single_output_rule("MatMul", reads_inputs=Reads.OTHERS, takes_coarse=True)
def _matmul(application: Application, gradient: Array) -> Gradients:
    """ONNX MatMul: Y = A B, so dA = G B^T and dB = A^T G, summed over broadcast batches."""
    first_shape, second_shape = application.input_shape(0), application.input_shape(1)
    # As in numpy.matmul, a vector is a row on the left and a column on the right.
    if len(second_shape) == 1:
        gradient = gradient[..., None]
    if len(first_shape) == 1:
        gradient = gradient[..., None, :]
    by_first = by_second = None
    if 0 in application.wanted:
        second = application.input(1)
        second = second[:, None] if second.ndim == 1 else second
        by_first = _against_right(application, gradient, second, first_shape)
    if 1 in application.wanted:
        first = application.input(0)
        first = first[None] if first.ndim == 1 else first
        by_second = _against_left(application, first, gradient, second_shape)
    return by_first, by_second


@single_output_rule("Gemm", reads_inputs=Reads.OTHERS, takes_coarse=True)
def _gemm(application: Application, gradient: Array) -> Gradients:
    """ONNX Gemm: Y = alpha A' B' + beta C, so dA' = alpha G B'^T, dB' = alpha A'^T G, dC = beta G."""  # noqa: E501
    attributes = application.attributes
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    by_first = by_second = by_third = None
    if 0 in application.wanted:
        second = application.input(1)
        is_transposed = bool(attributes.get("transB", 0))
        by_first = application.product(gradient, second, transpose_second=not is_transposed)
        by_first = alpha * (by_first.T if attributes.get("transA", 0) else by_first)
    if 1 in application.wanted:
        first = application.input(0)
        is_transposed = bool(attributes.get("transA", 0))
        by_second = application.product(first, gradient, transpose_first=not is_transposed)
        by_second = alpha * (by_second.T if attributes.get("transB", 0) else by_second)
    if application.has_input(2) and 2 in application.wanted:
        by_third = sum_to(beta * gradient, application.input_shape(2))
    return by_first, by_second, by_third


@single_output_rule("Einsum", reads_inputs=Reads.OTHERS, takes_coarse=True)
def _einsum(application: Application, gradient: Array) -> Gradients:
    """ONNX Einsum: the sum is linear in each operand, so its gradient is the sum with it and y swapped."""  # noqa: E501
    shapes = [application.input_shape(i) for i in range(len(application.input_shapes))]
    terms, result = _explicit(application.attributes["equation"], shapes)
    return [
        _einsum_gradient(application, gradient, (terms, result), position)
        if position in application.wanted
        else None
        for position in range(len(terms))
    ]


def _against_right(
    application: Application, gradient: Array, second: Array, shape: tuple[int, ...]
) -> Array:
    if second.ndim == _MATRIX:
        # One product for the whole batch: numpy would run one for each matrix of it.
        rows = gradient.reshape(-1, gradient.shape[-1])
        return application.product(rows, second, transpose_second=True).reshape(shape)
    full = application.product(gradient, second, transpose_second=True)
    return sum_to(full, shape) if len(shape) > 1 else sum_to(full[..., 0, :], shape)


def _against_left(
    application: Application, first: Array, gradient: Array, shape: tuple[int, ...]
) -> Array:
    if len(shape) <= _MATRIX:
        rows = np.broadcast_to(first, (*gradient.shape[:-1], first.shape[-1]))
        flat = gradient.reshape(-1, gradient.shape[-1])
        product = application.product(rows.reshape(-1, first.shape[-1]), flat, transpose_first=True)
        return product.reshape(shape)
    return sum_to(application.product(first, gradient, transpose_first=True), shape)


def _explicit(equation: str, shapes: list[tuple[int, ...]]) -> tuple[list[str], str]:
    """Returns the terms and the result with each ellipsis spelt out in unused letters."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = sorted(set(left) - set(",."))
        result = "..." * ("..." in left) + "".join(c for c in letters if left.count(c) == 1)
    unused = [c for c in map(chr, range(ord("A"), ord("z") + 1)) if c.isalpha()]
    unused = [c for c in unused if c not in equation]
    ranks = [
        len(shape) - len(term.replace("...", "")) if "..." in term else 0
        for term, shape in zip(terms, shapes, strict=True)
    ]
    batch = unused[: max(ranks, default=0)]
    spelt = [
        term.replace("...", "".join(batch[len(batch) - rank :]))
        for term, rank in zip(terms, ranks, strict=True)
    ]
    return spelt, result.replace("...", "".join(batch))


def _einsum_gradient(
    application: Application, gradient: Array, equation: tuple[list[str], str], position: int
) -> Array:
    terms, result = equation
    term, shape = terms[position], application.input_shape(position)
    others = [(t, application.input(i)) for i, t in enumerate(terms) if i != position]
    sizes = dict(zip(term, shape, strict=True))
    summed_sizes = dict(zip(result, gradient.shape, strict=True))
    for other_term, value in others:
        for letter, size in zip(other_term, value.shape, strict=True):
            summed_sizes[letter] = max(summed_sizes.get(letter, 1), size)
    # Letters that only this term has were summed alone; those of size 1 here were broadcast.
    kept = "".join(
        letter
        for letter in sizes
        if letter in summed_sizes and sizes[letter] == summed_sizes[letter]
    )
    subscripts = ",".join([result, *(t for t, _ in others)]) + "->" + kept
    product = np.einsum(subscripts, gradient, *(v for _, v in others), optimize=True)
    product = product.reshape([sizes[c] if c in kept else 1 for c in sizes])
    product = np.broadcast_to(product, tuple(sizes.values()))
    if len(sizes) == len(term):
        return product
    # A letter repeated within the term reads a diagonal, and the gradient lies on it alone.
    full: Array = namespace_of(product).zeros(shape, product.dtype)
    np.einsum(f"{term}->{''.join(sizes)}", full)[...] = product
    return full
