"""Gradients of normalizations agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.rules import Application, find_rule

from .finite_differences import check_rule


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def normalized(values, axes, epsilon):
    centred = values - values.mean(axis=axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + epsilon)


@pytest.mark.parametrize("axis", [-1, 1, -2, 0])
@pytest.mark.parametrize("has_bias", [True, False])
def test_layer_normalization_matches_differences(axis, has_bias):
    shape = (2, 3, 4)
    parameters = [normal(*shape[axis:], seed=seed) for seed in (1, 2)]
    inputs = [normal(*shape), *parameters[: 1 + has_bias]]
    axes = tuple(range(axis % 3, 3))

    def evaluate(xs):
        return [normalized(xs[0], axes, 0.01) * xs[1] + (xs[2] if has_bias else 0)]

    check_rule("LayerNormalization", inputs, {"axis": axis, "epsilon": 0.01}, evaluate=evaluate)


def test_layer_normalization_by_a_broadcast_scale_matches_differences():
    inputs = [normal(2, 3, 4), normal(1), normal(3, 1)]

    def evaluate(xs):
        return [normalized(xs[0], (1, 2), 1e-5) * xs[1] + xs[2]]

    check_rule("LayerNormalization", inputs, {"axis": 1}, evaluate=evaluate)


@pytest.mark.parametrize("axis", [-1, 1])
def test_root_mean_square_normalization_matches_differences(axis):
    shape = (2, 3, 4)
    inputs = [normal(*shape), normal(*shape[axis:], seed=1)]

    check_rule("RMSNormalization", inputs, {"axis": axis, "epsilon": 0.02}, opset=23)


def test_onnxruntime_root_mean_square_normalization_matches_differences():
    def evaluate(xs):
        rms = np.sqrt((xs[0] ** 2).mean(axis=-1, keepdims=True) + 0.02)
        return [xs[0] / rms * xs[1]]

    check_rule(
        "SimplifiedLayerNormalization",
        [normal(2, 3, 4), normal(4)],
        {"epsilon": 0.02},
        evaluate=evaluate,
    )


@pytest.mark.parametrize("is_centred", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_skip_normalization_and_its_sum_match_differences(is_centred, has_bias):
    scale, beta, bias = normal(4, seed=2), normal(4, seed=3), normal(4, seed=4)
    parameters = [scale, beta] if is_centred else [scale]
    inputs = [normal(2, 3, 4), normal(2, 3, 4, seed=1), *parameters, *([bias] if has_bias else [])]
    last = len(inputs) - 1

    def evaluate(xs):
        total = xs[0] + xs[1] + (xs[last] if has_bias else 0)
        scaled = (
            normalized(total, (2,), 0.01) * xs[2] + xs[3]
            if is_centred
            else (total / np.sqrt((total**2).mean(axis=-1, keepdims=True) + 0.01) * xs[2])
        )
        return [scaled, np.zeros(1), np.zeros(1), total]

    check_rule(
        "SkipLayerNormalization" if is_centred else "SkipSimplifiedLayerNormalization",
        inputs,
        {"epsilon": 0.01},
        domain="com.microsoft",
        opset=1,
        outputs=4,
        evaluate=evaluate,
        wanted=[0, 1, last] if has_bias else [0, 1],
    )


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4), (5, 3)])
@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_normalization_in_inference_matches_differences(shape, opset):
    inputs = [normal(*shape), normal(3, seed=1), normal(3, seed=2), normal(3, seed=3)]
    inputs.append(np.abs(normal(3, seed=4)) + 0.2)
    by_channel = (-1, *[1] * (len(shape) - 2))

    def evaluate(xs):
        scale, bias, mean, variance = (p.reshape(by_channel) for p in xs[1:])
        return [(xs[0] - mean) / np.sqrt(variance + 0.01) * scale + bias]

    check_rule(
        "BatchNormalization",
        inputs,
        {"epsilon": 0.01},
        opset=opset,
        wanted=[0],
        evaluate=evaluate,
    )


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_batch_normalization_serves_its_parameters(wanted):
    inputs = [normal(2, 3, 4), *(normal(3, seed=s) for s in (1, 2, 3)), np.full(3, 0.7)]

    check_rule("BatchNormalization", inputs, {"epsilon": 0.01}, opset=15, wanted=[wanted])


@pytest.mark.parametrize(("opset", "attributes"), [(15, {"training_mode": 1}), (7, {"spatial": 0})])
def test_batch_normalization_by_its_own_statistics_is_left_to_the_caller(opset, attributes):
    shape = (2, 3, 4)
    node = Application(
        "BatchNormalization",
        opset,
        attributes,
        [None, *[np.ones(3, np.float32)] * 4],
        [None],
        [shape, (3,), (3,), (3,), (3,)],
        [shape],
        frozenset({0}),
    )

    gradients = find_rule("BatchNormalization", "", opset).apply(node, [np.ones(shape, np.float32)])

    assert gradients == [None] * 5


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4)])
def test_instance_normalization_matches_differences(shape):
    inputs = [normal(*shape), normal(3, seed=1), normal(3, seed=2)]

    check_rule("InstanceNormalization", inputs, {"epsilon": 0.01})


@pytest.mark.parametrize(("opset", "parameters"), [(18, 2), (21, 6)])
@pytest.mark.parametrize("space", [(4, 5), (3,), ()])
def test_group_normalization_matches_differences(opset, parameters, space):
    inputs = [normal(2, 6, *space), normal(parameters, seed=1), normal(parameters, seed=2)]

    def evaluate(xs):
        grouped = normalized(xs[0].reshape(2, 2, -1), (2,), 0.01).reshape(2, 6, -1)
        scale, bias = (np.repeat(p, 6 // parameters)[:, None] for p in xs[1:])
        return [(grouped * scale + bias).reshape(xs[0].shape)]

    check_rule(
        "GroupNormalization",
        inputs,
        {"num_groups": 2, "epsilon": 0.01},
        opset=opset,
        evaluate=evaluate,
    )


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_lp_normalization_matches_differences(power, axis):
    def evaluate(xs):
        return [xs[0] / np.linalg.norm(xs[0], ord=power, axis=axis, keepdims=True)]

    attributes = {"p": power, "axis": axis}
    check_rule("LpNormalization", [normal(2, 3, 4)], attributes, evaluate=evaluate)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
def test_local_response_normalization_matches_differences(size):
    attributes = {"size": size, "alpha": 0.3, "beta": 0.6, "bias": 1.2}

    def evaluate(xs):
        # The reference evaluator takes the number of channels from the batch.
        (x,) = xs
        square_sums = np.stack(
            [
                (x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1] ** 2).sum(axis=1)
                for c in range(x.shape[1])
            ],
            axis=1,
        )
        return [x / (1.2 + 0.3 / size * square_sums) ** 0.6]

    check_rule("LRN", [normal(2, 6, 3, 2)], attributes, evaluate=evaluate)


def test_local_response_normalization_has_the_defaults_of_the_specification():
    values = 300 * normal(1, 4, 2, 2)

    def evaluate(xs):
        square_sums = xs[0] ** 2
        return [xs[0] / (1.0 + 0.0001 * square_sums) ** 0.75]

    check_rule("LRN", [values], {"size": 1}, evaluate=evaluate)


@pytest.mark.parametrize("axes", [None, [0, 2, 3], [1], [2, 3]])
def test_mean_variance_normalization_matches_differences(axes):
    values = normal(3, 3, 3, 2)

    def evaluate(xs):
        return [normalized(xs[0], tuple(axes or (0, 2, 3)), 0.0)]

    attributes = {} if axes is None else {"axes": axes}
    check_rule("MeanVarianceNormalization", [values], attributes, evaluate=evaluate)
