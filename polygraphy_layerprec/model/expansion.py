"""One flat list of nodes: calls of local functions expanded, branches of `If` beside the rest.

Tensors of the main graph keep their names; those of a function go under the path of its calls, and
those of a branch keep theirs where no other tensor has them. Bodies of `Loop` and `Scan` stay with
their node, which is one unit.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    TypeProto,
)

from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.function_sizes import check_expansion, function_key
from polygraphy_layerprec.model.names import FreshNames
from polygraphy_layerprec.model.operators import normal_domain
from polygraphy_layerprec.model.ordering import bodies_of, captured_names
from polygraphy_layerprec.model.scopes import (
    Guard,
    Scope,
    arguments_of,
    label_of,
    opsets_of,
    renamed,
)

__all__ = ["Expansion", "PlacedNode", "expand"]

_MOST_CHARACTERS: Final = 1 << 28
_BRANCHES: Final = (("then_branch", True), ("else_branch", False))


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """One node and where it stands."""

    proto: NodeProto
    """The node, its tensors under their names in the flat graph."""

    label: str
    """Name of the node, under the path of the calls around it; empty if it has none."""

    trace: tuple[str, ...]
    """The node, and the calls and branches around it, innermost first, as TensorRT's parser writes
    them."""

    opset: int
    """Operator-set version that its operator is of."""

    guards: tuple[Guard, ...]
    """The branches around it, outermost first."""

    captures: tuple[str, ...]
    """Tensors that its bodies take from the graph around it."""

    branches: tuple[tuple[str, ...], ...]
    """Of an `If`: the tensors that each branch gives, the one for true first."""

    sources: tuple[str, ...]
    """Every tensor that it waits for."""


@dataclass(slots=True)
class Expansion:
    """A model as one flat graph, not yet sorted."""

    nodes: list[PlacedNode] = field(default_factory=list)
    """Every node, constants included."""

    weights: dict[str, TensorProto | SparseTensorProto] = field(default_factory=dict)
    """Initializers by tensor name."""

    declared: dict[str, TypeProto] = field(default_factory=dict)
    """Types that the file declares, by tensor name."""


def expand(model: ModelProto) -> Expansion:
    """Returns the nodes and weights of a model as one flat graph.

    Raises:
        ModelError: If functions call each other in a circle, or would expand beyond bounds, names
            included, or the nesting is too deep.
    """
    check_expansion(model)
    return _Expander(model).run()


class _Expander:
    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._functions = {function_key(f): f for f in model.functions}
        self._names = FreshNames(_local_names(model.graph))
        self._found = Expansion()
        self._characters = 0

    def run(self) -> Expansion:
        graph = self._model.graph
        scope = Scope(ChainMap(), opsets_of(self._model.opset_import))
        self._take_weights(graph, scope)
        self._take_types(graph, scope)
        self._found.nodes.extend(self._place(graph.node, scope))
        return self._found

    def _place(
        self, protos: Iterable[NodeProto], scope: Scope, *, flat: bool = True
    ) -> Iterator[PlacedNode]:
        """Yields the nodes; those of branches too if `flat`, which a body's are not."""
        for proto in protos:
            function = self._functions.get(function_key(proto)) if self._functions else None
            if function is not None:
                yield from self._place_call(proto, function, scope, flat=flat)
            elif flat and proto.op_type == "If" and not normal_domain(proto.domain):
                yield from self._place_branches(proto, scope)
            else:
                yield _placed(self._rewritten(proto, scope), proto, scope)

    def _place_call(
        self, call: NodeProto, function: FunctionProto, scope: Scope, *, flat: bool
    ) -> Iterator[PlacedNode]:
        prefix = f"{scope.prefix}{label_of(call)}/"
        self._count(len(prefix) * len(function.node))
        names = dict.fromkeys(function.input, "")
        names.update(zip(function.input, map(scope.flat, call.input), strict=False))
        given = dict(zip(function.output, map(scope.flat, call.output), strict=False))
        handed_on = {name: target for name, target in given.items() if name in names and target}
        names.update((n, target) for n, target in given.items() if target and n not in names)
        for node in function.node:
            for name in node.output:
                if name and name not in names:
                    names[name] = self._names.make(f"{prefix}{name}")
        inner = Scope(
            ChainMap(names),
            {**scope.opsets, **opsets_of(function.opset_import)},
            prefix,
            (f"{label_of(call)} ({call.op_type})", *scope.path),
            scope.guards,
            arguments_of(call, function, scope),
            is_plain=False,
        )
        yield from self._place(function.node, inner, flat=flat)
        for name, target in handed_on.items():
            made = NodeProto(op_type="Identity", input=[names[name]], output=[target])
            yield _placed(made, made, inner)

    def _place_branches(self, proto: NodeProto, scope: Scope) -> Iterator[PlacedNode]:
        graphs = {a.name: a.g for a in proto.attribute if a.HasField("g")}
        condition = scope.flat(proto.input[0]) if proto.input else ""
        owner = next((scope.flat(name) for name in proto.output if name), "")
        results = []
        for attribute, value in _BRANCHES:
            if attribute not in graphs:
                raise ModelError(
                    f"The If node {proto.name!r} has no {attribute}.\nExport the model again."
                )
            graph = graphs[attribute]
            names = self._locals(graph, scope, f"{label_of(proto)}/{attribute}")
            inner = Scope(
                scope.names.new_child(names),
                scope.opsets,
                scope.prefix,
                (f"{graph.name} ({attribute})", f"{label_of(proto)} (If)", *scope.path),
                (*scope.guards, Guard(condition, value, owner)),
                scope.attributes,
                is_plain=scope.is_plain and all(old == new for old, new in names.items()),
            )
            self._take_weights(graph, inner)
            self._take_types(graph, inner)
            yield from self._place(graph.node, inner)
            results.append(tuple(inner.flat(value.name) for value in graph.output))
        yield _placed(
            proto if scope.is_plain else renamed(proto, scope),
            proto,
            scope,
            branches=tuple(results),
        )

    def _count(self, characters: int) -> None:
        """Ends where names of calls, each of which stands in those of all nodes below, are long."""
        self._characters += characters
        if self._characters > _MOST_CHARACTERS:
            raise ModelError(
                f"The local functions of the model expand to names of more than "
                f"{_MOST_CHARACTERS:,} characters.\nExport the model with shorter names of calls."
            )

    def _locals(self, graph: GraphProto, scope: Scope, where: str) -> dict[str, str]:
        """Flat names for the tensors of a branch or body."""
        names = {}
        for name in _local_names(graph):
            wanted = f"{scope.prefix}{name}"
            if wanted in self._names:
                wanted = f"{scope.prefix}{where}/{name}"
            names[name] = self._names.make(wanted)
        return names

    def _rewritten(self, proto: NodeProto, scope: Scope) -> NodeProto:
        """The node with flat names, in its bodies too, and without references to attributes."""
        has_bodies = any(True for _ in bodies_of(proto))
        if scope.is_plain and not (has_bodies and self._functions):
            return proto
        made = renamed(proto, scope)
        for attribute in made.attribute:
            for body in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                self._rewrite_body(body, scope, label_of(proto))
        return made

    def _rewrite_body(self, body: GraphProto, scope: Scope, where: str) -> None:
        names = scope.names.new_child(self._locals(body, scope, where))
        inner = Scope(names, scope.opsets, scope.prefix, (), (), scope.attributes, is_plain=False)
        placed = list(self._place(body.node, inner, flat=False))
        counts = Counter(node.label for node in placed)
        del body.node[:]
        for node in placed:
            body.node.append(node.proto)
            # ONNX-Runtime refuses two of one name, which calls of one function bring about.
            body.node[-1].name = node.label if counts[node.label] == 1 else ""
        for item in (*body.input, *body.output, *body.initializer, *body.value_info):
            item.name = inner.flat(item.name)
        for sparse in body.sparse_initializer:
            sparse.values.name = inner.flat(sparse.values.name)

    def _take_weights(self, graph: GraphProto, scope: Scope) -> None:
        weights = self._found.weights
        weights.update((scope.flat(tensor.name), tensor) for tensor in graph.initializer)
        weights.update((scope.flat(s.values.name), s) for s in graph.sparse_initializer)

    def _take_types(self, graph: GraphProto, scope: Scope) -> None:
        for value in (*graph.value_info, *graph.input, *graph.output):
            # A branch may hand on a tensor of the graph around it, which says more.
            if value.type.WhichOneof("value"):
                self._found.declared.setdefault(scope.flat(value.name), value.type)


def _placed(
    proto: NodeProto,
    original: NodeProto,
    scope: Scope,
    *,
    branches: tuple[tuple[str, ...], ...] = (),
) -> PlacedNode:
    # What an `If` takes from outside are sources of the nodes in its branches.
    captures = () if branches else tuple(sorted(captured_names(proto)))
    deciding = (guard.condition for guard in scope.guards)
    given = (name for branch in branches for name in branch)
    sources = dict.fromkeys((*proto.input, *captures, *given, *deciding))
    sources.pop("", None)
    return PlacedNode(
        proto,
        f"{scope.prefix}{original.name}" if original.name else "",
        (label_of(original), *scope.path),
        scope.opsets.get(normal_domain(original.domain), 1),
        scope.guards,
        captures,
        branches,
        tuple(sources),
    )


def _local_names(graph: GraphProto) -> Sequence[str]:
    names = [value.name for value in graph.input]
    names += [tensor.name for tensor in graph.initializer]
    names += [sparse.values.name for sparse in graph.sparse_initializer]
    names += [name for node in graph.node for name in node.output if name]
    return names
