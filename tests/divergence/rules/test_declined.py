"""Where a rule gives no gradient, so that the measured gain stands in, and other rare branches."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.rules import Application, find_rule
from polygraphy_layerprec.divergence.rules.grid_sampling import _reflected

ONES = np.ones((1, 1, 2, 2))


def applied(op_type, inputs, gradients, *, domain="", opset=23, wanted=(0,), **attributes):
    found = find_rule(op_type, domain, opset)
    assert found is not None
    shapes = [None if values is None else values.shape for values in inputs]
    application = Application(
        op_type=op_type,
        opset=opset,
        attributes=attributes,
        inputs=inputs,
        outputs=[None] * len(gradients),
        input_shapes=shapes,
        output_shapes=[None if g is None else g.shape for g in gradients],
        wanted=frozenset(wanted),
    )
    return found.apply(application, gradients)


def test_a_gradient_at_attention_scores_is_declined():
    heads = np.ones((1, 1, 3, 2))
    scores = np.ones((1, 1, 3, 3))

    given = applied("Attention", [heads, heads, heads], [None, None, None, scores])

    assert list(given) == [None, None, None]


def test_cached_keys_alone_hand_their_gradient_to_the_new_ones():
    heads = np.ones((1, 1, 3, 2))
    by_key = np.arange(6.0).reshape(1, 1, 3, 2)

    given = applied("Attention", [heads, heads, heads], [None, by_key, None], wanted=(0, 1, 2))

    assert given[0] is None
    np.testing.assert_array_equal(given[1], by_key)
    assert given[2] is None


def test_the_grid_of_a_sampling_has_no_gradient():
    grid = np.zeros((1, 2, 2, 2))

    given = applied("GridSample", [ONES, grid], [ONES], wanted=(1,))

    assert list(given) == [None, None]


def test_reflection_between_equal_borders_stays_there():
    points = np.array([-1.5, 0.0, 7.0])

    np.testing.assert_array_equal(_reflected(points, 2.0, 2.0), [2.0, 2.0, 2.0])


def test_normalization_without_its_variance_is_declined():
    channel = np.ones(1)

    given = applied("BatchNormalization", [ONES, channel, channel, channel, None], [ONES])

    assert list(given) == [None] * 5


@pytest.mark.parametrize("by_mean", [None, np.ones((1, 2, 1))])
def test_a_skip_normalization_hands_nothing_on_from_its_statistics(by_mean):
    x = np.arange(6.0).reshape(1, 2, 3)

    given = applied(
        "SkipLayerNormalization",
        [x, x, np.ones(3), np.zeros(3)],
        [None, by_mean, None, None],
        domain="com.microsoft",
        opset=1,
        wanted=(0, 1),
    )

    assert list(given) == [None] * 4


def test_the_sum_of_a_skip_normalization_hands_its_gradient_to_both():
    x = np.arange(6.0).reshape(1, 2, 3)
    by_sum = np.full((1, 2, 3), 0.5)

    given = applied(
        "SkipLayerNormalization",
        [x, x, np.ones(3), np.zeros(3)],
        [None, None, None, by_sum],
        domain="com.microsoft",
        opset=1,
        wanted=(0, 1),
    )

    np.testing.assert_array_equal(given[0], by_sum)
    np.testing.assert_array_equal(given[1], by_sum)
