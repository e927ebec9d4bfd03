"""Constants that stay on a device between nodes and samples, as far as they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Weight

__all__ = ["DeviceWeights"]

_LARGEST_SHARE: Final = 0.4
"""Of the memory that is free at first: the others' tensors are larger than the weights."""


class DeviceWeights:
    """Keeps arrays by weight, the first ones that come, until the memory set aside is full.

    Keeping the last ones would keep none: every sample reads all of them in the same order.
    """

    def __init__(self, free_bytes: int) -> None:
        self._left_bytes = int(free_bytes * _LARGEST_SHARE)
        # The weight is kept, so that no other takes its identity.
        self._kept: dict[int, tuple[Weight, Any]] = {}

    def get(self, weight: Weight) -> Any:
        """Returns what is kept of a weight, None if nothing is."""
        found = self._kept.get(id(weight))
        return None if found is None else found[1]

    def keep(self, weight: Weight, array: Any) -> None:
        """Keeps an array, which must not change any more, if there is room."""
        if array.nbytes <= self._left_bytes and id(weight) not in self._kept:
            self._left_bytes -= array.nbytes
            self._kept[id(weight)] = weight, array
