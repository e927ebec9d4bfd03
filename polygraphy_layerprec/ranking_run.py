"""One ranking: what samples are run through, and what their observations become."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.divergence.loss import NO_GRADIENT
from polygraphy_layerprec.execution import ExecutionError, check_emulation
from polygraphy_layerprec.execution.comparison.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.comparison.exact_impacts import measure_exact_impacts
from polygraphy_layerprec.execution.comparison.side_by_side import (
    Progress,
    SampleComparer,
    compare_samples,
)
from polygraphy_layerprec.plan import Planner
from polygraphy_layerprec.precision import FP16, Precision
from polygraphy_layerprec.ranking.assembly import (
    assemble_ranking,
    nothing_to_judge,
    nothing_to_rank,
)
from polygraphy_layerprec.ranking.guards import find_guard_reasons, with_guards
from polygraphy_layerprec.ranking.order import first_output, rank_layers, with_exact_impacts
from polygraphy_layerprec.records import ImpactMethod, Ranking

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.loss import Loss
    from polygraphy_layerprec.execution.comparison.side_by_side import Comparison
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.ranking.order import LayerObservation
    from polygraphy_layerprec.records import RankedLayer

__all__ = ["RankingRun", "half_of_free_memory"]

Sample = Mapping[str, np.ndarray[Any, Any]]


class RankingRun:
    """Observes samples and makes a ranking of what was observed.

    The two halves may be in different processes: what samples say merges.
    """

    def __init__(
        self,
        whole: Graph,
        *,
        precision: Precision = FP16,
        impact: ImpactMethod = "adjoint",
        exact_count: int = 0,
        outputs: Sequence[str] | None = None,
        loss: Loss | None = None,
        max_memory_bytes: int | None = None,
    ) -> None:
        """Plans the model; the arguments are those of `rank_model`.

        Raises:
            ExecutionError: If ONNX-Runtime cannot emulate low precision, or the model has no such
                output.
        """
        check_emulation()
        self._whole = whole
        self.graph, self._counted = part_that_counts(whole, outputs)
        self._plan = Planner(self.graph, precision).plan()
        self._precision = precision
        self._impact: ImpactMethod = impact
        self._exact_count = exact_count
        self._outputs = tuple(outputs or ())
        self._loss = loss
        self._budget_bytes = max_memory_bytes or half_of_free_memory()
        if loss is not None and (impact != "adjoint" or exact_count):
            raise ExecutionError("A loss needs the adjoint: leave out `--impact` and `--exact`.")

    @property
    def runs_samples_again(self) -> bool:
        """Whether the ranking needs the samples once more, after they were observed."""
        return bool(self._exact_count) or self._impact == "exact"

    def comparer(self) -> SampleComparer:
        """Returns what observes single samples."""
        return SampleComparer(
            self._plan,
            impact=self._impact,
            outputs=self._counted,
            budget_bytes=self._budget_bytes,
            loss=self._loss,
        )

    def observe(
        self,
        samples: Iterable[tuple[int, Sample]],
        *,
        sample_count: int | None = None,
        may_be_none: bool = False,
        progress: Progress | None = None,
    ) -> Comparison:
        """Returns what samples say; the arguments are those of `compare_samples`."""
        return compare_samples(
            self._plan,
            samples,
            impact=self._impact,
            outputs=self._counted,
            budget_bytes=self._budget_bytes,
            loss=self._loss,
            sample_count=sample_count,
            may_be_none=may_be_none,
            progress=progress,
        )

    def ranking(
        self,
        comparison: Comparison,
        *,
        samples: Iterable[Sample] = (),
        generated_inputs: bool = False,
        of_loss: bool = False,
        progress: Progress | None = None,
    ) -> Ranking:
        """Returns the ranking that follows from what all samples said.

        Args:
            comparison: What they said, merged.
            samples: The samples, where `runs_samples_again`.
            generated_inputs: Whether they were made up, which the ranking then says.
            of_loss: Whether a loss was observed in another process, where this one has none.
            progress: As in `rank_model`.

        Raises:
            ExecutionError: If nothing was measured, or nothing can be judged.
        """
        of_loss = of_loss or self._loss is not None
        if of_loss and not comparison.observations.saw_gradient:
            raise ExecutionError(NO_GRADIENT)
        observed = self._observed(comparison)
        layers = rank_layers(observed, self._precision)
        remeasured = layers if self._impact == "exact" else layers[: self._exact_count]
        if remeasured:
            exact = self._exact_impacts(remeasured, samples, progress)
            layers = rank_layers(with_exact_impacts(observed, exact), self._precision)
        guards = find_guard_reasons(
            self.graph,
            comparison,
            layers,
            precision=self._precision,
            outputs=self._counted,
            progress=progress,
        )
        return assemble_ranking(
            self._whole,
            self._plan,
            comparison,
            with_guards(layers, guards),
            impact=self._impact,
            outputs=self._outputs,
            generated_inputs=generated_inputs,
            of_loss=of_loss,
        )

    def _observed(self, comparison: Comparison) -> list[LayerObservation]:
        method: ImpactMethod = "gain" if self._impact == "gain" else "adjoint"
        observed = comparison.observations.results(method, self._whole.nodes)
        if not observed:
            raise nothing_to_rank(self._whole, comparison)
        if not comparison.observations.judged:
            raise nothing_to_judge(self._whole, comparison, self._counted)
        return self._with_measured_ids(comparison, observed)

    def _with_measured_ids(
        self, comparison: Comparison, observed: list[LayerObservation]
    ) -> list[LayerObservation]:
        """Measures what no gradient says: another id than was meant is another row of a table."""
        names = {first_output(layer.outputs) for layer in observed if layer.largest_inexact_integer}
        if not names:
            return observed
        exact = measure_exact_impacts(
            self.graph,
            comparison.samples_of_ids,
            precision=self._precision,
            layers=names,
            outputs=self._counted,
        )
        # In the other samples every id is exact.
        share = math.sqrt(comparison.id_sample_count / comparison.sample_count)
        return with_exact_impacts(observed, {name: share * error for name, error in exact.items()})

    def _exact_impacts(
        self,
        layers: Sequence[RankedLayer],
        samples: Iterable[Sample],
        progress: Progress | None,
    ) -> dict[str, float]:
        return measure_exact_impacts(
            self.graph,
            samples,
            precision=self._precision,
            layers={first_output(layer.outputs) for layer in layers},
            progress=progress,
            outputs=self._counted,
        )


def half_of_free_memory() -> int | None:
    """Returns half of the memory that is free, in bytes; None where nobody knows."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # not on every platform
        return None
