"""What sets of layers leave, each measured once; and the ones worth choosing from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from polygraphy_layerprec.records import MeasuredSet, Outcome, SelectionCost, SetCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.selection.forecast import SetForecast
    from polygraphy_layerprec.selection.prices import Prices

__all__ = ["Measure", "Recorder"]

_MOST_SETS: Final = 7


class Measure(Protocol):
    """Measures sets of layers, given as masks over the ranking."""

    @property
    def sample_count(self) -> int:
        """How many samples it measures on."""

    def outcome(self, kept: npt.NDArray[np.bool_]) -> Outcome:
        """Returns what a set leaves."""

    def counts(self, kept: npt.NDArray[np.bool_]) -> SetCounts:
        """Returns what a set costs in the model."""


class Recorder:
    """Measures every set once, and remembers it."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._known: dict[bytes, tuple[npt.NDArray[np.bool_], Outcome]] = {}
        self._counts: dict[bytes, SetCounts] = {}
        self._hidden: set[bytes] = set()

    @property
    def sample_count(self) -> int:
        """How many samples are measured on."""
        return self._measure.sample_count

    @property
    def calls(self) -> int:
        """How many sets were measured."""
        return len(self._known)

    def outcome(self, kept: npt.NDArray[np.bool_]) -> Outcome:
        """Returns what a set leaves."""
        key = kept.tobytes()
        if key not in self._known:
            self._known[key] = kept.copy(), self._measure.outcome(kept)
        return self._known[key][1]

    def cost(self, forecast: SetForecast, kept: npt.NDArray[np.bool_]) -> SelectionCost:
        """Returns what a set costs, counted in the model."""
        key = kept.tobytes()
        if key not in self._counts:
            self._counts[key] = self._measure.counts(kept)
        found = self._counts[key]
        return replace(
            forecast.cost(kept),
            cast_count=found.casts,
            node_count=found.nodes,
            pair_count=found.pairs,
        )

    def _price(self, prices: Prices, forecast: SetForecast, kept: npt.NDArray[np.bool_]) -> float:
        # An FP32 build needs no cast, but is what nobody asks for while anything else will do.
        if kept.all():
            return float("inf")
        return prices.of(kept, self.cost(forecast, kept).cast_count)

    def excess(self, kept: npt.NDArray[np.bool_]) -> float:
        """Returns the error of a set as a multiple of the one that just passes."""
        return self.outcome(kept).excess

    def hide(self, kept: npt.NDArray[np.bool_]) -> None:
        """Leaves a set that did not help out of what there is to choose from."""
        self._hidden.add(kept.tobytes())

    def cheapest(self, prices: Prices, forecast: SetForecast) -> npt.NDArray[np.bool_]:
        """Returns the cheapest of all measured sets that pass, else the nearest to passing."""

        def order(kept: npt.NDArray[np.bool_]) -> tuple[tuple[float, float, float], float]:
            outcome = self.outcome(kept)
            distance = (0.0, 0.0, 0.0) if outcome.passed else outcome.distance
            return distance, self._price(prices, forecast, kept)

        return min((kept for kept, _ in self._known.values()), key=order)

    def choices(
        self,
        forecast: SetForecast,
        prices: Prices,
        chosen: npt.NDArray[np.bool_],
        shown: Sequence[npt.NDArray[np.bool_]] = (),
    ) -> tuple[tuple[MeasuredSet, ...], int]:
        """Returns the sets that no other beats in price and error, and the place of the chosen.

        They are ordered by price; where there are more than seven, those in between are left out
        evenly, but for those that are to be shown. The chosen set is among them whatever beats it.
        Places count from 1.
        """
        known = sorted(
            self._known.values(),
            key=lambda one: (self._price(prices, forecast, one[0]), one[1].distance),
        )
        front: list[tuple[npt.NDArray[np.bool_], Outcome]] = []
        for kept, outcome in known:
            if kept.tobytes() in self._hidden and not np.array_equal(kept, chosen):
                continue
            is_nearer = all(outcome.distance < other.distance for _, other in front)
            if is_nearer or np.array_equal(kept, chosen):
                front.append((kept, outcome))
        place = next(i for i, (kept, _) in enumerate(front) if np.array_equal(kept, chosen))
        wanted = [
            i for i, (kept, _) in enumerate(front) if any(np.array_equal(kept, s) for s in shown)
        ]
        thinned = _thinned(len(front), place, wanted)
        sets = tuple(
            MeasuredSet(
                tuple(forecast.layers[i].name for i in np.flatnonzero(front[index][0])),
                self.cost(forecast, front[index][0]),
                front[index][1],
            )
            for index in thinned
        )
        return sets, 1 + thinned.index(place)


def _thinned(count: int, chosen: int, shown: Sequence[int]) -> list[int]:
    """At most seven places of `count`: both ends, the chosen one, its neighbours, and others."""
    if count <= _MOST_SETS:
        return list(range(count))
    wanted = {0, count - 1, chosen}
    spread = np.rint(np.linspace(0, count - 1, _MOST_SETS)).astype(int).tolist()
    nearby = [place for place in (chosen - 1, chosen + 1) if 0 <= place < count]
    for place in (*shown, *nearby, *spread):
        if len(wanted) < _MOST_SETS:
            wanted.add(place)
    return sorted(wanted)
