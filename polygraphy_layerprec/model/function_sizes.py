"""How large local functions become when every call is expanded, found without expanding any."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.operators import normal_domain
from polygraphy_layerprec.model.ordering import bodies_of

__all__ = ["check_expansion", "function_key"]

_MOST_NODES: Final = 1_000_000
_DEEPEST: Final = 100
"""Levels of calls and bodies within each other; protobuf itself ends bodies sooner."""


def function_key(item: NodeProto | FunctionProto) -> tuple[str, str, str]:
    """Returns what a call and the function that it calls have in common."""
    name = item.op_type if isinstance(item, NodeProto) else item.name
    return normal_domain(item.domain), name, getattr(item, "overload", "")


def check_expansion(model: ModelProto) -> None:
    """Checks that expanding every call of a local function comes to an end, within bounds.

    Raises:
        ModelError: If functions call each other in a circle, if the nesting is too deep, or if a
            model with functions would have more than a million nodes.
    """
    sizes = _Sizes(model)
    total, _ = sizes.of_graph(model.graph, 0)
    if model.functions and total > _MOST_NODES:
        shown = f"{total:,}" if total < 10**12 else "more than 10^12"
        raise ModelError(
            f"The local functions of the model expand to {shown} nodes; "
            f"up to {_MOST_NODES:,} are supported.\n"
            f"Export the model with fewer calls within each other."
        )


class _Sizes:
    def __init__(self, model: ModelProto) -> None:
        self._functions = {function_key(function): function for function in model.functions}
        self._known: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._open: list[tuple[str, str, str]] = []

    def of_graph(self, graph: GraphProto, depth: int) -> tuple[int, int]:
        """Nodes once all is expanded, and levels below; `depth` levels are around it."""
        return self._of_nodes(graph.node, depth)

    def _of_nodes(self, nodes: Iterable[NodeProto], depth: int) -> tuple[int, int]:
        _check_depth(depth)
        total = height = 0
        for node in nodes:
            key = function_key(node) if self._functions else ("", "", "")
            if key in self._functions:
                size, levels = self._of_function(key, depth)
                total, height = total + size, max(height, levels + 1)
                continue
            total += 1
            for body in bodies_of(node):
                size, levels = self.of_graph(body, depth + 1)
                total, height = total + size, max(height, levels + 1)
        return total, height

    def _of_function(self, key: tuple[str, str, str], depth: int) -> tuple[int, int]:
        if key in self._open:
            circle = " -> ".join(name for _, name, _ in (*self._open, key))
            raise ModelError(
                f"The local functions of the model call each other in a circle: {circle}.\n"
                f"The model is not valid: export it again."
            )
        if key not in self._known:
            self._open.append(key)
            self._known[key] = self._of_nodes(self._functions[key].node, depth + 1)
            self._open.pop()
        _check_depth(depth + 1 + self._known[key][1])
        return self._known[key]


def _check_depth(depth: int) -> None:
    if depth > _DEEPEST:
        raise ModelError(
            f"The model nests functions and bodies in more than {_DEEPEST} levels.\n"
            f"Export it with fewer levels."
        )
