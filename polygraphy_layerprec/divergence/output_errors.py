"""How far one output is from its reference, in numbers that criteria are about."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from polygraphy_layerprec.divergence.sums import relative_error
from polygraphy_layerprec.precision import is_floating

__all__ = ["count_lost", "count_unequal", "largest_error", "worst_relative_error"]

_CHANNEL_RATIO: Final = 30.0
_MIN_CHANNEL_ELEMENTS: Final = 16
_RUNS_SHOWN: Final = 3


def worst_relative_error(
    reference: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any], floor: float = 0.0
) -> tuple[float, str]:
    """Returns the relative L2 error of an output, or of that part of its channels that is worst.

    Beside it stands the index of these channels, as numpy has it; nothing where it is all of them.

    Channels whose sizes lie a factor of 30 and more apart are measured apart: the error of scores
    does not vanish beside boxes that are a thousand times as large. Channels of like size are
    taken together, however many there are: a class that nobody sees has no error of its own.

    Args:
        reference: Shape `(...)`, any float; what is not finite in it does not count.
        candidate: Of the same shape.
        floor: Root mean square below which a group of channels counts as being of this size.

    >>> worst_relative_error(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    (0.1, '')
    """
    exact, found = reference.astype(np.float64), candidate.astype(np.float64)
    finite = np.isfinite(exact)
    if not np.isfinite(found[finite]).all():
        return float("inf"), ""
    powers = np.where(finite, exact, 0.0) ** 2
    errors = np.where(finite, found - np.where(finite, exact, 0.0), 0.0) ** 2
    worst = relative_error(float(errors.sum()), float(powers.sum())), ""
    for axis in {1, exact.ndim - 1} if exact.ndim > 2 else ():
        if exact.size >= _MIN_CHANNEL_ELEMENTS * exact.shape[axis]:
            groups = _group_errors(powers, errors, axis, floor)
            worst = max(worst, *groups, key=lambda found: found[0])
    return worst


def count_lost(exact: np.ndarray[Any, Any], found: np.ndarray[Any, Any] | None) -> tuple[int, int]:
    """Returns how many elements finite in the reference are lost, and how many there are."""
    if not is_floating(exact.dtype):
        return 0, 0
    finite = np.isfinite(exact.astype(np.float64))
    if found is None or found.shape != exact.shape:
        return int(np.count_nonzero(finite)), exact.size
    return int(np.count_nonzero(finite & ~np.isfinite(found.astype(np.float64)))), exact.size


def count_unequal(
    exact: np.ndarray[Any, Any], found: np.ndarray[Any, Any] | None
) -> tuple[int, int]:
    """Returns how many elements of an integer output differ, and how many there are."""
    if is_floating(exact.dtype):
        return 0, 0
    if found is None or found.shape != exact.shape:
        return exact.size, exact.size
    return int(np.count_nonzero(exact != found)), exact.size


def largest_error(exact: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> tuple[float, str]:
    """Returns the largest absolute error of what is finite in the reference, of no channels."""
    finite = np.isfinite(exact.astype(np.float64))
    wide = found.astype(np.float64)[finite]
    if not np.isfinite(wide).all():
        return float("inf"), ""
    return float(np.abs(wide - exact.astype(np.float64)[finite]).max(initial=0.0)), ""


def _group_errors(
    powers: np.ndarray[Any, Any], errors: np.ndarray[Any, Any], axis: int, floor: float
) -> list[tuple[float, str]]:
    others = tuple(other for other in range(powers.ndim) if other != axis)
    elements = powers.size // powers.shape[axis]
    power, error = powers.sum(axis=others), errors.sum(axis=others)
    sizes = np.maximum(np.sqrt(power / elements), max(floor, np.finfo(np.float64).tiny))
    order = np.argsort(sizes, kind="stable")
    borders = 1 + np.flatnonzero(sizes[order][1:] > _CHANNEL_RATIO * sizes[order][:-1])
    if not borders.size:
        return [(0.0, "")]
    return [
        (
            relative_error(
                float(error[group].sum()),
                max(float(power[group].sum()), floor**2 * elements * group.size),
            ),
            _index_of(np.sort(group), axis),
        )
        for group in np.split(order, borders)
    ]


def _index_of(channels: np.ndarray[Any, Any], axis: int) -> str:
    """The index of channels, as an option names a part; in braces where they are several runs."""
    runs = np.split(channels, 1 + np.flatnonzero(np.diff(channels) > 1))
    texts = [str(run[0]) if run.size == 1 else f"{run[0]}:{run[-1] + 1}" for run in runs]
    text = ", ".join(texts[:_RUNS_SHOWN] + ["..."] * (len(texts) > _RUNS_SHOWN))
    return f"[{':, ' * axis}{text}]" if len(texts) == 1 else f"[{':, ' * axis}{{{text}}}]"
