"""The cheapest set of FP32 layers whose error, measured if it can be, meets a tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.selection.islands import IslandCuts
from polygraphy_layerprec.selection.prices import CostKind, Hardware, prices_for

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.selection.forecast import SetForecast

__all__ = ["ErrorOf", "SearchResult", "search_set"]

ErrorOf = Callable[["npt.NDArray[np.bool_]"], float]
"""Gives the output error of a set, measured or forecast."""

_PRICE_STEPS: Final = 10
_PRICE_RANGE: Final = (1e-3, 1e7)
"""Price of the whole error, in layers, from nothing is worth keeping to everything is."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What was found."""

    kept: npt.NDArray[np.bool_]
    """The set; the best one met where none meets the tolerance."""

    error: float
    """Its error."""

    plain: npt.NDArray[np.bool_] | None
    """The shortest prefix of the ranking that meets the tolerance; None if none does."""


@dataclass(slots=True)
class _Memory:
    """Measures every set once."""

    error_of: ErrorOf
    known: dict[bytes, float] = field(default_factory=dict)

    def error(self, kept: npt.NDArray[np.bool_]) -> float:
        key = kept.tobytes()
        if key not in self.known:
            self.known[key] = self.error_of(kept)
        return self.known[key]


def search_set(
    forecast: SetForecast,
    *,
    tolerance: float,
    error_of: ErrorOf,
    required: npt.NDArray[np.bool_],
    allowed: npt.NDArray[np.bool_],
    cost: CostKind,
    hardware: Hardware = Hardware(),  # noqa: B008 - it is immutable
    pinned: npt.NDArray[np.bool_] | None = None,
) -> SearchResult:
    """Returns a set that meets `tolerance` at little cost.

    Two families of growing sets are bisected, prefixes of the ranking and minimum cuts; of the two
    sets that meet the tolerance the cheaper is pruned of members that turn out not to be needed.

    Args:
        forecast: Of the ranked layers, which lie in the order of the ranking.
        tolerance: Largest error that is accepted.
        error_of: Gives the error of a set.
        required: Layers that the search starts from.
        allowed: Layers that may be kept.
        cost: What is to be saved.
        hardware: What an estimate of time rests on.
        pinned: Layers that are not dropped in the end, by default all that are required.
    """
    pinned = required if pinned is None else pinned
    memory = _Memory(error_of)
    everything = required | allowed
    if memory.error(required) <= tolerance:
        fewer = _prune(forecast, memory, tolerance, required, pinned)
        return SearchResult(fewer, memory.error(fewer), required)
    if not memory.error(everything) <= tolerance:  # nor if it is NaN
        best = min((required, everything), key=memory.error)
        return SearchResult(best, memory.error(best), None)
    plain = _shortest_prefix(memory, tolerance, required, allowed)
    prices = prices_for(cost, forecast, hardware)
    families = [prices] if cost == "count" else [prices, prices_for("count", forecast)]
    cuts = [
        _cheapest_cut(
            IslandCuts(forecast, prices=family, required=required, allowed=allowed),
            forecast,
            memory,
            tolerance,
            everything,
        )
        for family in families
    ]

    def price(kept: npt.NDArray[np.bool_]) -> float:
        return prices.of(kept, forecast.cost(kept).cast_count)

    cheapest = min((plain, *cuts), key=price)
    # Without a member, a set may need more casts: then it stays as it is.
    pruned = min((_prune(forecast, memory, tolerance, cheapest, pinned), cheapest), key=price)
    return SearchResult(pruned, memory.error(pruned), plain)


def _shortest_prefix(
    memory: _Memory,
    tolerance: float,
    required: npt.NDArray[np.bool_],
    allowed: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    candidates = np.flatnonzero(allowed & ~required)

    def prefix(length: int) -> npt.NDArray[np.bool_]:
        kept: npt.NDArray[np.bool_] = required.copy()
        kept[candidates[:length]] = True
        return kept

    low, high = 0, candidates.size  # the first does not meet it, the second does
    while high - low > 1:
        middle = (low + high) // 2
        if memory.error(prefix(middle)) <= tolerance:
            high = middle
        else:
            low = middle
    return prefix(high)


def _cheapest_cut(
    cuts: IslandCuts,
    forecast: SetForecast,
    memory: _Memory,
    tolerance: float,
    everything: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    best = everything
    total = float(forecast.powers.sum())
    if not total:
        return best
    low, high = np.log(np.array(_PRICE_RANGE) * len(forecast.layers) / total)
    for _ in range(_PRICE_STEPS):
        middle = (low + high) / 2
        kept = cuts.cheapest(float(np.exp(middle)))
        if memory.error(kept) <= tolerance:
            best, high = kept, middle
        else:
            low = middle
    return best


def _prune(
    forecast: SetForecast,
    memory: _Memory,
    tolerance: float,
    kept: npt.NDArray[np.bool_],
    required: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Drops as many members as the tolerance allows, those of least use by the forecast first."""
    members = np.flatnonzero(kept & ~required)
    use = [forecast.error(_without(kept, [member])) for member in members]
    order = members[np.argsort(use, kind="stable")]
    low, high = 0, order.size  # dropping `low` is fine, dropping `high` is not
    while high - low > 1:
        middle = (low + high) // 2
        if memory.error(_without(kept, order[:middle])) <= tolerance:
            low = middle
        else:
            high = middle
    return _without(kept, order[:low])


def _without(
    kept: npt.NDArray[np.bool_], members: npt.NDArray[np.intp] | list[np.intp]
) -> npt.NDArray[np.bool_]:
    fewer: npt.NDArray[np.bool_] = kept.copy()
    fewer[members] = False
    return fewer
