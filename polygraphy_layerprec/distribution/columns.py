"""Arrays of numbers that anybody may have made, each taken for what it should be or refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final, cast

import numpy as np

__all__ = ["Columns", "as_column"]

_MOST_NUMBERS: Final = 1 << 28  # of 10,000 layers and 20,000 samples, for example


def as_column(values: Iterable[float], dtype: type[np.generic] = np.int64) -> np.ndarray[Any, Any]:
    """Returns an array of one axis."""
    return np.array(list(values), dtype)


class Columns:
    """Arrays by name; what is asked for is of the type, the size and the range asked for."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        """Stores them; those in a file are read when they are asked for."""
        self._arrays = arrays

    def integers(self, name: str, count: int | None) -> list[int]:
        """Returns whole numbers.

        Args:
            name: Name of the array.
            count: How many there must be; None for any number.

        Raises:
            ValueError: If there is no such array.
        """
        return cast("list[int]", self._array(name, (count,), np.int64).tolist())

    def counts(self, name: str, count: int | None) -> list[int]:
        """Returns whole numbers that are not negative; as `integers`."""
        values = self.integers(name, count)
        if min(values, default=0) < 0:
            raise ValueError(f"{name} must not be negative, got {min(values)}")
        return values

    def indices(self, name: str, *, below: int | None = None) -> list[int]:
        """Returns indices, none of them twice and in order; as `integers`."""
        values = self.counts(name, None)
        if any(before >= after for before, after in pairwise(values)):
            raise ValueError(f"{name} must be in order, each once")
        if below is not None and max(values, default=0) >= max(below, 1):
            raise ValueError(f"{name} must be below {below}, got {max(values)}")
        return values

    def pairs(self, name: str, *, below: int | None = None) -> list[tuple[int, int]]:
        """Returns pairs of numbers that are not negative, none twice and in order; as `integers`.

        Args:
            name: Name of the array.
            below: What the first ones, which then are indices that occur once, must be less than.
        """
        rows = [tuple(row) for row in self._array(name, (None, 2), np.int64).tolist()]
        if any(before >= after for before, after in pairwise(rows)):
            raise ValueError(f"{name} must be in order, each once")
        if min((min(row) for row in rows), default=0) < 0:
            raise ValueError(f"{name} must not be negative")
        firsts = [first for first, _ in rows]
        if below is not None and (
            len(set(firsts)) < len(firsts) or max(firsts, default=0) >= max(below, 1)
        ):
            raise ValueError(f"{name} must name each index once, below {below}")
        return rows

    def figures(
        self, name: str, count: int | None, *, may_be_infinite: bool = False
    ) -> list[float]:
        """Returns numbers in [0, inf), or with infinity among them; as `integers`."""
        values = self._array(name, (count,), np.float64)
        self._check_figures(name, values, may_be_infinite=may_be_infinite)
        return cast("list[float]", values.tolist())

    def table(self, name: str, rows: int, columns: int) -> list[list[float]]:
        """Returns numbers in [0, inf), NaN for those that are missing; as `integers`."""
        values = self._array(name, (rows, columns), np.float64)
        self._check_figures(name, values[~np.isnan(values)], may_be_infinite=False)
        return cast("list[list[float]]", values.tolist())

    def _check_figures(
        self, name: str, values: np.ndarray[Any, Any], *, may_be_infinite: bool
    ) -> None:
        good = (values >= 0.0) & (may_be_infinite | np.isfinite(values))
        if not good.all():
            raise ValueError(f"{name} must not be negative or not finite")

    def _array(
        self, name: str, shape: tuple[int | None, ...], dtype: type[np.generic]
    ) -> np.ndarray[Any, Any]:
        found = self._arrays.get(name)
        if found is None:
            raise ValueError(f"{name} is missing")
        fits = len(found.shape) == len(shape) and all(
            wanted in (None, extent) for extent, wanted in zip(found.shape, shape, strict=True)
        )
        if found.dtype != dtype or not fits:
            wanted = ["any" if extent is None else extent for extent in shape]
            raise ValueError(
                f"{name} must be {np.dtype(dtype)} {wanted}, got {found.dtype} {list(found.shape)}"
            )
        if math.prod(found.shape) > _MOST_NUMBERS:
            raise ValueError(f"{name} must have at most {_MOST_NUMBERS} numbers")
        return np.asarray(found)
