"""Records to JSON values and back, driven by the records' own types."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, Final, TypeVar, cast

from polygraphy_layerprec.records import MaybeInfinite

__all__ = ["from_json_value", "to_json_value"]

_Record = TypeVar("_Record")

_INFINITY: Final = "inf"
"""What JSON, which has no infinity, holds for one."""

_JSON_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def to_json_value(record: object) -> Any:
    """Returns `record` as JSON values: records become objects in field order, tuples arrays.

    Raises:
        ValueError: If a number is NaN, or infinite and not `MaybeInfinite`; the text names it.
    """
    return _encode(record, "")


def from_json_value(record_type: type[_Record], value: Any) -> _Record:
    """Returns the record that `to_json_value` made `value` from.

    Keys that the record lacks are ignored, and fields with a default may be missing, so that files
    of later and earlier programs can still be read.

    Raises:
        ValueError: If a field is missing or of the wrong type; the text names it.
    """
    return cast("_Record", _decode(record_type, value, ""))


def _encode(value: object, where: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _INFINITY
            if getattr(value, field.name) == math.inf and _may_be_infinite(type(value), field.name)
            else _encode(getattr(value, field.name), _join(where, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple):
        return [_encode(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} must be finite to be saved, got {value}")
    return value


def _decode(expected: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(expected):
        return _decode_record(cast("type[Any]", expected), value, where)
    origin = typing.get_origin(expected)
    if origin is tuple:
        return _decode_tuple(typing.get_args(expected), value, where)
    if origin is typing.Literal:
        choices = typing.get_args(expected)
        if not isinstance(value, str) or value not in choices:
            raise _wrong(where, "one of " + ", ".join(map(repr, choices)), value)
        return value
    if origin in (types.UnionType, typing.Union):
        present = [choice for choice in typing.get_args(expected) if choice is not type(None)]
        return None if value is None else _decode(present[0], value, where)
    return _decode_scalar(expected, value, where)


def _decode_record(expected: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    hints = typing.get_type_hints(expected)
    arguments = {}
    for field in dataclasses.fields(expected):
        name = _join(where, field.name)
        if value.get(field.name) == _INFINITY and _may_be_infinite(expected, field.name):
            arguments[field.name] = math.inf
        elif field.name in value:
            arguments[field.name] = _decode(hints[field.name], value[field.name], name)
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{name} is missing")
    return expected(**arguments)


def _may_be_infinite(record_type: type[Any], field: str) -> bool:
    hint = typing.get_type_hints(record_type, include_extras=True)[field]
    return MaybeInfinite in (hint, *typing.get_args(hint))


def _decode_tuple(item_types: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(where, "an array", value)
    if item_types[-1] is Ellipsis:
        item_types = (item_types[0],) * len(value)
    if len(value) != len(item_types):
        raise _wrong(where, f"an array of {len(item_types)}", value)
    return tuple(
        _decode(item_type, item, f"{where}[{index}]")
        for index, (item_type, item) in enumerate(zip(item_types, value, strict=True))
    )


def _decode_scalar(expected: type[Any], value: Any, where: str) -> Any:
    # bool is a subclass of int, and JSON writes 1.0 as a float may be written: 1
    if expected is float and type(value) is int:
        return float(value)
    # A JSON number may be too large for a float.
    infinite = isinstance(value, float) and not math.isfinite(value)
    if type(value) is not expected or infinite:
        raise _wrong(where, _JSON_NAMES[expected], value)
    return value


def _wrong(where: str, wanted: str, value: Any) -> ValueError:
    return ValueError(f"{where or 'the file'} must be {wanted}, got {value!r:.60}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
