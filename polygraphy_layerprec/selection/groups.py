"""Whole blocks, or all operators of a kind, kept in FP32 at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from polygraphy_layerprec.selection.forecast import SetForecast

__all__ = ["GroupKind", "group_masks", "search_groups"]

GroupKind = Literal["layer", "block", "operator"]
"""What is kept or lowered as one: a layer, a part of the model, all layers of an operator."""


def group_masks(
    forecast: SetForecast, kind: GroupKind, allowed: npt.NDArray[np.bool_]
) -> list[npt.NDArray[np.bool_]]:
    """Returns the groups of layers that may be kept, as masks, those of most use first.

    A group is of use by the sum of the squared impacts of its layers; with equal ones the group of
    the worse ranked layer is first.

    Args:
        forecast: Of the ranked layers.
        kind: What belongs together.
        allowed: Layers that may be kept; the others are in no group.
    """
    groups: dict[str, npt.NDArray[np.bool_]] = {}
    for place in np.flatnonzero(allowed):
        layer = forecast.layers[place]
        name = {"layer": layer.name, "block": layer.block, "operator": layer.op}[kind]
        groups.setdefault(name, np.zeros_like(allowed))[place] = True
    powers = forecast.powers
    return sorted(groups.values(), key=lambda mask: -float(powers[mask].sum()))


def search_groups(
    groups: list[npt.NDArray[np.bool_]],
    excess: Callable[[npt.NDArray[np.bool_]], float],
    required: npt.NDArray[np.bool_],
    pinned: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Returns a set of whole groups that passes, or the best that was met.

    The shortest run of groups in their order that passes is found by halving, then groups are
    dropped one by one, those of least use first.

    Args:
        groups: Those of most use first.
        excess: Measures a set: at most 1 passes.
        required: Layers whose groups the search starts from.
        pinned: Layers whose groups are not dropped in the end.
    """
    first = [group for group in groups if (group & required).any()]
    rest = [group for group in groups if not (group & required).any()]
    nothing = np.zeros_like(required)

    def union(chosen: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
        kept: npt.NDArray[np.bool_] = np.logical_or.reduce([nothing, required & pinned, *chosen])
        return kept

    low, high = -1, len(rest)  # the first does not pass; where nothing passes, all are the best
    while high - low > 1:
        middle = (low + high) // 2
        if excess(union(first + rest[:middle])) <= 1.0:
            high = middle
        else:
            low = middle
    chosen = first + rest[:high]
    if excess(union(chosen)) > 1.0:
        return min((union(first), union(chosen)), key=excess)
    for group in reversed(chosen):
        fewer = [one for one in chosen if one is not group]
        if not (group & pinned).any() and excess(union(fewer)) <= 1.0:
            chosen = fewer
    return union(chosen)
