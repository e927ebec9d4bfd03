"""The few layers that keep every output finite, found by measuring sets of them.

What becomes NaN or infinite in low precision has its cause elsewhere: a guard of 1e-12 is 0, and
the division behind it gives NaN. Keeping one of them in FP32 is no help without the other, and no
impact tells of either. The smallest set that helps is found as one finds the lines that make a
program fail: by halving, for as long as a half will do (QuickXplain, Junker, 2004; delta debugging,
Zeller, 1999).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.records import RankedLayer, Ranking

__all__ = [
    "IsFinite",
    "find_guards",
    "guards_to_choose",
    "is_required",
    "linked_groups",
    "may_be_finite",
]

_REACHES: Final = (1, 2, 4)
"""Steps from where NaN starts to what is tried: a guard is mostly next to it."""

IsFinite = Callable[["npt.NDArray[np.bool_]"], bool]
"""Says of a set of FP32 layers whether every output is finite that is so in FP32."""


def is_required(layer: RankedLayer) -> bool:
    """Returns whether a layer is kept before rounding errors are looked at."""
    return bool(layer.lost)


def guards_to_choose(
    ranking: Ranking,
    is_finite: IsFinite,
    required: npt.NDArray[np.bool_],
    allowed: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Returns what keeps outputs finite on the samples that a choice is measured with.

    They may meet guards that those of the ranking did not.

    Args:
        ranking: The ranked layers.
        is_finite: Measures a set, given as a mask over them.
        required: Layers that are kept in any case.
        allowed: Layers that may be kept.

    Returns:
        A mask over the layers; empty if no set helps.
    """
    starts = {origin.name for origin in ranking.nonfinite_origins}
    found = find_guards(
        ranking.layers, is_finite, required=required, allowed=allowed, starts=starts
    )
    return np.zeros_like(required) if found is None else found


def may_be_finite(ranking: Ranking, kept: Collection[RankedLayer]) -> bool:
    """Returns whether nothing says that an output is NaN or infinite with some layers in FP32.

    It is for where no set is measured: where an output is so with all layers lowered, all that is
    blamed must be kept.

    Args:
        ranking: The ranked layers.
        kept: Those that stay in FP32.
    """
    blamed = [layer for layer in ranking.layers if is_required(layer)]
    cured = bool(blamed) and all(layer in kept for layer in blamed)
    return cured or math.isfinite(ranking.output_error.measured)


def find_guards(
    layers: Sequence[RankedLayer],
    is_finite: IsFinite,
    *,
    required: npt.NDArray[np.bool_],
    allowed: npt.NDArray[np.bool_],
    starts: Collection[str] = (),
) -> npt.NDArray[np.bool_] | None:
    """Returns the layers to keep beside those required, so that every output is finite.

    None of them can be left out, as long as more layers in FP32 make no output less finite. For k
    of n candidates about 2 k log2(n / k) sets are measured; the candidates lie around the starts.

    Args:
        layers: The layers, in any order.
        is_finite: Measures a set, given as a mask over `layers`.
        required: Layers that are kept in any case.
        allowed: Layers that may be kept.
        starts: Names of the layers where NaN or infinities start, as far as they are known.

    Returns:
        A mask over `layers`, empty where what is required is enough; None if no set helps.
    """
    known: dict[bytes, bool] = {}

    def holds(kept: npt.NDArray[np.bool_]) -> bool:
        key = kept.tobytes()
        if key not in known:
            known[key] = is_finite(kept)
        return known[key]

    nothing = np.zeros_like(required)
    if holds(required):
        return nothing
    if not holds(required | allowed):
        return None
    distances = _distances(layers, starts)
    pool = next(
        near
        for near in _pools(layers, distances, allowed & ~required)
        if holds(required | near)  # the last is everything that is allowed
    )
    candidates = sorted(
        np.flatnonzero(pool).tolist(),
        key=lambda index: _preference(layers[index], float(distances[index])),
    )
    found = nothing.copy()
    found[_needed(holds, required, candidates)] = True
    return found if holds(required | found) else pool


def linked_groups(
    layers: Sequence[RankedLayer], members: npt.NDArray[np.bool_]
) -> list[tuple[int, ...]]:
    """Returns the members in groups of layers that read one another, each in execution order.

    Args:
        layers: The layers, in any order.
        members: A mask over them.
    """
    links = _links(layers)
    waiting = set(np.flatnonzero(members).tolist())
    groups = []
    while waiting:
        group, border = set(), [min(waiting, key=lambda index: layers[index].graph_index)]
        while border:
            index = border.pop()
            if index in waiting:
                waiting.discard(index)
                group.add(index)
                border += links[index]
        groups.append(tuple(sorted(group, key=lambda index: layers[index].graph_index)))
    return groups


def _needed(
    holds: IsFinite, background: npt.NDArray[np.bool_], candidates: Sequence[int]
) -> list[int]:
    """The candidates without which the others do not hold, the first ones where there is choice."""

    def search(
        background: npt.NDArray[np.bool_], candidates: Sequence[int], *, is_tried: bool
    ) -> list[int]:
        if not is_tried and holds(background):
            return []
        if len(candidates) == 1:
            return list(candidates)
        half = len(candidates) // 2
        first, second = candidates[:half], candidates[half:]
        of_second = search(_with(background, first), second, is_tried=False)
        of_first = search(_with(background, of_second), first, is_tried=not of_second)
        return of_first + of_second

    return search(background, candidates, is_tried=True)


def _with(kept: npt.NDArray[np.bool_], members: Sequence[int]) -> npt.NDArray[np.bool_]:
    more: npt.NDArray[np.bool_] = kept.copy()
    more[list(members)] = True
    return more


def _pools(
    layers: Sequence[RankedLayer],
    near: npt.NDArray[np.float64],
    candidates: npt.NDArray[np.bool_],
) -> Iterator[npt.NDArray[np.bool_]]:
    """Ever more candidates: around the starts, then around all values that vanish, then all.

    A NaN hides those that would start behind it, so starts alone may not be enough.
    """
    for reach in _REACHES:
        yield candidates & (near <= reach)
    vanishing = {layer.name for layer in layers if layer.underflow_count}
    yield candidates & ((near <= _REACHES[0]) | (_distances(layers, vanishing) <= 1))
    yield candidates


def _preference(layer: RankedLayer, distance: float) -> tuple[float, bool, float, int]:
    """Near ones first; then those where a value vanishes, and those that cost little."""
    return distance, not layer.underflow_count, layer.flops, layer.graph_index


def _distances(layers: Sequence[RankedLayer], starts: Collection[str]) -> npt.NDArray[np.float64]:
    """Steps from reader to read, or back, to the nearest start; infinite where none leads there."""
    links = _links(layers)
    distances = np.full(len(layers), np.inf)
    border = [index for index, layer in enumerate(layers) if layer.name in starts]
    steps = 0
    while border:
        distances[border] = steps
        steps += 1
        around = {neighbour for index in border for neighbour in links[index]}
        border = [index for index in around if np.isinf(distances[index])]
    return distances


def _links(layers: Sequence[RankedLayer]) -> list[set[int]]:
    """For each layer those that read it or are read by it.

    Readers are known through what moves values, but only where an error is passed on; names tell
    of the others.
    """
    positions = {layer.name: index for index, layer in enumerate(layers)}
    makers = {name: i for i, layer in enumerate(layers) for name in layer.outputs if name}
    links: list[set[int]] = [set() for _ in layers]
    for index, layer in enumerate(layers):
        others = [positions[reader] for reader, _ in layer.readers if reader in positions]
        others += [makers[name] for name in layer.inputs if name in makers]
        for other in others:
            links[index].add(other)
            links[other].add(index)
    return links
