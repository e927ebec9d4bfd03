"""Gradients of resampling agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.rules import Application, find_rule

from .finite_differences import check_rule

COORDINATES = [
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
]
ROUNDING = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def sized(*sizes):
    return [None, None, np.array(sizes, np.int64)]


def scaled(*scales):
    return [None, np.array(scales, np.float32)]


def check_resize(values, parameters, attributes, *, opset=19):
    # The reference evaluator differs from the specification where corners are aligned.
    check_rule(
        "Resize",
        [values, *parameters],
        attributes,
        opset=opset,
        wanted=[0],
        uses_onnxruntime=True,
    )


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize(
    "parameters", [sized(1, 2, 7, 3), scaled(1, 1, 1.6, 0.5), sized(1, 2, 1, 1)]
)
def test_interpolation_matches_differences(coordinates, mode, parameters):
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}

    check_resize(normal(1, 2, 4, 5), parameters, attributes)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ROUNDING)
@pytest.mark.parametrize(
    "parameters", [sized(1, 1, 7, 3), scaled(1, 1, 1.6, 0.5), sized(1, 1, 1, 1)]
)
def test_nearest_neighbour_matches_differences(coordinates, rounding, parameters):
    attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}

    check_resize(normal(1, 1, 4, 6), parameters, attributes)


@pytest.mark.parametrize("rounding", ROUNDING)
def test_half_pixels_without_their_offset_match_differences(rounding):
    attributes = {
        "coordinate_transformation_mode": "tf_half_pixel_for_nn",
        "nearest_mode": rounding,
    }
    parameters = [np.zeros(0), np.zeros(0), np.array([1, 1, 7, 3])]

    check_resize(normal(1, 1, 4, 6), parameters, attributes, opset=11)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("sizes", [(3, 7), (1, 1)])
def test_crop_and_resize_matches_differences(mode, sizes):
    region = np.array([0, 0, 0.2, -0.3, 1, 1, 0.7, 1.2], np.float64)
    attributes = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize"}

    parameters = [region, None, np.array([1, 1, *sizes], np.int64)]
    check_resize(normal(1, 1, 4, 6), parameters, attributes)


@pytest.mark.parametrize("excludes_outside", [0, 1])
@pytest.mark.parametrize("coefficient", [-0.75, -0.5])
def test_cubic_weights_match_differences(excludes_outside, coefficient):
    attributes = {
        "mode": "cubic",
        "exclude_outside": excludes_outside,
        "cubic_coeff_a": coefficient,
    }

    check_resize(normal(1, 1, 4, 6), sized(1, 1, 9, 8), attributes)


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_kept_aspect_ratio_matches_differences(policy, mode):
    attributes = {"mode": mode, "keep_aspect_ratio_policy": policy, "axes": [2, 3]}

    check_resize(normal(1, 1, 4, 6), sized(7, 8), attributes)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("op_type", "opset", "by_attribute"),
    [("Resize", 10, False), ("Upsample", 9, False), ("Upsample", 7, True)],
)
def test_older_resampling_matches_differences(mode, op_type, opset, by_attribute):
    scales = [1.0, 1.0, 2.0, 3.0]
    inputs = [normal(1, 2, 3, 4)] + ([] if by_attribute else [np.array(scales, np.float32)])
    attributes = {"mode": mode, "scales": scales} if by_attribute else {"mode": mode}

    check_rule(op_type, inputs, attributes, opset=opset, wanted=[0], uses_onnxruntime=True)


def test_three_axes_are_resampled_as_well():
    check_resize(normal(1, 1, 2, 3, 4), sized(1, 1, 3, 2, 7), {"mode": "linear"})


def test_antialiasing_is_left_to_the_caller():
    node = Application(
        "Resize",
        18,
        {"antialias": 1, "mode": "linear"},
        [None, None, None, np.array([2])],
        [None],
        [(4,), None, None, (1,)],
        [(2,)],
        frozenset({0}),
    )

    assert find_rule("Resize", "", 18).apply(node, [np.ones(2, np.float32)]) == [None] * 4


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("aligns_corners", [0, 1])
def test_sampling_at_grid_points_matches_differences(mode, padding, aligns_corners):
    grid = np.random.default_rng(1).uniform(-1.4, 1.4, (2, 3, 2, 2))
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": aligns_corners}

    check_rule(
        "GridSample",
        [normal(2, 2, 4, 5), grid],
        attributes,
        opset=20,
        wanted=[0],
        uses_onnxruntime=True,
    )


def test_sampling_a_volume_matches_differences():
    grid = np.random.default_rng(2).uniform(-1.2, 1.2, (1, 2, 2, 3, 3))

    check_rule("GridSample", [normal(1, 1, 3, 4, 2), grid], opset=20, wanted=[0])
