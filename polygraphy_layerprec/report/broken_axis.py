"""A logarithmic axis with a break: what it does not reach stands in a strip of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.report.series import log_axis

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BrokenAxis", "break_axis"]

_STRIP: Final = 10.0  # a decade, as ticks have


@dataclass(frozen=True, slots=True)
class BrokenAxis:
    """Where numbers stand, and what is beyond."""

    ends: tuple[float, float]
    """The ends of what is logarithmic, powers of ten."""

    below: str = ""
    """What stands in the strip below, in a word: `0`; empty where there is none."""

    above: str = ""
    """What stands in the strip above, in a word: `overflow`; empty where there is none."""

    @property
    def drawn(self) -> tuple[float, float]:
        """The ends with the strips."""
        low, high = self.ends
        return low / _STRIP if self.below else low, high * _STRIP if self.above else high

    @property
    def labels(self) -> dict[float, str]:
        """The words for the strips, by where they stand."""
        low, high = self.drawn
        strips = ((low, self.below), (high, self.above))
        return {place: word for place, word in strips if word}

    @property
    def breaks(self) -> tuple[float, ...]:
        """Where lines stand for what is left out."""
        half = math.sqrt(_STRIP)
        low, high = self.drawn
        return tuple([low * half] * bool(self.below) + [high / half] * bool(self.above))

    def place(self, value: float | None) -> float:
        """Returns where to draw a number from 0 on, infinity included; NaN for None."""
        if value is None:
            return math.nan
        if value < self.ends[0]:
            return self.drawn[0]
        return self.drawn[1] if value > self.ends[1] else value

    def reaches(self, value: float | None) -> bool:
        """Whether a number stands on what is logarithmic."""
        return value is not None and self.ends[0] <= value <= self.ends[1]


def break_axis(
    values: Iterable[float | None],
    *,
    ends: tuple[float, float] | None = None,
    beyond: str = "infinite",
) -> BrokenAxis:
    """Returns an axis for numbers from 0 on, with strips for those that it does not reach.

    Args:
        values: What will be drawn; None is not.
        ends: The ends of what is logarithmic; by default as `log_axis` has them.
        beyond: What stands above, in a word.
    """
    drawn = [value for value in values if value is not None]
    low, high = log_axis(drawn) if ends is None else ends
    little = [value for value in drawn if value < low]
    below = "" if not little else "less" if any(little) else "0"
    return BrokenAxis((low, high), below, beyond if any(value > high for value in drawn) else "")
