"""Gradients of attention agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.rules import Application, find_rule

from .finite_differences import check_rule

BATCH, QUERIES, KEYS, SIZE, VALUE_SIZE = 2, 3, 5, 4, 6


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def operands(query_heads=2, key_heads=2, *, is_joined=False):
    shapes = [
        (BATCH, query_heads, QUERIES, SIZE),
        (BATCH, key_heads, KEYS, SIZE),
        (BATCH, key_heads, KEYS, VALUE_SIZE),
    ]
    values = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    if is_joined:
        values = [x.swapaxes(1, 2).reshape(BATCH, x.shape[2], -1) for x in values]
    return values


@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (6, 3), (3, 1)])
@pytest.mark.parametrize("is_joined", [True, False])
@pytest.mark.parametrize("attributes", [{}, {"scale": 0.3}, {"softcap": 0.8}, {"is_causal": 1}])
def test_attention_matches_differences(heads, is_joined, attributes):
    if is_joined:
        attributes = {**attributes, "q_num_heads": heads[0], "kv_num_heads": heads[1]}

    check_rule("Attention", operands(*heads, is_joined=is_joined), attributes, opset=23)


@pytest.mark.parametrize("shape", [(QUERIES, KEYS), (2, QUERIES, KEYS), (BATCH, 1, 1, KEYS)])
@pytest.mark.parametrize("attributes", [{}, {"softcap": 1.3}])
def test_attention_with_an_added_mask_matches_differences(shape, attributes):
    check_rule("Attention", [*operands(), normal(*shape, seed=5)], attributes, opset=23)


def test_causal_attention_with_an_added_mask_matches_differences():
    inputs = [*operands(), normal(2, QUERIES, KEYS, seed=5)]

    check_rule("Attention", inputs, {"is_causal": 1}, opset=23)


def test_attention_with_a_boolean_mask_and_a_fully_masked_row_matches_differences():
    mask = normal(QUERIES, KEYS, seed=6) > 0
    mask[1] = False

    check_rule("Attention", [*operands(), mask], opset=23)


def test_attention_with_a_mask_of_minus_infinity_matches_differences():
    mask = np.where(np.tri(QUERIES, KEYS, dtype=bool), 0, -np.inf)

    check_rule("Attention", [*operands(), mask], opset=23, wanted=[0, 1, 2])


@pytest.mark.parametrize("mask_length", [KEYS + 2, KEYS])
def test_attention_with_a_cache_matches_differences(mask_length):
    cache = [normal(BATCH, 2, 2, SIZE, seed=7), normal(BATCH, 2, 2, VALUE_SIZE, seed=8)]
    mask = normal(QUERIES, mask_length, seed=9)

    check_rule("Attention", [*operands(4, 2), mask, *cache], {"is_causal": 1}, opset=23, outputs=3)


def test_attention_over_padded_keys_matches_differences():
    inputs = [*operands(), None, None, None, np.array([5, 3], np.int64)]

    check_rule("Attention", inputs, {"is_causal": 1}, opset=24)


@pytest.mark.parametrize("window", [{"left_window_size": 1}, {"right_window_size": 0}])
def test_attention_within_a_window_matches_differences(window):
    check_rule("Attention", operands(), window, opset=25)


def test_gradient_of_the_scores_put_out_is_left_to_the_caller():
    shapes = [x.shape for x in operands()]
    node = Application(
        "Attention", 23, {}, operands(), [None] * 4, shapes, [None] * 4, frozenset({0, 1, 2})
    )
    gradients = [None, None, None, normal(BATCH, 2, QUERIES, KEYS)]

    assert find_rule("Attention", "", 23).apply(node, gradients) == [None] * 3


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("rotated", [0, 4])
@pytest.mark.parametrize("is_joined", [True, False])
@pytest.mark.parametrize("has_positions", [True, False])
def test_rotary_embedding_matches_differences(interleaved, rotated, is_joined, has_positions):
    half = (rotated or 6) // 2
    values = normal(2, 3, 4, 6) if not is_joined else normal(2, 4, 18)
    angles = normal(*((10,) if has_positions else (2, 4)), half, seed=1)
    positions = [np.array([[0, 5, 2, 9], [1, 1, 3, 4]], np.int64)] if has_positions else []
    attributes = {"interleaved": interleaved, "rotary_embedding_dim": rotated}
    if is_joined:
        attributes["num_heads"] = 3

    check_rule(
        "RotaryEmbedding",
        [values, np.cos(angles), np.sin(angles), *positions],
        attributes,
        opset=23,
        wanted=[0],
    )
