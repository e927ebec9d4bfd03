"""Errors that go together: a rounded weight errs alike wherever it is used."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.divergence.coherence import (
    coherent_axes,
    coherent_groups,
    weighted_powers,
)
from tests.divergence.kept import kept
from tests.models import build_model, node, normal, tensor


@pytest.mark.parametrize(
    ("op_type", "constants", "rank", "axes"),
    [
        ("Add", [None, (8,)], 3, (0, 1)),
        ("Mul", [None, (6, 1, 8)], 3, (1,)),
        ("Mul", [(), None], 2, (0, 1)),
        ("Mul", [(8,), (5, 1)], 2, ()),
        ("Mul", [(3, 2, 5, 8), None], 2, ()),
        ("Conv", [None, (4, 3, 3, 3), None], 4, (0, 2, 3)),
        ("Conv", [None, (4, 3, 3, 3), (4,)], 4, (0, 2, 3)),
        ("BatchNormalization", [None, (4,), (4,), (4,), (4,)], 2, (0,)),
        ("BatchNormalization", [None, (1,), (1,), (1,), (1,)], 1, ()),
        ("LayerNormalization", [None, (8,), (8,)], 3, (0, 1)),
        ("LayerNormalization", [None, (5, 8), None], 3, (0,)),
        ("MatMul", [None, (8, 8)], 3, (0, 1)),
        ("MatMul", [(8, 8), None], 3, (0, 2)),
        ("MatMul", [(8, 8), None], 1, ()),
        ("Gemm", [None, (8, 8), (8,)], 2, (0,)),
        ("Gemm", [(8, 8), None, None], 2, (1,)),
        ("Gemm", [None, None, (8,)], 2, (0,)),  # a bias alone broadcasts over the rows
        ("Mul", [None, None], 3, ()),
        ("Relu", [], 3, ()),
        ("MatMul", [None, (8,)], 0, ()),
    ],
)
def test_a_weight_is_used_again_along_the_axes_on_which_it_does_not_differ(
    op_type, constants, rank, axes
):
    assert coherent_axes(op_type, constants, rank) == axes


def summed_power(product, axes):
    return float(np.sum(coherent_groups(product, axes) ** 2))


def test_errors_add_up_along_coherent_axes_before_they_are_squared():
    ones = np.ones((3, 5, 8), np.float32)

    assert summed_power(ones, ()) == 3 * 5 * 8
    assert summed_power(ones, (0,)) == 5 * 8 * 3**2
    assert summed_power(ones, (0, 1)) == 8 * (3 * 5) ** 2


def test_errors_of_opposite_signs_cancel_along_coherent_axes():
    product = np.ones((2, 6), np.float32)
    product[1] = -1.0

    assert summed_power(product, (0,)) == 0.0
    assert summed_power(product, (1,)) == 2 * 6  # two sums are too few: the last axis stays


@pytest.mark.parametrize(
    ("shape", "axes", "power"),
    [
        ((4, 7), (0, 1), 4 * 7**2),  # one sum says too little: samples are taken on their own
        ((2, 5, 3), (0, 1, 2), 2 * 3 * 5**2),  # two still do: the last axis as well
        ((4, 7), (1,), 4 * 7**2),
        ((3, 7), (1,), 3 * 7),
        ((1, 9), (0, 1), 9),
        ((3,), (0,), 3),
        ((), (), 1),
    ],
)
def test_too_few_sums_are_split_along_the_first_axis_and_then_the_last(shape, axes, power):
    assert summed_power(np.ones(shape, np.float32), axes) == power


@pytest.mark.parametrize(
    ("values", "axes", "count"),
    [
        ([[1.0, 1.0], [1.0, 1.0]], (), 4.0),
        ([[8.0, 0.0], [0.0, 0.0]], (), 1.0),
        ([[1.0, 1.0], [1.0, -1.0]], (), 4.0),
        ([[0.0, 0.0], [0.0, 0.0]], (), 0.0),
        ([[1.0] * 3] * 4, (1,), 4.0),  # four sums
    ],
)
def test_as_many_numbers_tell_a_sum_of_squares_as_take_part_in_it(values, axes, count):
    errors = kept(np.ones(np.shape(values)))

    found = weighted_powers(np.array(values, np.float32), errors, axes)

    assert found.count == pytest.approx(count)
    assert found.independent == pytest.approx(np.sum(np.square(values)))
    assert found.response == pytest.approx(np.sum(values))


def mean_model(layer, weight, x_shape, mean):
    shape = [1, *x_shape]
    nodes = [layer, mean]
    return build_model(nodes, [tensor("x", shape)], [tensor("y", None)], {"weight": weight})


TOKENS = 64


@pytest.mark.parametrize(
    ("op_type", "x", "weight", "pool"),
    [
        ("Mul", np.ones((1, TOKENS, 8)), normal(0, 8), False),
        ("Add", np.zeros((1, TOKENS, 8)), normal(1, 8), False),
        ("MatMul", np.ones((1, TOKENS, 1)), normal(2, 1, 8), False),
        ("Conv", np.ones((1, 1, 8, 8)), normal(3, 8, 1, 1, 1), True),
    ],
)
def test_a_mean_does_not_reduce_the_error_of_a_rounded_weight(op_type, x, weight, pool):
    if pool:
        mean = node("GlobalAveragePool", ["h"], "y", name="mean")
    else:
        mean = node("ReduceMean", ["h"], "y", name="mean", axes=[1])
    layer = node(op_type, ["x", "weight"], "h", name="layer")
    model = mean_model(layer, weight, x.shape[1:], mean)

    ranking = rank_model(model, [{"x": x.astype(np.float32)}])

    found = {ranked.name: ranked.impact for ranked in ranking.layers}["layer"]
    exact = weight.astype(np.float64)
    error = exact - exact.astype(np.float16)
    true = np.linalg.norm(error) / np.linalg.norm(exact)
    assert found == pytest.approx(true, rel=0.01)


def test_a_mean_reduces_independent_rounding_by_the_root_of_the_number():
    x = normal(4, 1, TOKENS, 8)
    layer = node("Exp", ["x"], "h", name="layer")
    mean = node("ReduceMean", ["h"], "y", name="mean", axes=[1])
    model = build_model([layer, mean], [tensor("x", list(x.shape))], [tensor("y", None)])

    ranking = rank_model(model, [{"x": x}])

    found = next(ranked for ranked in ranking.layers if ranked.name == "layer")
    h = np.exp(x.astype(np.float64))
    introduced = found.introduced_error * np.linalg.norm(h)
    assert found.impact == pytest.approx(
        introduced / TOKENS / np.linalg.norm(h.mean(axis=1)), rel=0.01
    )
