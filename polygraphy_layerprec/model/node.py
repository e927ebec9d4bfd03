"""One node of a graph, and one input that a user feeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, helper

from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.names import block_of
from polygraphy_layerprec.model.operators import normal_domain
from polygraphy_layerprec.model.roles import Role

if TYPE_CHECKING:
    from polygraphy_layerprec.model.scopes import Guard

__all__ = ["GraphInput", "Node"]


@dataclass(frozen=True, slots=True)
class GraphInput:
    """One input that a user feeds."""

    name: str
    """ONNX name."""

    dtype: np.dtype[Any]
    """Element type."""

    shape: tuple[int | str | None, ...] | None
    """Extent of each axis: fixed, named, or unknown; None when not even the rank is known."""


@dataclass(frozen=True)
class Node:
    """One node, of the main graph, of a branch, or of a function that was called."""

    index: int
    """Position in execution order, from 0."""

    name: str
    """Unique name, under the path of calls."""

    role: Role
    """What it means to the measurement."""

    proto: NodeProto
    """The node, its tensors under their names in this graph; large constants in its bodies stay on
    disk."""

    opset: int
    """Operator-set version that its operator is of."""

    captures: tuple[str, ...]
    """Tensors that its bodies take from the graph around it."""

    guards: tuple[Guard, ...] = ()
    """The branches that it stands in, outermost first: it runs if all of them do."""

    branches: tuple[tuple[str, ...], ...] = ()
    """Of an `If`: the tensors that each branch gives, the one for true first."""

    trace: tuple[str, ...] = ()
    """The node, and the calls and branches around it, innermost first, as TensorRT's parser writes
    them."""

    is_random: bool = False
    """Whether two runs give different values."""

    @cached_property
    def op_type(self) -> str:
        """ONNX operator."""
        return self.proto.op_type

    @cached_property
    def domain(self) -> str:
        """Operator domain; empty for ONNX's own."""
        return normal_domain(self.proto.domain)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Input tensors; empty names for absent ones."""
        return tuple(self.proto.input)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Output tensors; empty names for unused ones."""
        return tuple(self.proto.output)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Every tensor it reads: inputs, what its bodies capture, and what branches give."""
        given = (name for branch in self.branches for name in branch)
        return tuple(dict.fromkeys(n for n in (*self.inputs, *self.captures, *given) if n))

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes present on the node, as Python values; text is str."""
        try:
            return {attribute.name: _python_value(attribute) for attribute in self.proto.attribute}
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"An attribute of node {self.name!r} is damaged: {error}.\n"
                f"Copy or export the model again."
            ) from error

    @property
    def path(self) -> tuple[str, ...]:
        """The calls and branches around it, innermost first; empty in the main graph."""
        return self.trace[1:]

    @property
    def is_layer(self) -> bool:
        """Whether a precision is chosen for it."""
        return self.role is Role.LAYER

    @property
    def is_constant(self) -> bool:
        """Whether its values are those of constants: builders convert them like weights."""
        fills = self.op_type == "ConstantOfShape" and not self.domain
        return self.role is Role.FOLDED or fills

    @property
    def block(self) -> str:
        """The part of the model it belongs to."""
        return block_of(self.name if self.path else self.proto.name)


def _python_value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value) if not value.external_data else value
    if hasattr(value, "__len__") and not isinstance(value, str):
        return [v.decode(errors="replace") if isinstance(v, bytes) else v for v in value]
    return value
