"""Reading one node's large weights, and rounding them, while the node before it runs."""

from __future__ import annotations

from bisect import bisect_left
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.execution.streams import largest_finite
from polygraphy_layerprec.model import WeightBuffer

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from polygraphy_layerprec.execution.kernels.cast_rounding import CastRounder
    from polygraphy_layerprec.model import Weight
    from polygraphy_layerprec.precision import Precision

__all__ = ["ReadWeights", "WeightsAhead"]

_SMALLEST_BYTES: Final = 1 << 16  # handing over to the thread takes as long
_LARGEST_BYTES: Final = 64 << 20  # two nodes' weights are in memory at a time
_LARGEST_ROUNDED_BYTES: Final = 32 << 20  # and as many rounded ones
_FLOATS: Final = (np.dtype(np.float32), np.dtype(np.float64))

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class ReadWeights:
    """Large weights of a node, valid until those of the next node but one are taken."""

    exact: dict[str, Array] = field(default_factory=dict)
    """As they are in the model, by name."""

    rounded: dict[str, Array] = field(default_factory=dict)
    """Those of them that were rounded ahead."""

    largest: dict[str, float] = field(default_factory=dict)
    """Largest finite magnitude of each that was rounded."""

    precision: Precision | None = None
    """What they were rounded to."""


class WeightsAhead:
    """Reads on a thread of its own, one node ahead, to two buffers in turn.

    Reading leaves the interpreter to others, and computing in numpy leaves a core to this thread.
    """

    def __init__(self) -> None:
        self.rounder: CastRounder | None = None
        """What rounds float weights from now on."""
        self._buffers = [(WeightBuffer(), WeightBuffer()) for _ in range(2)]
        self._thread = ThreadPoolExecutor(1)
        self._pending: tuple[int, Future[ReadWeights]] | None = None
        self.expect(())

    def expect(
        self,
        uses: Iterable[tuple[Hashable, Sequence[Weight]]],
        rounder: CastRounder | None = None,
    ) -> None:
        """Prepares for other weights, or for another order; what was taken becomes invalid.

        Args:
            uses: The weights of each node that has some, by what it is asked for with, in order of
                use. Those that are too small or too large to be read ahead are left out.
            rounder: What rounds float weights.
        """
        if self._pending is not None:
            wait([self._pending[1]])
            self._pending = None
        self.rounder = rounder
        self._uses = [(key, large) for key, weights in uses if (large := _large(weights))]
        self._places: dict[Hashable, list[int]] = {}
        for place, (key, _) in enumerate(self._uses):
            self._places.setdefault(key, []).append(place)
        self._next = 0

    def take(self, key: Hashable) -> ReadWeights:
        """Returns the large weights that are asked for with `key`.

        Raises:
            ModelError: If a file went away or became shorter since the model was loaded.
        """
        if key not in self._places:
            return ReadWeights()
        places = self._places[key]
        found = bisect_left(places, self._next)
        place = places[found] if found < len(places) else places[0]
        if self._pending is None or self._pending[0] != place:
            self._read_ahead(place)
        assert self._pending is not None
        weights = self._pending[1].result()
        self._next = place + 1
        if self._next < len(self._uses):
            self._read_ahead(self._next)
        else:
            self._next, self._pending = 0, None
        return weights

    def _read_ahead(self, place: int) -> None:
        if self._pending is not None:
            wait([self._pending[1]])  # of a node that did not run after all
        self._buffers.reverse()
        exact, rounded = self._buffers[0]
        reading = self._thread.submit(_read, self._uses[place][1], exact, rounded, self.rounder)
        self._pending = place, reading


def _large(weights: Sequence[Weight]) -> list[Weight]:
    return [
        weight
        for weight in weights
        if _SMALLEST_BYTES <= weight.nbytes <= _LARGEST_BYTES and not weight.dtype.hasobject
    ]


def _read(
    weights: Sequence[Weight],
    exact: WeightBuffer,
    rounded: WeightBuffer,
    rounder: CastRounder | None,
) -> ReadWeights:
    exact.reset(weights)
    read = ReadWeights(
        {weight.name: weight.read(exact) for weight in weights},
        precision=None if rounder is None else rounder.precision,
    )
    if rounder is not None:
        floats = [w for w in weights if w.dtype in _FLOATS and w.nbytes <= _LARGEST_ROUNDED_BYTES]
        rounded.reset(floats)
        for weight in floats:
            values, target = read.exact[weight.name], rounded.take(weight)
            largest = read.largest[weight.name] = largest_finite(values)
            rounder.round_weight(values, largest, out=target)
            read.rounded[weight.name] = target
    return read
