"""Broken axes in pictures that matplotlib draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.report.series import powers_of_ten

if TYPE_CHECKING:
    from polygraphy_layerprec.report.broken_axis import BrokenAxis

__all__ = ["break_y_axis"]

_HALF_GAP: Final = 1.4  # factors, as the axis is logarithmic
_MARGIN: Final = 1.7


def break_y_axis(axes: Any, axis: BrokenAxis) -> None:
    """Makes the axis up a picture logarithmic, with strips for what it does not reach.

    Args:
        axes: Axes of matplotlib.
        axis: What they show.
    """
    axes.set_yscale("log")
    low, high = axis.drawn
    axes.set_ylim(low / _MARGIN, high * _MARGIN)
    labels = axis.labels
    powers = [power for power in powers_of_ten(axis.ends) if power not in labels]
    every = 1 + len(powers) // 9
    shown = [*powers[::every], *labels]
    words = [f"1e{_exponent(power)}" for power in powers[::every]]
    axes.set_yticks(shown, [*words, *labels.values()], minor=False)
    axes.minorticks_off()
    for place in axis.breaks:
        axes.axhspan(place / _HALF_GAP, place * _HALF_GAP, color="#e4e6e9", linewidth=0, zorder=2)


def _exponent(power: float) -> int:
    """Which power of ten a number is."""
    return int(f"{power:e}".partition("e")[2])
