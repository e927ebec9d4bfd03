"""The library behind an array: numpy here, CuPy where arrays lie on a device.

Numpy's functions find the library of the arrays that they are given (NEP 13 and NEP 18). What makes
an array, or converts one, takes none and has to ask for the `namespace_of` another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from polygraphy_layerprec.precision import Precision

__all__ = [
    "ArrayLibrary",
    "count_true",
    "is_all_true",
    "is_any_true",
    "is_same",
    "largest_of",
    "library_of",
    "namespace_of",
    "on_host",
    "register_library",
    "smallest_of",
]

Array = npt.NDArray[Any]

_ROW_ELEMENTS: Final = 1 << 11
"""A device gives a row to a block of threads, and a reduction of one row to a single block."""


@dataclass(frozen=True, slots=True)
class ArrayLibrary:
    """A library other than numpy, whose arrays lie on a device."""

    namespace: Any
    """Its functions, by numpy's names."""

    to_host: Callable[[Any], Array]
    """Returns a copy of an array as numpy's."""

    round_flat: Callable[[Any, Any, Precision, bool], None]
    """Writes a rounded 1-D array to another, clipped to the range where asked: one kernel."""

    sum_of_squares: Callable[[Any], float]
    """Returns that of a 1-D array."""


_LIBRARIES: dict[type, ArrayLibrary] = {}


def register_library(array_type: type, library: ArrayLibrary) -> None:
    """Has arrays of a type computed by a library from now on."""
    _LIBRARIES[array_type] = library


def library_of(values: object) -> ArrayLibrary | None:
    """Returns the library of an array; None if it is numpy's."""
    return _LIBRARIES.get(type(values))


def namespace_of(values: object) -> Any:
    """Returns the module that makes arrays like `values`: numpy for numbers as well."""
    library = _LIBRARIES.get(type(values))
    return np if library is None else library.namespace


def on_host(values: Any) -> Array:
    """Returns an array as numpy's; itself if it is one."""
    library = _LIBRARIES.get(type(values))
    return np.asarray(values) if library is None else library.to_host(values)


def largest_of(values: Any) -> float:
    """Returns the maximum of an array that is not empty; NaN if there is one in it."""
    return float(values.max() if library_of(values) is None else _by_rows(values, "max"))


def smallest_of(values: Any) -> float:
    """Returns the minimum of an array that is not empty; NaN if there is one in it."""
    return float(values.min() if library_of(values) is None else _by_rows(values, "min"))


def is_all_true(mask: Any) -> bool:
    """Whether every element of an array of truth values is true."""
    return bool(mask.all() if library_of(mask) is None else _by_rows(mask, "all"))


def is_any_true(mask: Any) -> bool:
    """Whether an element of an array of truth values is true."""
    return bool(mask.any() if library_of(mask) is None else _by_rows(mask, "any"))


def count_true(mask: Any) -> int:
    """Returns how many elements of an array of truth values are true."""
    return int(np.count_nonzero(mask) if library_of(mask) is None else _by_rows(mask, "sum"))


def is_same(first: Any, second: Any) -> bool:
    """Whether two arrays of one shape are equal, a NaN being equal to a NaN."""
    if library_of(first) is None:
        return bool(np.array_equal(first, second, equal_nan=True))
    return is_all_true((first == second) | ((first != first) & (second != second)))  # noqa: PLR0124


def _by_rows(values: Any, method: str) -> Any:
    """Reduces rows first: a device reduces a long array with few threads."""
    flat = values.reshape(-1)
    whole = flat.size - flat.size % _ROW_ELEMENTS
    if flat.size < 2 * _ROW_ELEMENTS:
        return getattr(flat, method)()
    rows = getattr(flat[:whole].reshape(-1, _ROW_ELEMENTS), method)(axis=1)
    if whole < flat.size:
        rest = getattr(flat[whole:], method)(keepdims=True)
        rows = namespace_of(values).concatenate([rows, rest])
    return getattr(rows, method)()
