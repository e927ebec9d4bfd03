"""Type constraints of operators, as the ONNX schemas of the model's opset state them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from onnx import NodeProto, TensorProto, defs

from polygraphy_layerprec.model.operators import normal_domain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Formal", "Signature", "bound_variables", "signature", "type_string"]


@dataclass(frozen=True, slots=True)
class Formal:
    """A formal parameter of an operator."""

    variable: str
    """Name of its type variable, for example `T`, or its one type, for example `tensor(float)`."""

    allowed: frozenset[str]
    """The types that it takes, for example `tensor(float16)`."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Formal parameters of a node, one for each of its actual ones."""

    since_version: int
    """Opset version that introduced this form of the operator."""

    inputs: tuple[Formal, ...]
    """One for each input of the node, absent ones included."""

    outputs: tuple[Formal, ...]
    """One for each output of the node, absent ones included."""

    input_variables: frozenset[str]
    """Type variables of all inputs that the operator has, whether the node has them or not."""


def signature(node: NodeProto, opset: int) -> Signature | None:
    """Returns the formal parameters of a node, or None where no schema is known.

    Args:
        node: Any node.
        opset: Operator-set version of its domain.
    """
    domain = normal_domain(node.domain)
    if not defs.has(node.op_type, domain):
        return None
    formals = _formals(node.op_type, opset, domain)
    if formals is None:
        return None
    since_version, inputs, outputs = formals
    if (len(node.input) and not inputs) or (len(node.output) and not outputs):
        return None
    return Signature(
        since_version,
        _matched(inputs, len(node.input)),
        _matched(outputs, len(node.output)),
        frozenset(formal.variable for formal in inputs),
    )


def bound_variables(
    node: NodeProto, formals: Signature, types: Mapping[str, int]
) -> dict[str, set[int]]:
    """Returns the element types that a node's known operands give to each type variable."""
    bound: dict[str, set[int]] = {}
    for name, formal in _operands(node, formals):
        if name in types:
            bound.setdefault(formal.variable, set()).add(types[name])
    return bound


def type_string(tensor_type: int) -> str:
    """Returns the name that schemas give to tensors of an element type."""
    return f"tensor({TensorProto.DataType.Name(tensor_type).lower()})"


@cache
def _formals(
    op: str, version: int, domain: str
) -> tuple[int, tuple[Formal, ...], tuple[Formal, ...]] | None:
    try:
        schema = defs.get_schema(op, version, domain)
    except defs.SchemaError:
        return None
    inputs = tuple(Formal(p.type_str, frozenset(p.types)) for p in schema.inputs)
    outputs = tuple(Formal(p.type_str, frozenset(p.types)) for p in schema.outputs)
    return schema.since_version, inputs, outputs


def _matched(formals: Sequence[Formal], count: int) -> tuple[Formal, ...]:
    """Repeats the last parameter as a variadic one; surplus operands elsewhere are invalid."""
    return tuple(formals[min(position, len(formals) - 1)] for position in range(count))


def _operands(node: NodeProto, formals: Signature) -> Iterator[tuple[str, Formal]]:
    yield from zip(node.input, formals.inputs, strict=True)
    yield from zip(node.output, formals.outputs, strict=True)
