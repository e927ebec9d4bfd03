"""Which operators are one decision: those that share a pair, and those that hand a pair on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from polygraphy_layerprec.model.roles import Role

if TYPE_CHECKING:
    from polygraphy_layerprec.model.graph import Graph, Node
    from polygraphy_layerprec.model.quantized.records import Chain

__all__ = ["carried_tensors", "find_units"]

Chains = Mapping[str, Mapping[str, "Chain"]]


def carried_tensors(graph: Graph, chains: Chains) -> frozenset[str]:
    """Returns what nodes make that move values through pairs to other pairs.

    A MaxPool between two pairs rounds nothing, and the second pair finds what the first one left:
    both are the quantisation of whatever takes the result. So it is with what moves constants.

    Args:
        graph: The float graph.
        chains: The pairs before each node, as in `QuantizedGraph`.
    """
    hands_on: dict[int, bool] = {}
    for node in reversed(graph.nodes):
        hands_on[node.index] = _hands_on(graph, node, chains, hands_on)
    carried: set[str] = set()
    for node in graph.nodes:
        arrives = _name(node) in chains or not carried.isdisjoint(node.sources)
        if arrives and hands_on[node.index]:
            carried.update(filter(None, node.outputs))
    return frozenset(carried)


def _hands_on(graph: Graph, node: Node, chains: Chains, hands_on: Mapping[int, bool]) -> bool:
    made = [name for name in node.outputs if name]
    readers = [(name, reader) for name in made for reader in graph.consumers.get(name, ())]
    if not readers or node.branches or any(name in graph.outputs for name in made):
        return False
    if node.role is Role.FOLDED:
        return True
    if node.role is not Role.EXACT:
        return False
    return all(
        name in chains.get(_name(reader), {})
        or (reader.role is Role.EXACT and hands_on[reader.index])
        for name, reader in readers
    )


def find_units(
    graph: Graph, chains: Chains, carried: frozenset[str]
) -> tuple[tuple[str, ...], ...]:
    """Returns the nodes that belong together, by their first outputs, in execution order.

    Nodes that share a pair do: what excludes one of them from quantisation changes what the others
    read. So do those that only hand a pair on with the nodes behind them, and a pair in front of an
    output with the operator before it.

    Args:
        graph: The float graph.
        chains: The pairs before each node, as in `QuantizedGraph`.
        carried: As `carried_tensors` finds it.
    """
    groups = _Groups()
    by_pair: dict[str, str] = {}
    for node in graph.nodes:
        name = _name(node)
        if not (name in chains or not carried.isdisjoint(node.sources)):
            continue
        groups.add(name)
        for chain in chains.get(name, {}).values():
            for pair in chain:
                groups.join(name, by_pair.setdefault(pair.quantized, name))
        for source in node.sources:
            if source in carried:
                groups.join(name, _name(graph.producers[source]))
        if node.op_type == "Identity" and carried.isdisjoint(node.outputs):
            before = graph.producers.get(node.inputs[0])
            if before is not None and _name(before) in chains:
                groups.join(name, _name(before))
    return tuple(groups.members())


def _name(node: Node) -> str:
    return next(filter(None, node.outputs), "")


class _Groups:
    """Disjoint sets of names, in the order in which these came."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def add(self, name: str) -> None:
        self._parents.setdefault(name, name)

    def join(self, first: str, second: str) -> None:
        self.add(second)
        self._parents[self._root(first)] = self._root(second)

    def members(self) -> Iterator[tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for name in self._parents:
            found.setdefault(self._root(name), []).append(name)
        yield from map(tuple, found.values())

    def _root(self, name: str) -> str:
        while self._parents[name] != name:
            self._parents[name] = self._parents[self._parents[name]]
            name = self._parents[name]
        return name
