"""Outputs and parts of them, as an option names them: `boxes`, `output[..., 4:]`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import numpy as np

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.precision import is_floating

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
            UserError: If an output is unknown, or an index is not one.
        """
        self._parts: dict[str, dict[str, tuple[Any, ...] | None]] = {}
        self._outputs = tuple(outputs)
        for text in named:
            name, index = _parse(text, self._outputs)
            self._parts.setdefault(name, {})[text] = index

    @property
    def rest(self) -> tuple[str, ...]:
        """What is not named, in words: outputs by their names, and `the rest of` others."""
        return tuple(
            _rest_of(name) if name in self._parts else name
            for name in self._outputs
            if name not in self._parts or self._is_sliced(name)
        )

    @property
    def names_any(self) -> bool:
        """Whether anything is named."""
        return bool(self._parts)

    @property
    def sliced(self) -> tuple[str, ...]:
        """The outputs of which parts are named alone."""
        return tuple(filter(self._is_sliced, self._parts))

    def texts(self, *, rest: bool = False) -> tuple[str, ...]:
        """Returns the names of what `of` gives, for any arrays."""
        texts = [text for name in self._outputs for text in self._parts.get(name, (name,))]
        return *texts, *(_rest_of(name) for name in self.sliced if rest)

    def of(self, arrays: Arrays, *, rest: bool = False) -> dict[str, np.ndarray[Any, Any]]:
        """Returns the parts by their text, and the outputs that are not named by their names.

        Args:
            arrays: Outputs by name.
            rest: Whether to add `the rest of` each output of which parts are named, in one row.

        Raises:
            UserError: If an output has fewer axes than an index of it.
        """
        parts = {
            text: _part(array, text, index)
            for name, array in arrays.items()
            for text, index in self._parts.get(name, {name: None}).items()
        }
        for name in self.sliced if rest else ():
            if name in arrays and not self._named(arrays[name], name).all():
                parts[_rest_of(name)] = arrays[name][~self._named(arrays[name], name)]
        return parts

    def select(self, arrays: Arrays, text: str) -> dict[str, np.ndarray[Any, Any]]:
        """Returns one part by its text, or for an empty text what is not named.

        Of a float output of which parts are named, these are NaN then, so that the rest has the
        channels that it had; of any other the rest is in one row.
        """
        if text:
            return {found: part for found, part in self.of(arrays).items() if found == text}
        found = {name: array for name, array in arrays.items() if name not in self._parts}
        for name in self.sliced:
            if name not in arrays or self._named(arrays[name], name).all():
                continue
            named = self._named(arrays[name], name)
            if is_floating(arrays[name].dtype):
                gone = np.asarray(np.nan, arrays[name].dtype)
                found[_rest_of(name)] = np.where(named, gone, arrays[name])
            else:
                found[_rest_of(name)] = arrays[name][~named]
        return found

    def _is_sliced(self, name: str) -> bool:
        return name in self._parts and None not in self._parts[name].values()

    def _named(self, array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
        """Which elements are in a part that is named."""
        named = np.zeros(array.shape, np.bool_)
        for text, index in self._parts[name].items():
            _part(named, text, index)[...] = True
        return named


def _rest_of(name: str) -> str:
    return f"the rest of {name}"


def parse_per_output(texts: Iterable[str], value_of: Callable[[str], _Value]) -> dict[str, _Value]:
    """Returns values by output, of words like `0.1` and `boxes:0.1`; an empty name is all others.

    Raises:
        UserError: If a value is not of its type, or an output is named twice.
    """
    values: dict[str, _Value] = {}
    for text in texts:
        name, _, word = text.rpartition(":")
        try:
            value = value_of(word)
        except ValueError as error:
            raise UserError(f"must be VALUE or NAME:VALUE, got {text!r}: {error}") from error
        if name in values:
            raise UserError(f"names {name or 'all outputs'!r} twice")
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
        raise UserError(
            f"{text!r} does not fit an output of shape {array.shape}: {error}."
        ) from error
    if array.size and not part.size:  # which would meet any criterion
        raise UserError(f"{text!r} selects nothing of an output of shape {array.shape}.")
    return part


def _parse(text: str, known: tuple[str, ...]) -> tuple[str, tuple[Any, ...] | None]:
    if text in known:
        return text, None
    sliced = _SLICED.fullmatch(text)
    name = text if sliced is None else sliced["name"]
    if name not in known:
        raise UserError(
            f"The model has no output named {name!r}.\nNote: Its outputs are: {list(known)!r}."
            f"{_bracket_hint(text, known)}"
        )
    assert sliced is not None
    axes = [axis.strip() for axis in sliced["index"].split(",")]
    if not all(map(_AXIS.fullmatch, axes)) or axes.count("...") > 1:
        raise UserError(
            f"{text!r} is no part of an output: write an index as numpy has it, like "
            f"{name}[..., 4:]."
        )
    return name, tuple(map(_axis, axes))


def _bracket_hint(text: str, known: tuple[str, ...]) -> str:
    """What to write where one bracket of a part is missing."""
    name, bracket, index = text.rstrip("]").partition("[")
    if bracket and name in known:
        return f"\nClose the bracket: {name}[{index}]."
    if text.endswith("]") and not bracket:
        for name in known:
            if name and text.startswith(name):
                return f"\nOpen the bracket: {name}[{text[len(name) :]}."
    return ""


def _axis(text: str) -> Any:
    if text == "...":
        return Ellipsis
    if ":" not in text:
        # Of length 1 rather than gone, so that a part has the axes of its output.
        place = int(text)
        return slice(place, place + 1 or None)
    return slice(*(int(end) if end else None for end in text.split(":")))
