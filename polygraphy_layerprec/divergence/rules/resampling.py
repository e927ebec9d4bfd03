"""Rules of Resize and Upsample: a linear map along each axis, whose adjoint is its transpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)

__all__ = ["Coordinates", "cubic_taps"]

Coordinates = npt.NDArray[np.float64]

_SCALES, _SIZES = 2, 3
_OPSET_WITH_COORDINATE_MODES = 11


@single_output_rule("Upsample", since=7, reads_inputs=Reads.OTHERS)
def _upsample(application: Application, gradient: Array) -> Gradients:
    """ONNX Upsample: Resize with asymmetric coordinates, rounded down."""
    scales = application.attributes.get("scales")
    scales = application.input(1).tolist() if scales is None else scales
    return [_transposed_resize(application, gradient, _legacy(application, scales))]


@single_output_rule("Resize", since=10, reads_inputs=Reads.OTHERS)
def _resize(application: Application, gradient: Array) -> Gradients:
    """ONNX Resize: y = A x along each axis, A the interpolation weights, so dx = A^T g."""
    if application.opset < _OPSET_WITH_COORDINATE_MODES:
        scales = application.input(1).tolist()
        return [_transposed_resize(application, gradient, _legacy(application, scales))]
    if application.attributes.get("antialias", 0):
        return ()
    shape = application.input_shape(0)
    attributes = application.attributes
    rank = len(shape)
    axes = [axis % rank for axis in attributes.get("axes") or range(rank)]
    regions = [(0.0, 1.0)] * rank
    if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        ends = application.input(1).tolist()
        for i, axis in enumerate(axes):
            regions[axis] = (ends[i], ends[len(axes) + i])
    scales = _scales(application, axes, gradient.shape)
    sampling = [
        _Sampling(
            mode=attributes.get("mode", "nearest"),
            scale=scales[axis],
            region=regions[axis],
            coordinates=attributes.get("coordinate_transformation_mode", "half_pixel"),
            rounding=attributes.get("nearest_mode", "round_prefer_floor"),
            cubic=attributes.get("cubic_coeff_a", -0.75),
            excludes_outside=bool(attributes.get("exclude_outside", 0)),
        )
        for axis in range(rank)
    ]
    return [_transposed_resize(application, gradient, sampling)]


@dataclass(frozen=True, slots=True)
class _Sampling:
    """How one axis is resampled."""

    mode: str
    """`nearest`, `linear` or `cubic`."""

    scale: float
    """Output size over input size, as the node declares it."""

    region: tuple[float, float]
    """Start and end of the region of interest, as fractions of the input."""

    coordinates: str
    """ONNX's `coordinate_transformation_mode`."""

    rounding: str
    """ONNX's `nearest_mode`."""

    cubic: float
    """Coefficient `a` of the cubic kernel."""

    excludes_outside: bool
    """Whether weights outside of the input are dropped and the others scaled up."""

    def weights(self, size: int, resized: int) -> Coordinates:
        """Returns the interpolation weights `(resized, size)`."""
        places = self._places(size, resized)
        if self.mode == "nearest":
            taps, weights = self._rounded(places)[:, None], np.ones((resized, 1))
        elif self.mode == "cubic":
            taps, weights = cubic_taps(places, self.cubic)
        else:
            first = np.floor(places)
            taps = first[:, None] + np.arange(2)
            weights = np.stack([1 - (places - first), places - first], axis=1)
        if self.excludes_outside and self.mode == "cubic":
            weights = weights * ((taps >= 0) & (taps < size))
            weights = weights / weights.sum(axis=1, keepdims=True)
        if self.coordinates == "tf_crop_and_resize":
            # Outside of the input stands a constant, which has no gradient.
            weights = weights * ((places >= 0) & (places <= size - 1))[:, None]
        matrix = np.zeros((resized, size))
        rows = np.broadcast_to(np.arange(resized)[:, None], taps.shape)
        np.add.at(matrix, (rows, taps.clip(0, size - 1).astype(np.int64)), weights)
        return matrix

    def _places(self, size: int, resized: int) -> Coordinates:
        """Returns the position on the input axis of each output element.

        In float32 as runtimes do it, since the last bit may decide which neighbour is nearest.
        """
        index = np.arange(resized, dtype=np.float32)
        scale = np.float32(self.scale)
        places = (index + np.float32(0.5)) / scale - np.float32(0.5)
        if self.coordinates == "asymmetric":
            places = index / scale
        elif self.coordinates == "tf_half_pixel_for_nn":
            places = (index + np.float32(0.5)) / scale
        elif self.coordinates == "align_corners":
            places = index * np.float32(size - 1) / np.float32(max(resized - 1, 1))
        elif self.coordinates == "pytorch_half_pixel" and resized == 1:
            places = 0 * index
        elif self.coordinates == "half_pixel_symmetric":
            adjustment = np.float32(resized) / (scale * np.float32(size))
            places += np.float32(size / 2) * (1 - adjustment)
        elif self.coordinates == "tf_crop_and_resize":
            start, end = (np.float32(border) for border in self.region)
            width = (end - start) * np.float32(size - 1)
            first = start * np.float32(size - 1)
            steps = index / np.float32(resized - 1) if resized > 1 else index + np.float32(0.5)
            places = first + width * steps
        return np.asarray(places, np.float64)

    def _rounded(self, places: Coordinates) -> Coordinates:
        if self.rounding == "round_prefer_ceil":
            return np.floor(places + 0.5)
        if self.rounding == "round_prefer_floor":
            return np.ceil(places - 0.5)
        return np.floor(places) if self.rounding == "floor" else np.ceil(places)


def _legacy(application: Application, scales: list[float]) -> list[_Sampling]:
    mode = application.attributes.get("mode", "nearest")
    return [
        _Sampling(
            mode=mode,
            scale=scale,
            region=(0.0, 1.0),
            coordinates="asymmetric",
            rounding="floor",
            cubic=-0.75,
            excludes_outside=False,
        )
        for scale in scales
    ]


def _scales(application: Application, axes: list[int], resized: tuple[int, ...]) -> list[float]:
    """Returns the scale of each axis, from the scales or the sizes that the node is given."""
    shape = application.input_shape(0)
    scales = [1.0] * len(shape)
    declared = application.inputs[_SCALES] if application.has_input(_SCALES) else None
    if declared is not None and declared.size:
        for axis, scale in zip(axes, declared.tolist(), strict=True):
            scales[axis] = scale
        return scales
    for axis in axes:
        scales[axis] = resized[axis] / shape[axis]
    policy = application.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        sizes = application.input(_SIZES).tolist()
        ratios = [size / shape[axis] for axis, size in zip(axes, sizes, strict=True)]
        common = min(ratios) if policy == "not_larger" else max(ratios)
        for axis in axes:
            scales[axis] = common
    return scales


def _transposed_resize(
    application: Application, gradient: Array, sampling: list[_Sampling]
) -> Array:
    shape = application.input_shape(0)
    # Axes that shrink most come first, to leave the least work for the others.
    order = sorted(range(len(shape)), key=lambda axis: shape[axis] / max(gradient.shape[axis], 1))
    for axis in order:
        resized = gradient.shape[axis]
        if (
            resized == shape[axis]
            and sampling[axis].scale == 1
            and (sampling[axis].coordinates != "tf_crop_and_resize")
        ):
            continue
        weights = sampling[axis].weights(shape[axis], resized).astype(gradient.dtype)
        gradient = _along_axis(gradient, weights, axis)
    return gradient


def _along_axis(gradient: Array, weights: Array, axis: int) -> Array:
    """Returns the product of the transposed weights with one axis of the gradient."""
    outer, inner = gradient.shape[:axis], gradient.shape[axis + 1 :]
    if not inner:
        mapped: Array = gradient @ weights
        return mapped
    product: Array = weights.T @ gradient.reshape(*outer, gradient.shape[axis], -1)
    return product.reshape(*outer, weights.shape[1], *inner)


def cubic_taps(places: Coordinates, cubic: float) -> tuple[Coordinates, Coordinates]:
    """Returns the four taps around each place and their weights (Keys, 1981)."""
    first = np.floor(places)
    offsets = np.arange(-1, 3)
    distance = np.abs((places - first)[:, None] - offsets)
    near = ((cubic + 2) * distance - (cubic + 3)) * distance**2 + 1
    far = cubic * (((distance - 5) * distance + 8) * distance - 4)
    return first[:, None] + offsets, np.where(distance <= 1, near, far)
