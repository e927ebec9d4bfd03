"""From a request and samples to what was observed, and from that to a ranking."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

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
from polygraphy_layerprec.execution.kernels.device import memory_for_activations
from polygraphy_layerprec.execution.samples.given import check_samples
from polygraphy_layerprec.model.quantized import QuantizedGraph
from polygraphy_layerprec.plan.quantized_planning import planner_for
from polygraphy_layerprec.precision import FP16, Precision
from polygraphy_layerprec.ranking.assembly import (
    assemble_ranking,
    nothing_to_judge,
    nothing_to_rank,
)
from polygraphy_layerprec.ranking.guards import find_guard_reasons, with_guards
from polygraphy_layerprec.ranking.order import first_output, rank_layers, with_exact_impacts
from polygraphy_layerprec.ranking.quantized_units import merge_units, with_pair_reasons
from polygraphy_layerprec.records import ImpactMethod, Ranking

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.loss import Loss
    from polygraphy_layerprec.execution.comparison.side_by_side import Comparison
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.ranking.order import LayerObservation
    from polygraphy_layerprec.records import RankedLayer

__all__ = ["Observed", "Observer", "RankRequest", "observe"]

Sample = Mapping[str, np.ndarray[Any, Any]]

_LARGE_ERROR: Final = 0.3
"""Share of a result that is lost; from here on what follows is no linear response."""

_LARGE_MEASURED: Final = 32
_WORST_MEASURED: Final = 16
_SAMPLES_MEASURED: Final = 8


@dataclass(frozen=True, slots=True)
class RankRequest:
    """What is asked of a ranking."""

    precision: Precision = FP16
    """The low precision."""

    impact: ImpactMethod = "adjoint"
    """How impacts are found."""

    exact_count: int = 0
    """How many layers from the top have their impact measured by a run of its own."""

    outputs: tuple[str, ...] | None = None
    """Names of the outputs that count; None for all."""

    loss: Loss | None = None
    """What matters at the outputs, instead of their relative errors."""

    max_memory_bytes: int | None = None
    """Memory for activations; beyond it they are kept on disk. None for half of what is free."""

    generated_inputs: bool = False
    """Whether the samples were made up, which the ranking then says."""

    @property
    def runs_samples_again(self) -> bool:
        """Whether the ranking needs the samples once more, after they were observed."""
        return bool(self.exact_count) or self.impact == "exact"


def observe(
    graph: Graph,
    samples: Iterable[Sample],
    request: RankRequest,
    *,
    sample_count: int | None = None,
    progress: Progress | None = None,
) -> Observed:
    """Returns what samples say of a model.

    Args:
        graph: The model.
        samples: Input samples, each an array for every input by name.
        request: What is asked for.
        sample_count: How many samples there are, if that is known: progress counts all of them.
        progress: Called with nodes done, nodes in all, and what is going on.

    Raises:
        SampleError: If a sample does not fit the model, has no elements, or holds a NaN.
        ExecutionError: If nothing can be measured, or the request is not valid.
    """
    checked = enumerate(check_samples(samples, graph.inputs))
    return Observer(graph, request).observe(checked, sample_count=sample_count, progress=progress)


class Observer:
    """Observes samples. What they say merges, and may come from several processes."""

    def __init__(self, whole: Graph, request: RankRequest) -> None:
        """Plans the model.

        Raises:
            ExecutionError: If ONNX-Runtime cannot emulate low precision, the model has no such
                output, or the request is not valid.
        """
        check_emulation()
        self.whole = whole
        self.request = request
        self.graph, self.counted = part_that_counts(whole, request.outputs)
        self.plan = planner_for(self.graph, request.precision).plan()
        self._budget_bytes = memory_for_activations(request.max_memory_bytes)
        if request.loss is not None and (request.impact != "adjoint" or request.exact_count):
            raise ExecutionError("A loss needs the adjoint: leave out `--impact` and `--exact`.")

    def comparer(self) -> SampleComparer:
        """Returns what observes single samples."""
        return SampleComparer(
            self.plan,
            impact=self.request.impact,
            outputs=self.counted,
            budget_bytes=self._budget_bytes,
            loss=self.request.loss,
        )

    def observe(
        self,
        samples: Iterable[tuple[int, Sample]],
        *,
        sample_count: int | None = None,
        may_be_none: bool = False,
        progress: Progress | None = None,
    ) -> Observed:
        """Returns what samples say; the arguments are those of `compare_samples`."""
        comparison = compare_samples(
            self.comparer(),
            samples,
            sample_count=sample_count,
            may_be_none=may_be_none,
            progress=progress,
        )
        return self.observed(comparison)

    def observed(self, comparison: Comparison, *, of_loss: bool = False) -> Observed:
        """Returns what was observed elsewhere, as if it had been here.

        Args:
            comparison: What all samples said, merged.
            of_loss: Whether a loss was observed, where this process has none.
        """
        return Observed(self, comparison, of_loss=of_loss or self.request.loss is not None)


class Observed:
    """What all samples said of a model, and the rankings that follow."""

    def __init__(self, observer: Observer, comparison: Comparison, *, of_loss: bool) -> None:
        self.comparison = comparison
        self._observer = observer
        self._request = observer.request
        self._of_loss = of_loss
        self._guards: Mapping[str, str] | None = None

    def ranking(
        self,
        *,
        samples: Iterable[Sample] = (),
        impacts: Mapping[str, float] | None = None,
        progress: Progress | None = None,
    ) -> Ranking:
        """Returns the layers of the model, ordered.

        Args:
            samples: The samples, where the request `runs_samples_again`.
            impacts: Impacts that were measured elsewhere, by first output tensor, in place of
                those that the request has measured here.
            progress: As in `rank_model`.

        Raises:
            ExecutionError: If nothing was measured, or nothing can be judged.
        """
        if self._of_loss and not self.comparison.observations.saw_gradient:
            raise ExecutionError(NO_GRADIENT)
        observed = self._layers()
        if impacts is None:
            impacts = self._exact_impacts(observed, samples, progress)
        layers = rank_layers(with_exact_impacts(observed, impacts), self._request.precision)
        return assemble_ranking(
            self._observer.whole,
            self._observer.plan,
            self.comparison,
            with_pair_reasons(
                self._observer.graph,
                with_guards(layers, self._guards_of(layers, progress)),
                self.comparison.pair_fits,
            ),
            impact=self._request.impact,
            outputs=self._request.outputs or (),
            generated_inputs=self._request.generated_inputs,
            of_loss=self._of_loss,
        )

    def _layers(self) -> list[LayerObservation]:
        method: ImpactMethod = "gain" if self._request.impact == "gain" else "adjoint"
        whole = self._observer.whole
        observed = self.comparison.observations.results(method, whole.nodes)
        if not observed:
            raise nothing_to_rank(whole, self.comparison)
        if not self.comparison.observations.judged:
            raise nothing_to_judge(whole, self.comparison, self._observer.counted)
        merged = merge_units(self._observer.graph, observed)
        return self._with_measured_ids(self._with_measured_pairs(merged))

    def _with_measured_pairs(self, observed: list[LayerObservation]) -> list[LayerObservation]:
        """Measures the worst pairs, and those of which little is left.

        A gradient orders hundreds of them at once, but errors of this size go together and are not
        small, and the first few decide.
        """
        if not isinstance(self._observer.graph, QuantizedGraph) or self._of_loss:
            return observed
        if self._request.impact != "adjoint":
            return observed
        large = [layer for layer in observed if layer.sums.introduced_error > _LARGE_ERROR]
        large.sort(key=lambda layer: -layer.sums.introduced_error)
        worst = sorted(observed, key=lambda layer: -layer.impact_power)[:_WORST_MEASURED]
        names = {first_output(layer.outputs) for layer in (*large[:_LARGE_MEASURED], *worst)}
        samples = self.comparison.samples_of_ids[:_SAMPLES_MEASURED]
        return with_exact_impacts(observed, self._measure(names, samples)) if names else observed

    def _with_measured_ids(self, observed: list[LayerObservation]) -> list[LayerObservation]:
        """Measures what no gradient says: another id than was meant is another row of a table."""
        names = {first_output(layer.outputs) for layer in observed if layer.largest_inexact_integer}
        if not names:
            return observed
        comparison = self.comparison
        exact = self._measure(names, comparison.samples_of_ids)
        # In the other samples every id is exact.
        share = math.sqrt(comparison.id_sample_count / comparison.sample_count)
        return with_exact_impacts(observed, {name: share * error for name, error in exact.items()})

    def _exact_impacts(
        self,
        observed: list[LayerObservation],
        samples: Iterable[Sample],
        progress: Progress | None,
    ) -> dict[str, float]:
        layers = rank_layers(observed, self._request.precision)
        if self._request.impact != "exact":
            layers = layers[: self._request.exact_count]
        names = {first_output(layer.outputs) for layer in layers}
        return self._measure(names, samples, progress) if names else {}

    def _measure(
        self, layers: set[str], samples: Iterable[Sample], progress: Progress | None = None
    ) -> dict[str, float]:
        return measure_exact_impacts(
            self._observer.graph,
            samples,
            precision=self._request.precision,
            layers=layers,
            progress=progress,
            outputs=self._observer.counted,
        )

    def _guards_of(
        self, layers: Sequence[RankedLayer], progress: Progress | None
    ) -> Mapping[str, str]:
        """Why layers guard an output; found once, however often the order changes."""
        if self._guards is None:
            self._guards = find_guard_reasons(
                self._observer.graph,
                self.comparison,
                layers,
                precision=self._request.precision,
                outputs=self._observer.counted,
                progress=progress,
            )
        return self._guards
