"""Arrays that behave as a device's do, on numpy's: what calls numpy past them is refused."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from polygraphy_layerprec import arrays
from polygraphy_layerprec.arrays import ArrayLibrary
from polygraphy_layerprec.rounding import round_flat

if TYPE_CHECKING:
    from polygraphy_layerprec.precision import Precision

__all__ = ["ForeignArray", "foreign", "foreign_arrays"]


class ForeignArray(NDArrayOperatorsMixin):
    """An array that numpy computes with (NEP 13 and 18), but neither converts nor mixes."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("implicit conversion to a numpy array is not allowed")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        return _applied(getattr(ufunc, method), inputs, keywords)

    def __array_function__(self, function: Any, _: Any, given: Any, keywords: Any) -> Any:
        return _applied(function, given, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.values, name)
        if isinstance(found, types.BuiltinFunctionType):
            return lambda *given, **keywords: _applied(found, given, keywords)
        return _wrapped(found)

    def __getitem__(self, places: Any) -> Any:
        return _wrapped(self.values[_unwrapped(places, mixes=True)])

    def __setitem__(self, places: Any, values: Any) -> None:
        self.values[_unwrapped(places, mixes=True)] = _unwrapped(values)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return (_wrapped(part) for part in self.values)

    def __bool__(self) -> bool:
        return bool(self.values)

    def __int__(self) -> int:
        return int(self.values)

    def __float__(self) -> float:
        return float(self.values)

    def tolist(self) -> Any:
        return self.values.tolist()

    def item(self) -> Any:
        return self.values.item()


def foreign(values: Any) -> Any:
    """Returns an array as a foreign one; None for None."""
    return None if values is None else ForeignArray(values)


@contextmanager
def foreign_arrays() -> Iterator[None]:
    """Has foreign arrays computed by a library of their own within the block."""
    namespace = _Namespace()
    arrays.register_library(
        ForeignArray,
        ArrayLibrary(
            namespace=namespace,
            to_host=lambda array: array.values.copy(),
            round_flat=_round_flat,
            sum_of_squares=lambda array: float(np.dot(array.values, array.values)),
        ),
    )
    try:
        yield
    finally:
        del arrays._LIBRARIES[ForeignArray]


class _Namespace:
    """Numpy's functions, for foreign arrays."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if isinstance(function, np.ufunc):
            return function if name != "add" else _Add()
        converts = name in {"asarray", "ascontiguousarray", "array"}

        def call(*given: Any, **keywords: Any) -> Any:
            return _applied(function, given, keywords, mixes=converts)

        return call


class _Add:
    def at(self, target: Any, places: Any, values: Any) -> None:
        np.add.at(target.values, _unwrapped(places), _unwrapped(values))


def _round_flat(source: Any, target: Any, precision: Precision, saturate: bool) -> None:  # noqa: FBT001
    round_flat(source.values, target.values, precision, saturate=saturate)


def _applied(
    function: Callable[..., Any], given: Any, keywords: Any, *, mixes: bool = False
) -> Any:
    plain = [_unwrapped(value, mixes=mixes) for value in given]
    named = {name: _unwrapped(value, mixes=mixes) for name, value in keywords.items()}
    return _wrapped(function(*plain, **named))


def _unwrapped(value: Any, *, mixes: bool = False) -> Any:
    if isinstance(value, ForeignArray):
        return value.values
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrapped(part, mixes=mixes) for part in value)
    if isinstance(value, np.ndarray) and not mixes:
        raise TypeError("a numpy array among foreign ones")
    return value


def _wrapped(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return ForeignArray(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_wrapped(part) if _is_array(part) else part for part in value)
    return value


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic))
