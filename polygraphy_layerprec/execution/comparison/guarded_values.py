"""Which values low precision turns into others, so that an output becomes NaN or infinite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.execution.comparison.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor
from polygraphy_layerprec.plan import Planner
from polygraphy_layerprec.precision import is_floating

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.plan import KeptLayers
    from polygraphy_layerprec.precision import Precision

__all__ = ["NOTHING_LOST", "GuardedValues", "TurnedValue", "guarded_values"]

_HOPS: Final = 3
"""Layers behind a guard within which its loss shows: a root and a reciprocal may come between."""

Sample = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class TurnedValue:
    """One value, and what it is in low precision."""

    exact: float
    """In FP32."""

    low: float
    """In low precision."""


@dataclass(frozen=True, slots=True)
class GuardedValues:
    """What happens to a few layers while they are lowered."""

    start: Node | None
    """The first layer, of these or behind them, that gives NaN or an infinity; None if unknown."""

    is_nan: bool
    """Whether it gives NaN, and not infinities alone."""

    turned: Mapping[int, TurnedValue]
    """By node index of the layers up to there: a value that is another in low precision."""


NOTHING_LOST: Final = GuardedValues(None, is_nan=False, turned={})
"""Of layers behind which no value was seen to be lost."""


def guarded_values(
    graph: Graph,
    sample: Sample,
    members: Sequence[Node],
    *,
    precision: Precision,
    others: KeptLayers,
) -> GuardedValues:
    """Returns what becomes of the values of layers that must stay in FP32 together.

    Args:
        graph: The model.
        sample: One in which an output is lost.
        members: The layers, in execution order.
        precision: The low precision.
        others: What stays in FP32 meanwhile, so that nothing else is lost.
    """
    watched = _with_readers(graph, members)
    names = [name for node in watched for name in node.outputs if name]
    part, _ = part_that_counts(graph, names)
    executor = PlannedExecutor(part, precision)
    exact = executor.run(sample)
    low = executor.run(sample, Planner(part, precision).plan(others))
    pairs = [
        (node, exact[name], low[name])
        for node in watched
        for name in node.outputs
        if _are_comparable(exact.get(name), low.get(name))
    ]
    lost = [(node, values, _is_lost(*values)) for node, *values in pairs]
    start, found, where = next((each for each in lost if each[2].any()), (None, (), None))
    indices = {node.index for node in members}
    turned: dict[int, TurnedValue] = {}
    for node, values, candidates in pairs:
        if start is not None and node.index >= start.index:
            break
        value = _turned(values, candidates, where)
        if node.index in indices and value is not None:
            turned.setdefault(node.index, value)
    return GuardedValues(start, bool(np.isnan(found[1:]).any()), turned)


def _are_comparable(exact: npt.NDArray[Any] | None, low: npt.NDArray[Any] | None) -> bool:
    if exact is None or low is None:
        return False
    return is_floating(exact.dtype) and exact.shape == low.shape


def _with_readers(graph: Graph, members: Sequence[Node]) -> list[Node]:
    """The members and the layers that follow closely, in execution order."""
    found = {node.index: node for node in members}
    border = list(members)
    for _ in range(_HOPS):
        border = [reader for node in border for reader in _reading_layers(graph, node)]
        found.update((node.index, node) for node in border)
    return [found[index] for index in sorted(found)]


def _reading_layers(graph: Graph, node: Node) -> list[Node]:
    """The layers that take what a node makes, if only by way of nodes that move values."""
    readers: dict[int, Node] = {}
    waiting, seen = [node], {node.index}
    while waiting:
        for name in waiting.pop().outputs:
            for reader in graph.consumers.get(name, ()) if name else ():
                if reader.is_layer:
                    readers[reader.index] = reader
                elif reader.index not in seen:
                    seen.add(reader.index)
                    waiting.append(reader)
    return list(readers.values())


def _is_lost(exact: npt.NDArray[Any], low: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    lost: npt.NDArray[np.bool_] = np.isfinite(exact) & ~np.isfinite(low)
    return lost


def _turned(
    exact: npt.NDArray[Any], low: npt.NDArray[Any], where: npt.NDArray[np.bool_] | None
) -> TurnedValue | None:
    """The value that is told of: one that vanishes, else the most common one that is another.

    A guard is one number for all elements that it guards. Of numbers that occur once it is that
    which moves farthest.
    """
    with np.errstate(all="ignore"):
        changed = np.isfinite(exact) & (exact != low)
        met = None if where is None else _brought_to(where, exact.shape)
        if met is not None and (changed & met).any():
            changed &= met
        vanished = changed & (low == 0)
        chosen = vanished if vanished.any() else changed
        if not chosen.any():
            return None
        values, candidates = exact[chosen], low[chosen]
        distinct, counts = np.unique(values, return_counts=True)
        if counts.max() > 1:
            index = int(np.flatnonzero(values == distinct[counts.argmax()])[0])
        else:
            index = int(np.argmax(np.abs(candidates / values - 1)))
    return TurnedValue(float(values[index]), float(candidates[index]))


def _brought_to(
    where: npt.NDArray[np.bool_], shape: tuple[int, ...]
) -> npt.NDArray[np.bool_] | None:
    """Where elements of a shape meet those of a mask under broadcasting; None if they do not."""
    try:
        together = np.broadcast_shapes(where.shape, shape)
    except ValueError:
        return None
    wide = np.broadcast_to(where, together)
    extents = (1,) * (len(together) - len(shape)) + shape
    shared = tuple(axis for axis, extent in enumerate(extents) if extent == 1)
    met: npt.NDArray[np.bool_] = wide.any(axis=shared, keepdims=True).reshape(shape)
    return met
