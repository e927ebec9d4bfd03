"""What sets of layers in FP32 leave, each measured by a run in mixed precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.execution.comparison.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.execution.comparison.side_by_side import Progress
from polygraphy_layerprec.matching.constraint_matching import check_ranked_model
from polygraphy_layerprec.model import Graph
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import precision_named
from polygraphy_layerprec.records import Outcome, Ranking
from polygraphy_layerprec.records.numbers import count_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.divergence.judges import Judge

__all__ = ["MeasuredSets", "held_out_count"]

Sample = Mapping[str, np.ndarray[Any, Any]]

_ENOUGH_TO_HOLD_OUT: Final = 8


def held_out_count(sample_count: int) -> int:
    """Returns how many samples are held out, the last ones: a quarter of eight or more."""
    return sample_count // 4 if sample_count >= _ENOUGH_TO_HOLD_OUT else 0


class MeasuredSets:
    """Measures sets of layers, given as masks over a ranking."""

    def __init__(
        self,
        ranking: Ranking,
        graph: Graph,
        samples: Iterable[Sample],
        *,
        judges: Sequence[Judge] = (),
        outputs: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Runs the reference.

        Args:
            ranking: The ranked layers.
            graph: The model that the ranking is about.
            samples: Input samples for it, which are kept in memory.
            judges: What judges the outputs.
            outputs: Names of the outputs that count, all by default.
            progress: Called with sets measured, 0, and what is going on.

        Raises:
            UserError: If the model is another one than was ranked.
        """
        check_ranked_model(graph, ranking, made="The ranking")
        part, counted = part_that_counts(graph, outputs)
        self._measurement = SetMeasurement(
            part, samples, precision=precision_named(ranking.precision), outputs=counted
        )
        self._judges = judges
        self._names = [[name for name in layer.outputs if name] for layer in ranking.layers]
        self._progress = progress
        self._done = 0

    @property
    def sample_count(self) -> int:
        """How many samples it measures on."""
        return self._measurement.sample_count

    def outcome(self, kept: npt.NDArray[np.bool_]) -> Outcome:
        """Returns what a set leaves, by all judges."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, 0, f"set of {count_of(int(kept.sum()), 'layer')}")
        return self._measurement.outcome(self._kept(kept), self._judges)

    def counts(self, kept: npt.NDArray[np.bool_]) -> tuple[int, int]:
        """Returns how many nodes of the model are in FP32 then, and how many tensors are cast."""
        plan = self._measurement.plan(self._kept(kept))
        return plan.fp32_node_count, len(plan.casts)

    def _kept(self, kept: npt.NDArray[np.bool_]) -> KeptLayers:
        outputs = [name for index in np.flatnonzero(kept) for name in self._names[index]]
        return KeptLayers.of_outputs(outputs)

    def error(self, kept: npt.NDArray[np.bool_]) -> float:
        """Returns the relative L2 error that a set leaves."""
        return self.outcome(kept).error
