"""What sets of layers are measured with, from the options to the choice and the curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polygraphy_layerprec.distribution.worker_pool import WorkerPool
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.execution.comparison.measured_model import MeasuredModel
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["Measurement"]


@dataclass(slots=True)
class Measurement:
    """A model with its samples, to measure sets of its layers once a ranking says which."""

    graph: Graph
    """The model."""

    samples: Sequence[Mapping[str, Any]]
    """Input samples for it."""

    outputs: Sequence[str] | None
    """Names of the outputs that count; None for all."""

    pool: WorkerPool | None = None
    """Workers to measure on; None for this process."""

    _measured: MeasuredModel | None = None

    @property
    def counted(self) -> Sequence[str]:
        """The outputs that count."""
        return self.graph.outputs if self.outputs is None else self.outputs

    def of(
        self, ranking: Ranking, *, judges: Sequence[Judge] = (), tolerance: float | None = None
    ) -> MeasuredModel:
        """Returns what measures the sets of a ranking, the same for the choice and the curve.

        Args:
            ranking: The ranking.
            judges: As for `measured_model`.
            tolerance: As for `measured_model`.

        Raises:
            UserError: As `measured_model` does.
        """
        if self._measured is None:
            self._measured = self._measure()(
                ranking,
                self.graph,
                self.samples,
                outputs=self.outputs,
                judges=judges,
                tolerance=tolerance,
            )
        return self._measured

    def _measure(self) -> Callable[..., MeasuredModel]:
        if self.pool is None:
            from polygraphy_layerprec.pipeline import measured_model

            return measured_model
        from polygraphy_layerprec.distribution.distributed_sets import measure_in_pool

        return partial(measure_in_pool, self.pool)
