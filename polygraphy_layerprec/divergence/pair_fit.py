"""How well the scale of a pair fits the values that pass it, in numbers that merge over samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.arrays import count_true, largest_of, namespace_of, on_host

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["PairFit", "describe_fit", "fit_of"]

_OUTLIER_RATIO: Final = 16.0
"""The other channels lose four of the eight bits."""
_WASTED: Final = 16.0
"""Four of the eight bits are never used."""
_FEWEST_CHANNELS: Final = 4
_LOST_SHARE: Final = 0.25
_EVEN_ZERO: Final = 0.5
_FP8_ZERO: Final = 2.0**-10
"""Half of the smallest number of FP8 E4M3, in units of the scale."""
_FLOAT_MAX: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class PairFit:
    """What is known of the values that pass one pair; `a + b` merges two sets of samples."""

    element_count: int
    """Finite elements."""

    clipped_count: int
    """Those whose magnitude is beyond the last step."""

    zeroed_count: int
    """Those that are not 0 and become 0."""

    clipping_power: float
    """Sum of squares of what is clipped off."""

    rounding_power: float
    """Sum of squares of the errors of rounding to steps, as their width forecasts it."""

    channel_steps: tuple[float, ...]
    """Largest magnitude of each channel, in units of the scale; one for all without channels."""

    largest_step: float
    """Largest multiple of the scale: 127 for INT8."""

    has_even_steps: bool
    """Whether all steps are equal: small values are as far from the next step as large ones."""

    max_abs: float
    """Largest finite magnitude."""

    def __add__(self, other: PairFit) -> PairFit:
        """Returns what both sets of samples say together."""
        ours, theirs = self.channel_steps, other.channel_steps
        if len(ours) != len(theirs):  # channels of another number are no channels
            ours, theirs = (max(ours, default=0.0),), (max(theirs, default=0.0),)
        return PairFit(
            self.element_count + other.element_count,
            self.clipped_count + other.clipped_count,
            self.zeroed_count + other.zeroed_count,
            self.clipping_power + other.clipping_power,
            self.rounding_power + other.rounding_power,
            tuple(map(max, ours, theirs)),
            self.largest_step,
            self.has_even_steps,
            max(self.max_abs, other.max_abs),
        )


def fit_of(
    values: npt.NDArray[Any],
    limits: npt.NDArray[np.float64],
    *,
    largest_step: float,
    has_even_steps: bool,
    channel_axis: int | None,
) -> PairFit:
    """Returns how a scale fits values.

    Args:
        values: Any shape, any float; what is not finite does not count.
        limits: Largest magnitudes that are not clipped, of a shape that broadcasts to that.
        largest_step: Largest multiple of the scale, to which the limits correspond.
        has_even_steps: As in `PairFit`.
        channel_axis: Axis of the channels, None without.
    """
    placed = namespace_of(values).asarray
    magnitudes = np.abs(values.astype(np.float32, copy=False))
    count = magnitudes.size
    largest = _largest(magnitudes)
    if not np.isfinite(largest):
        finite = np.isfinite(magnitudes)
        count = count_true(finite)
        magnitudes = np.where(finite, magnitudes, np.float32(0.0))
        largest = _largest(magnitudes)
    widths = limits / largest_step
    clipped, clipping_power = 0, 0.0
    if largest > limits.min(initial=np.inf):
        bounds = placed(np.minimum(limits, _FLOAT_MAX).astype(np.float32))
        clipped, clipping_power = _clipping(magnitudes, bounds)
    smallest = ((_EVEN_ZERO if has_even_steps else _FP8_ZERO) * widths).astype(np.float32)
    zeroed = count_true(magnitudes <= placed(smallest)) - count_true(magnitudes == 0.0)
    return PairFit(
        count,
        clipped,
        max(zeroed, 0),
        clipping_power,
        float(np.square(widths).mean()) * magnitudes.size / 12.0,
        _channels(magnitudes, placed(widths.astype(np.float32)), channel_axis),
        largest_step,
        has_even_steps,
        largest,
    )


def _largest(magnitudes: npt.NDArray[Any]) -> float:
    return largest_of(magnitudes) if magnitudes.size else 0.0


def _clipping(magnitudes: npt.NDArray[Any], bounds: npt.NDArray[Any]) -> tuple[int, float]:
    """How many values are clipped, and the sum of squares of what is clipped off."""
    beyond = magnitudes > bounds
    excess = (magnitudes - bounds)[beyond].astype(np.float64)
    return count_true(beyond), float(np.dot(excess, excess))


def _channels(
    magnitudes: npt.NDArray[Any], widths: npt.NDArray[Any], axis: int | None
) -> tuple[float, ...]:
    """Largest magnitude of each channel in units of its scale."""
    if axis is None:
        others: tuple[int, ...] = tuple(range(magnitudes.ndim))
    else:
        others = tuple(other for other in range(magnitudes.ndim) if other != axis)
    if not magnitudes.size:
        return (0.0,)
    if widths.ndim == 0:
        found = magnitudes.max(axis=others) / widths
    else:
        found = (magnitudes / widths).max(axis=others)
    return tuple(on_host(found).reshape(-1).tolist())


def describe_fit(name: str, fit: PairFit) -> tuple[str, str, float] | None:
    """Returns how a scale does not fit: kind, words with figures, and how bad; None if it does.

    Args:
        name: What is quantised, in words.
        fit: How it fits.
    """
    steps = np.asarray(fit.channel_steps)
    used = float(steps.max(initial=0.0))
    if not fit.element_count or not used:
        return None
    scale = fit.max_abs / used
    end = scale * fit.largest_step
    if fit.clipping_power > fit.rounding_power:
        share = fit.clipped_count / fit.element_count
        words = (
            f"saturation: {100 * share:.2g} % of {name} are clipped to {end:.3g}, "
            f"|x| up to {fit.max_abs:.3g}"
        )
        return "saturation", words, fit.clipping_power / fit.rounding_power
    median = float(np.median(steps))
    is_outlier = steps.size >= _FEWEST_CHANNELS and median < used / _OUTLIER_RATIO
    if fit.has_even_steps and is_outlier:
        worst = int(steps.argmax())
        words = (
            f"outlier channel: channel {worst} of {name} goes up to {fit.max_abs:.3g}, and leaves "
            f"the median channel {median:.2g} of {fit.largest_step:g} steps"
        )
        dead = int(np.count_nonzero((steps > 0.0) & (steps < 0.5)))
        words += f"; {dead} of {steps.size} channels become 0" if dead else ""
        return "outlier channel", words, used / max(median, 1e-3)
    if fit.zeroed_count > _LOST_SHARE * fit.element_count:
        share = fit.zeroed_count / fit.element_count
        words = (
            f"lost values: |x| of {name} goes up to {fit.max_abs:.3g}, so that "
            f"{100 * share:.2g} % of them are less than half a step and become 0"
        )
        return "lost values", words, share
    if fit.has_even_steps and used < _WASTED:
        words = (
            f"wasted range: |x| of {name} goes up to {fit.max_abs:.3g}, the scale to {end:.3g}: "
            f"{used:.2g} of {fit.largest_step:g} steps"
        )
        return "wasted range", words, fit.largest_step / used
    return _dead_channels(name, steps)


def _dead_channels(name: str, steps: npt.NDArray[np.float64]) -> tuple[str, str, float] | None:
    dead = int(np.count_nonzero((steps > 0.0) & (steps < 0.5)))
    if not dead:
        return None
    return "dead channels", f"dead channels: {dead} of {steps.size} of {name} become 0", float(dead)
