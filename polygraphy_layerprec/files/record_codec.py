"""Records to JSON values and back, driven by the records' own types."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.records import MaybeInfinite

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["from_json_value", "to_json_value"]

_Record = TypeVar("_Record")

_INFINITY: Final = "inf"
"""What JSON, which has no infinity, holds for one."""

_LARGEST_INTEGER: Final = 2**63 - 1  # what arrays of whole numbers hold
_JSON_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def to_json_value(record: object) -> Any:
    """Returns `record` as JSON values: records become objects in field order, tuples arrays.

    Raises:
        UserError: If a number is NaN, or infinite and not `MaybeInfinite`; the text names it.
    """
    return _encode(record, "")


def from_json_value(record_type: type[_Record], value: Any) -> _Record:
    """Returns the record that `to_json_value` made `value` from.

    Keys that the record lacks are ignored, and fields with a default may be missing, so that files
    of later and earlier programs can still be read.

    Raises:
        UserError: If a field is missing or of the wrong type; the text names it.
    """
    return cast("_Record", _decode(record_type, value, ""))


def _encode(value: object, where: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = [(field, getattr(value, field.name)) for field in _fields_of(type(value))]
        return {
            field.name: _INFINITY
            if field.may_be_infinite and item == math.inf
            else _encode(item, _join(where, field.name))
            for field, item in held
        }
    if isinstance(value, tuple):
        return [_encode(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} must be finite to be saved, got {value}")
    return value


def _decode(expected: Any, value: Any, where: str) -> Any:
    if type(expected) is type and expected in _JSON_NAMES:  # most of them
        return _decode_scalar(expected, value, where)
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
    assert origin in (types.UnionType, typing.Union)
    present = [choice for choice in typing.get_args(expected) if choice is not type(None)]
    return None if value is None else _decode(present[0], value, where)


def _decode_record(expected: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    arguments = {}
    for field in _fields_of(cast("Hashable", expected)):
        name = _join(where, field.name)
        if field.may_be_infinite and value.get(field.name) == _INFINITY:
            arguments[field.name] = math.inf
        elif field.name in value:
            arguments[field.name] = _decode(field.type, value[field.name], name)
        elif field.is_required:
            raise UserError(f"{name} is missing")
    return expected(**arguments)


class _Field(NamedTuple):
    name: str
    type: Any
    is_required: bool
    may_be_infinite: bool


@cache
def _fields_of(record_type: Hashable) -> tuple[_Field, ...]:
    """The fields of a record; slow to find out."""
    hints = typing.get_type_hints(record_type)
    annotated = typing.get_type_hints(record_type, include_extras=True)
    return tuple(
        _Field(
            field.name,
            hints[field.name],
            field.default is dataclasses.MISSING,
            MaybeInfinite in (annotated[field.name], *typing.get_args(annotated[field.name])),
        )
        for field in dataclasses.fields(cast("Any", record_type))
    )


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
    if type(value) is int and not -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER:
        raise _wrong(where, f"at most {_LARGEST_INTEGER:.1e} in magnitude", value)
    if expected is float and type(value) is int:
        return float(value)
    # A JSON number may be too large for a float.
    infinite = isinstance(value, float) and not math.isfinite(value)
    if type(value) is not expected or infinite:
        raise _wrong(where, _JSON_NAMES[expected], value)
    return value


def _wrong(where: str, wanted: str, value: Any) -> UserError:
    return UserError(f"{where or 'the file'} must be {wanted}, got {value!r:.60}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
