"""Gradients of elementwise arithmetic agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from polygraphy_layerprec.divergence.rules import Application, find_rule

from .finite_differences import check_rule

shapes = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4)
seeds = st.integers(0, 2**32 - 1)


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def away_from_zero(shape, seed=0):
    values = normal(shape, seed)
    return np.where(values < 0, values - 0.3, values + 0.3)


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Min", "Max", "Sum"])
@settings(max_examples=20)
@given(drawn=shapes, seed=seeds)
def test_broadcast_arithmetic_matches_differences(op_type, drawn, seed):
    first, second = drawn.input_shapes

    check_rule(op_type, [normal(first, seed), away_from_zero(second, seed + 1)], opset=14)


def test_broadcast_mean_matches_differences():
    # The reference evaluator adds in place, so that its first input must have the full shape.
    check_rule("Mean", [normal((2, 3, 4)), normal((3, 1), 1), normal((), 2)], opset=13)


@settings(max_examples=20)
@given(drawn=shapes, seed=seeds)
def test_power_of_a_positive_base_matches_differences(drawn, seed):
    base, exponent = drawn.input_shapes

    check_rule("Pow", [np.abs(away_from_zero(base, seed)), normal(exponent, seed + 1)], opset=15)


@pytest.mark.parametrize("exponent", [2, 3, 0, 1, np.float64(2), np.float64(-2)])
def test_power_of_a_negative_base_with_a_whole_exponent_matches_differences(exponent):
    check_rule("Pow", [away_from_zero((3, 4)), np.array(exponent)], opset=15, wanted=[0])


@pytest.mark.parametrize("op_type", ["Sum", "Mean", "Min", "Max"])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_variadic_arithmetic_matches_differences(op_type, count):
    check_rule(op_type, [normal((2, 3), seed) for seed in range(count)], opset=13)


@pytest.mark.parametrize("fmod", [0, 1])
def test_modulo_matches_differences(fmod):
    function = np.fmod if fmod else np.mod
    dividend, divisor = 7 * away_from_zero((3, 4)), away_from_zero((4,), 1)

    check_rule(
        "Mod", [dividend, divisor], {"fmod": fmod}, evaluate=lambda xs: [function(xs[0], xs[1])]
    )


@settings(max_examples=20)
@given(drawn=mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3), seed=seeds)
def test_selection_matches_differences(drawn, seed):
    condition, first, second = drawn.input_shapes

    check_rule("Where", [normal(condition, seed) > 0, normal(first, 1), normal(second, 2)])


@pytest.mark.parametrize("op_type", ["Neg", "Abs"])
def test_sign_changes_match_differences(op_type):
    check_rule(op_type, [away_from_zero((3, 4))], opset=13)


@pytest.mark.parametrize("op_type", ["Sign", "Hardmax"])
def test_steps_have_zero_gradient(op_type):
    check_rule(op_type, [normal((3, 4))], opset=14)


@pytest.mark.parametrize("bounds", [(-0.5, 0.5), (None, 0.5), (-0.5, None), (None, None)])
def test_clipping_matches_differences(bounds):
    low, high = (None if bound is None else np.array(bound) for bound in bounds)

    check_rule("Clip", [normal((4, 5)), low, high], opset=13)


def test_clipping_by_attributes_matches_differences():
    check_rule(
        "Clip",
        [normal((4, 5))],
        {"min": -0.5, "max": 0.25},
        opset=6,
        evaluate=lambda xs: [np.clip(xs[0], -0.5, 0.25)],
    )


def test_equal_inputs_share_the_gradient_of_their_maximum():
    rule = find_rule("Max", "", 13)
    value = np.array([2.0], np.float32)

    gradients = rule.apply(application("Max", [value, value], [value]), [np.ones(1, np.float32)])

    assert [g.item() for g in gradients] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("op_type", "inputs", "output"),
    [
        ("Sqrt", [0.0], 0.0),
        ("Log", [0.0], -np.inf),
        ("Reciprocal", [0.0], np.inf),
        ("Div", [1.0, 0.0], np.inf),
        ("Pow", [0.0, 0.5], 0.0),
        ("Pow", [-1.0, 0.5], np.nan),
        ("Mul", [1.0, np.inf], np.inf),
        ("Asin", [1.0], np.pi / 2),
        ("ReduceL2", [0.0], 0.0),
    ],
)
def test_derivative_that_does_not_exist_counts_as_zero(op_type, inputs, output):
    rule = find_rule(op_type, "", 13)
    values = [np.array([x], np.float32) for x in inputs]
    node = application(op_type, values, [np.array([output], np.float32)])

    gradients = rule.apply(node, [np.ones(1, np.float32)])

    assert gradients[0].tolist() == [0.0]
    assert all(np.isfinite(g).all() for g in gradients)


def test_one_missing_derivative_leaves_its_neighbours_in_a_broadcast_sum():
    rule = find_rule("Div", "", 13)
    values = [np.array([1.0], np.float32), np.array([0.0, 4.0], np.float32)]

    gradients = rule.apply(application("Div", values, [values[1]]), [np.ones(2, np.float32)])

    assert gradients[0].tolist() == [0.25]


def application(op_type, inputs, outputs):
    return Application(
        op_type=op_type,
        opset=13,
        attributes={},
        inputs=inputs,
        outputs=outputs,
        input_shapes=[x.shape for x in inputs],
        output_shapes=[y.shape for y in outputs],
        wanted=frozenset(range(len(inputs))),
    )
