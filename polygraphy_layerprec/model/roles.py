"""What each node means to the measurement and to whoever picks precisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from onnx import TensorProto

from polygraphy_layerprec.model.element_types import FLOAT_TYPES, ValueType
from polygraphy_layerprec.model.operators import (
    SHAPE_ARITHMETIC,
    SHAPE_MOVEMENT,
    SHAPE_OPERANDS,
    SHAPE_SOURCES,
    Behavior,
    behavior_of,
    normal_domain,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from onnx import NodeProto

    from polygraphy_layerprec.model.expansion import PlacedNode

__all__ = ["Role", "find_roles"]


class Role(Enum):
    """What a node means to the measurement."""

    LAYER = "layer"
    """Computes, rounds its result, and gives FP32: what precision is chosen for."""

    EXACT = "exact"
    """Moves values, chooses among them or decides by them: introduces no error."""

    FOLDED = "folded"
    """Depends on constants alone: a builder computes it once, so it counts as a weight."""

    SHAPES = "shapes"
    """Computes shapes by floats: a rounded one would be another shape."""

    APART = "apart"
    """Computes in other types than FP32: integers, DOUBLE, or FP16 in the model itself."""


def find_roles(
    nodes: Sequence[PlacedNode],
    constants: Collection[str],
    types: Mapping[str, ValueType],
    random: Collection[int] = (),
) -> list[Role]:
    """Returns the role of each node.

    Args:
        nodes: The nodes, sorted.
        constants: Names of the weights.
        types: Type of every value.
        random: Positions of the nodes that draw random numbers.
    """
    folded = _find_folded(nodes, constants, random)
    shapes = _derived_from_shapes(nodes, constants) | _leading_to_shapes(nodes)
    return [
        _role(node, types, is_folded=index in folded, is_shape=index in shapes)
        for index, node in enumerate(nodes)
    ]


def _role(
    node: PlacedNode, types: Mapping[str, ValueType], *, is_folded: bool, is_shape: bool
) -> Role:
    if is_folded:
        return Role.FOLDED
    proto = node.proto
    held = {types[name].element_type for name in (*proto.input, *proto.output) if name in types}
    if is_shape and held & FLOAT_TYPES:
        return Role.SHAPES
    if behavior_of(proto.op_type, proto.domain, reduction=_reduction(proto)) != Behavior.COMPUTES:
        return Role.EXACT
    made = {types[name].element_type for name in proto.output if name}
    return Role.LAYER if TensorProto.FLOAT in made else Role.APART


def _reduction(proto: NodeProto) -> str:
    found = (a.s.decode(errors="replace") for a in proto.attribute if a.name == "reduction")
    return next(found, "none")


def _find_folded(
    nodes: Sequence[PlacedNode], constants: Collection[str], random: Collection[int]
) -> set[int]:
    known = set(constants)
    found = set()
    for index, node in enumerate(nodes):
        proto = node.proto
        given = (name for results in node.branches for name in results)
        # What decides whether a branch runs does not change what its constants are.
        read = {*proto.input, *node.captures, *given} - {""}
        if read and index not in random and known.issuperset(read):
            known.update(proto.output)
            found.add(index)
    return found


def _derived_from_shapes(nodes: Sequence[PlacedNode], constants: Collection[str]) -> set[int]:
    derived: set[str] = set()
    found = set()
    for index, node in enumerate(nodes):
        proto = node.proto
        if normal_domain(proto.domain):
            continue
        if proto.op_type in SHAPE_SOURCES:
            derived.update(proto.output)
            continue
        variable = [name for name in proto.input if name and name not in constants]
        # Picking from a constant by a shape, as from a table of positions, is the network's work.
        picks = proto.op_type in SHAPE_MOVEMENT and proto.input[0] in constants
        arithmetic = proto.op_type in SHAPE_ARITHMETIC and not picks
        if arithmetic and variable and derived.issuperset(variable):
            derived.update(proto.output)
            found.add(index)
    return found


def _leading_to_shapes(nodes: Sequence[PlacedNode]) -> set[int]:
    producers = {name: index for index, node in enumerate(nodes) for name in node.proto.output}
    found: set[int] = set()
    pending = [name for node in nodes for name in _shape_operands(node.proto)]
    while pending:
        index = producers.get(pending.pop())
        if index is None or index in found:
            continue
        proto = nodes[index].proto
        # Anything else is the network itself, which may well decide a shape, but not exactly.
        if proto.op_type in SHAPE_ARITHMETIC and not normal_domain(proto.domain):
            found.add(index)
            pending.extend(name for name in proto.input if name)
    return found


def _shape_operands(proto: NodeProto) -> Iterable[str]:
    if normal_domain(proto.domain):
        return ()
    positions = SHAPE_OPERANDS.get(proto.op_type, ())
    return [proto.input[p] for p in positions if p < len(proto.input) and proto.input[p]]
