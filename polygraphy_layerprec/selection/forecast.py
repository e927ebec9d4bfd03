"""The output error of any set of FP32 layers, from the impacts of single layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.records import SelectionCost

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.records import RankedLayer

__all__ = ["SetForecast"]

_LARGEST_IMPACT: Final = 1e150  # squares of larger ones, which files may hold, are no numbers


class SetForecast:
    """Forecasts the output error of sets of layers, given as masks over the ranking's order.

    A lowered layer adds its whole squared impact. A layer in FP32 adds none for its weights, but
    its output is still rounded where a lowered layer takes it: that part of its squared impact
    which passes through lowered readers stays.
    """

    def __init__(
        self, layers: Sequence[RankedLayer], sample_count: int = 1, *, has_casts: bool = True
    ) -> None:
        """Prepares the sums.

        Args:
            layers: The ranked layers.
            sample_count: Over how many samples their elements were counted.
            has_casts: Whether tensors are cast between layers in FP32 and others: not where pairs
                are ranked.
        """
        self._has_casts = has_casts
        self.layers = tuple(layers)
        self.sample_count = sample_count
        self.positions = {layer.name: position for position, layer in enumerate(layers)}
        self.powers = np.array([min(layer.impact, _LARGEST_IMPACT) ** 2 for layer in layers])
        edges = [
            (position, self.positions[reader], share)
            for position, layer in enumerate(layers)
            for reader, share in layer.readers
            if reader in self.positions
        ]
        self.producers = np.array([producer for producer, _, _ in edges], np.intp)
        self.readers = np.array([reader for _, reader, _ in edges], np.intp)
        rounding = self.powers * (1.0 - np.array([layer.weight_share for layer in layers]))
        shares = np.array([share for _, _, share in edges])
        self.edge_powers = rounding[self.producers] * shares
        self._flops = np.array([layer.flops for layer in layers])

    def mask(self, names: Collection[str]) -> npt.NDArray[np.bool_]:
        """Returns the set as a mask.

        Raises:
            KeyError: If a name is not in the ranking.
        """
        kept = np.zeros(len(self.layers), bool)
        kept[[self.positions[name] for name in names]] = True
        return kept

    def error(self, kept: npt.NDArray[np.bool_]) -> float:
        """Returns the relative L2 output error with the layers of `kept` in FP32."""
        entering = kept[self.producers] & ~kept[self.readers]
        power = self.powers[~kept].sum() + self.edge_powers[entering].sum()
        return float(np.sqrt(power))

    def cost(self, kept: npt.NDArray[np.bool_]) -> SelectionCost:
        """Returns what it costs to keep these layers in FP32."""
        borders = kept[self.producers] != kept[self.readers]
        # One cast serves every reader of a tensor on the other side.
        casts = {(int(producer), bool(kept[producer])) for producer in self.producers[borders]}
        count = len(casts) if self._has_casts else 0
        total = self._flops.sum()
        return SelectionCost(
            layer_count=int(kept.sum()),
            flops_fraction=float(self._flops[kept].sum() / total) if total else 0.0,
            cast_count=count,
        )
