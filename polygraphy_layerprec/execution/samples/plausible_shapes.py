"""Shapes for inputs whose axes are open: what was given, what follows from it, and what is likely.

Equal symbols are equal, in sums as well. A shape that a model refuses is replaced by others: each
kind of axis takes its next likely extent, first for all axes of that kind together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.execution.samples.axis_roles import (
    PLAUSIBLE_EXTENTS,
    AxisRole,
    has_sample_rate,
    role_of,
)
from polygraphy_layerprec.execution.samples.dimension_expressions import DimensionExpression
from polygraphy_layerprec.execution.samples.extents_by_weights import (
    extents_by_weights,
    rank_by_weights,
)
from polygraphy_layerprec.execution.samples.given import SampleError, describe_input

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polygraphy_layerprec.model import Graph, GraphInput

__all__ = ["ResolvedShape", "propose_shapes"]

_MOST_PROPOSALS: Final = 40
_LIKELY_RANKS: Final = (2, 4, 3, 1)


@dataclass(frozen=True, slots=True)
class ResolvedShape:
    """The shape of one input."""

    extents: tuple[int, ...]
    """Extent of each axis."""

    assumed_axes: tuple[int, ...]
    """Axes whose extent is neither fixed nor given, nor follows from what is."""


def propose_shapes(
    graph: Graph, given: Mapping[str, Sequence[int]]
) -> Iterator[dict[str, ResolvedShape]]:
    """Yields shapes for all inputs by name, the most plausible first; at most 40.

    Args:
        graph: The model.
        given: Shapes by input name. An extent given for a named axis holds for every axis of that
            name.

    Raises:
        SampleError: If a given shape does not fit.
    """
    for graph_input in graph.inputs:
        if graph_input.name in given:
            _check_shape(given[graph_input.name], graph_input)
    proposals = itertools.chain.from_iterable(
        _OpenShapes(graph, inputs, given).proposals() for inputs in _with_ranks(graph, given)
    )
    return itertools.islice(proposals, _MOST_PROPOSALS)


def _with_ranks(graph: Graph, given: Mapping[str, Sequence[int]]) -> Iterator[list[GraphInput]]:
    """The inputs, those of unknown rank with as many open axes as they may have."""
    ranks: list[tuple[int, ...]] = []
    for graph_input in graph.inputs:
        if graph_input.shape is not None:
            ranks.append((len(graph_input.shape),))
        elif graph_input.name in given:
            ranks.append((len(given[graph_input.name]),))
        else:
            rank = rank_by_weights(graph, graph_input.name)
            ranks.append(_LIKELY_RANKS if rank is None else (rank,))
    for chosen in itertools.product(*ranks):
        yield [
            graph_input
            if graph_input.shape is not None
            else replace(graph_input, shape=(None,) * rank)
            for graph_input, rank in zip(graph.inputs, chosen, strict=True)
        ]


class _OpenShapes:
    """The extents of all axes: numbers, or expressions over symbols that are open."""

    def __init__(
        self, graph: Graph, inputs: Sequence[GraphInput], given: Mapping[str, Sequence[int]]
    ) -> None:
        self._known: dict[str, int] = {}
        self._roles: dict[str, AxisRole] = {}
        self._axes: dict[str, list[int | DimensionExpression]] = {}
        self._audio = has_sample_rate(inputs)
        self._learn(inputs, given)
        for graph_input in inputs:
            name = graph_input.name
            self._axes[name] = (
                list(given[name]) if name in given else self._open_axes(graph, graph_input)
            )
        # A symbol that stands in sums alone has no place, only its name.
        for axis in itertools.chain.from_iterable(self._axes.values()):
            for symbol in () if isinstance(axis, int) else axis.symbols:
                if symbol not in self._roles:
                    stand_in = replace(inputs[0], shape=(1, symbol))
                    self._roles[symbol] = role_of(symbol, stand_in, 1, audio=self._audio)

    def proposals(self) -> Iterator[dict[str, ResolvedShape]]:
        seen = set()
        for extents in self._assignments():
            values = {**extents, **self._known}
            shapes = {name: self._resolved(name, values) for name in self._axes}
            key = tuple(shape.extents for shape in shapes.values())
            if key not in seen:
                seen.add(key)
                yield shapes

    def _open_axes(self, graph: Graph, graph_input: GraphInput) -> list[int | DimensionExpression]:
        shape = graph_input.shape or ()
        by_weights = extents_by_weights(graph, graph_input.name, len(shape))
        return [
            extent
            if isinstance(extent, int)
            else self._open_axis(extent, graph_input, axis, by_weights.get(axis))
            for axis, extent in enumerate(shape)
        ]

    def _open_axis(
        self, text: str | None, graph_input: GraphInput, axis: int, by_weight: int | None
    ) -> int | DimensionExpression:
        symbol = _symbol_of(text)
        role = role_of(symbol, graph_input, axis, audio=self._audio)
        demanded = None if role is AxisRole.BATCH else by_weight
        if symbol is None:
            symbol = f"?{role.value}"
            self._roles[symbol] = role
            return demanded or DimensionExpression(symbol, (symbol,), "")
        expression = DimensionExpression.parse(symbol)
        if not expression.source:
            self._add_role(symbol, role)
        solved = expression.solve(demanded, self._known) if demanded else None
        if solved:
            self._known[solved[0]] = solved[1]
        return expression

    def _add_role(self, symbol: str, role: AxisRole) -> None:
        order = list(AxisRole)
        before = self._roles.get(symbol, role)
        self._roles[symbol] = min(before, role, key=order.index)

    def _learn(self, inputs: Sequence[GraphInput], given: Mapping[str, Sequence[int]]) -> None:
        """Finds the symbols that the given shapes fix, sums once their other symbols are known."""
        pairs = [
            (DimensionExpression.parse(symbol), extent)
            for graph_input in inputs
            for axis, extent in zip(
                graph_input.shape or (), given.get(graph_input.name, ()), strict=False
            )
            if (symbol := _symbol_of(axis)) is not None
        ]
        for expression, extent in sorted(pairs, key=lambda pair: len(pair[0].symbols)):
            solved = expression.solve(extent, self._known)
            if solved:
                self._known[solved[0]] = solved[1]

    def _assignments(self) -> Iterator[dict[str, int]]:
        """Extents of the open symbols: the default, then by kind, by symbol, by pairs of kinds."""
        roles = {s: role for s, role in self._roles.items() if s not in self._known}
        default = {symbol: PLAUSIBLE_EXTENTS[role][0] for symbol, role in roles.items()}
        kinds = [role for role in AxisRole if role in {*roles.values()} - {AxisRole.BATCH}]
        batch = [AxisRole.BATCH] if AxisRole.BATCH in roles.values() else []
        yield default
        for kind, extent in itertools.chain(_in_turns(kinds), _in_turns(batch)):
            yield {s: extent if roles[s] is kind else value for s, value in default.items()}
        for symbol, role in roles.items():
            for extent in PLAUSIBLE_EXTENTS[role][1:]:
                yield {**default, symbol: extent}
        for (first, one), (second, other) in itertools.combinations(_in_turns(kinds), 2):
            if first is not second:
                extents = {first: one, second: other}
                yield {s: extents.get(roles[s], value) for s, value in default.items()}

    def _resolved(self, name: str, values: Mapping[str, int]) -> ResolvedShape:
        axes = self._axes[name]
        return ResolvedShape(
            tuple(axis if isinstance(axis, int) else axis.value(values) for axis in axes),
            tuple(
                place
                for place, axis in enumerate(axes)
                if isinstance(axis, DimensionExpression)
                and not all(symbol in self._known for symbol in axis.symbols)
            ),
        )


def _symbol_of(extent: int | str | None) -> str | None:
    # `?` is what some exporters write for axes that have nothing in common.
    return extent if isinstance(extent, str) and any(map(str.isalnum, extent)) else None


def _in_turns(kinds: Iterable[AxisRole]) -> Iterator[tuple[AxisRole, int]]:
    """The second extent of each kind, then the third of each."""
    columns = [[(kind, extent) for extent in PLAUSIBLE_EXTENTS[kind][1:]] for kind in kinds]
    for row in itertools.zip_longest(*columns):
        yield from filter(None, row)


def _check_shape(given: Sequence[int], graph_input: GraphInput) -> None:
    fixed = graph_input.shape
    fits = fixed is None or (
        len(given) == len(fixed)
        and all(e == f for e, f in zip(given, fixed, strict=True) if isinstance(f, int))
    )
    if not fits or any(not isinstance(extent, int) or extent < 1 for extent in given):
        raise SampleError(
            f"Wrong shape for the input {graph_input.name!r} in `--input-shapes`: {list(given)}.\n"
            f"Note: The model wants: {describe_input(graph_input)}.\n"
            f"Give a positive whole number for each axis."
        )
