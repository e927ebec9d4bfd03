"""What names and attributes mean within functions and branches, and nodes rewritten to say it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import AttributeProto, FunctionProto, NodeProto

from polygraphy_layerprec.model.operators import normal_domain

__all__ = ["Guard", "Scope", "arguments_of", "label_of", "opsets_of", "renamed"]


@dataclass(frozen=True, slots=True)
class Guard:
    """A branch that a node stands in: it runs if the condition has this value."""

    condition: str
    """Tensor that decides."""

    value: bool
    """Its value when the branch runs."""

    owner: str
    """First output of the `If`."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What names and attributes mean at one place of the model."""

    names: ChainMap[str, str]
    """Flat names of the tensors defined here and around, one map for each level."""

    opsets: Mapping[str, int]
    """Operator sets by domain."""

    prefix: str = ""
    """Path of calls, as names of nodes and tensors begin."""

    path: tuple[str, ...] = ()
    """The calls and branches around, innermost first."""

    guards: tuple[Guard, ...] = ()
    """As in `PlacedNode`."""

    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    """What attributes of the function around refer to."""

    is_plain: bool = True
    """Whether every name stands for itself and no attribute refers to another."""

    def flat(self, name: str) -> str:
        """Returns the flat name of a tensor; a function sees nothing of what is around it."""
        if name in self.names:
            return self.names[name]
        return f"{self.prefix}{name}" if name else ""


def renamed(proto: NodeProto, scope: Scope) -> NodeProto:
    """Returns a node with flat names, its attributes resolved."""
    made = NodeProto()
    made.CopyFrom(proto)
    made.input[:] = [scope.flat(name) for name in proto.input]
    made.output[:] = [scope.flat(name) for name in proto.output]
    if any(attribute.ref_attr_name for attribute in proto.attribute):
        del made.attribute[:]
        made.attribute.extend(_resolved(proto.attribute, scope.attributes))
    return made


def _resolved(
    attributes: Iterable[AttributeProto], arguments: Mapping[str, AttributeProto]
) -> Iterator[AttributeProto]:
    """The attributes with what they refer to; those that refer to nothing are left out."""
    for attribute in attributes:
        if not attribute.ref_attr_name:
            yield attribute
        elif attribute.ref_attr_name in arguments:
            made = AttributeProto()
            made.CopyFrom(arguments[attribute.ref_attr_name])
            made.name = attribute.name
            yield made


def arguments_of(
    call: NodeProto, function: FunctionProto, scope: Scope
) -> dict[str, AttributeProto]:
    """Returns the attributes that a call gives to a function, defaults included."""
    defaults = {attribute.name: attribute for attribute in function.attribute_proto}
    given = {attribute.name: attribute for attribute in _resolved(call.attribute, scope.attributes)}
    return {**defaults, **given}


def label_of(proto: NodeProto) -> str:
    """Returns the name of a node as TensorRT's parser writes it."""
    return proto.name or f"node_of_{next(filter(None, proto.output), '')}"


def opsets_of(entries: Iterable[Any]) -> dict[str, int]:
    """Returns operator sets by domain."""
    return {normal_domain(entry.domain): entry.version for entry in entries}
