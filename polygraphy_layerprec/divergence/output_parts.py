"""Outputs and parts of them, as an option names them: `boxes`, `output[..., 4:]`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import numpy as np

__all__ = ["OutputParts", "parse_per_output"]

Arrays = Mapping[str, np.ndarray[Any, Any]]

_Value = TypeVar("_Value")

_SLICED: Final = re.compile(r"(?P<name>.+)\[(?P<index>[^\[\]]+)\]", re.DOTALL)
_AXIS: Final = re.compile(r"\.\.\.|-?\d+|(?:-?\d+)?:(?:-?\d+)?(?::(?:-?\d+)?)?")


class OutputParts:
    """The outputs that options name, whole or in part; all others are whole."""

    def __init__(self, named: Iterable[str], outputs: Iterable[str]) -> None:
        """Finds out what is named.

        Args:
            named: Names of outputs, or names with an index of numpy in brackets behind them.
            outputs: Outputs of the model.

        Raises:
            ValueError: If an output is unknown, or an index is not one.
        """
        self._parts: dict[str, dict[str, tuple[Any, ...] | None]] = {}
        known = tuple(outputs)
        for text in named:
            name, index = _parse(text, known)
            self._parts.setdefault(name, {})[text] = index

    def of(self, arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """Returns the parts by their text, and the outputs that are not named by their names.

        Raises:
            ValueError: If an output has fewer axes than an index of it.
        """
        return {
            text: _part(array, text, index)
            for name, array in arrays.items()
            for text, index in self._parts.get(name, {name: None}).items()
        }

    def select(self, arrays: Arrays, text: str) -> dict[str, np.ndarray[Any, Any]]:
        """Returns one part by its text, or for an empty text the outputs that are not named."""
        if not text:
            return {name: array for name, array in arrays.items() if name not in self._parts}
        return {found: part for found, part in self.of(arrays).items() if found == text}


def parse_per_output(texts: Iterable[str], value_of: Callable[[str], _Value]) -> dict[str, _Value]:
    """Returns values by output, of words like `0.1` and `boxes:0.1`; an empty name is all others.

    Raises:
        ValueError: If a value is not of its type, or an output is named twice.
    """
    values: dict[str, _Value] = {}
    for text in texts:
        name, _, word = text.rpartition(":")
        try:
            value = value_of(word)
        except ValueError as error:
            raise ValueError(f"must be VALUE or NAME:VALUE, got {text!r}: {error}") from error
        if name in values:
            raise ValueError(f"names {name or 'all outputs'!r} twice")
        values[name] = value
    return values


def _part(
    array: np.ndarray[Any, Any], text: str, index: tuple[Any, ...] | None
) -> np.ndarray[Any, Any]:
    if index is None:
        return array
    try:
        part = np.asarray(array[index])
    except (IndexError, ValueError) as error:
        raise ValueError(
            f"{text!r} does not fit an output of shape {array.shape}: {error}."
        ) from error
    if array.size and not part.size:  # which would meet any criterion
        raise ValueError(f"{text!r} selects nothing of an output of shape {array.shape}.")
    return part


def _parse(text: str, known: tuple[str, ...]) -> tuple[str, tuple[Any, ...] | None]:
    if text in known:
        return text, None
    sliced = _SLICED.fullmatch(text)
    name = text if sliced is None else sliced["name"]
    if name not in known:
        raise ValueError(
            f"The model has no output named {name!r}.\nNote: Its outputs are: {list(known)!r}."
        )
    assert sliced is not None
    axes = [axis.strip() for axis in sliced["index"].split(",")]
    if not all(map(_AXIS.fullmatch, axes)) or axes.count("...") > 1:
        raise ValueError(
            f"{text!r} is no part of an output: write an index as numpy has it, like "
            f"{name}[..., 4:]."
        )
    return name, tuple(map(_axis, axes))


def _axis(text: str) -> Any:
    if text == "...":
        return Ellipsis
    if ":" not in text:
        # Of length 1 rather than gone, so that a part has the axes of its output.
        place = int(text)
        return slice(place, place + 1 or None)
    return slice(*(int(end) if end else None for end in text.split(":")))
