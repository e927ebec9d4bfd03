"""The verb that ranks on engines: what `pipeline.rank_model` is to the emulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.backend.engines.comparisons import EngineComparisons
from polygraphy_layerprec.backend.engines.marking import choose_layers, plan_marking
from polygraphy_layerprec.backend.engines.ranking import compare_on_engines, measure_impacts
from polygraphy_layerprec.backend.engines.session import EngineSession
from polygraphy_layerprec.execution import check_emulation
from polygraphy_layerprec.execution.comparison.counted_outputs import outputs_that_count
from polygraphy_layerprec.execution.comparison.side_by_side import compare_samples
from polygraphy_layerprec.execution.samples.given import check_samples
from polygraphy_layerprec.files.ranking_file import load_ranking
from polygraphy_layerprec.plan import Planner
from polygraphy_layerprec.precision import FP16, Precision
from polygraphy_layerprec.ranking.assembly import assemble_ranking, nothing_to_rank
from polygraphy_layerprec.ranking.guards import find_guard_reasons, with_guards
from polygraphy_layerprec.ranking.measured_divergence import with_measured_divergences
from polygraphy_layerprec.ranking.order import first_output, rank_layers, with_exact_impacts

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engines.marking import MarkingPlan
    from polygraphy_layerprec.backend.engines.session import EngineStack
    from polygraphy_layerprec.backend.engines.specs import Engines, Sample
    from polygraphy_layerprec.execution.comparison.side_by_side import Comparison, Progress
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import ImpactMethod, Ranking

__all__ = ["DEFAULT_MEMORY_BYTES", "EngineRequest", "rank_on_engines"]

DEFAULT_MEMORY_BYTES: Final = 4 * 2**30
"""Memory for activations and marked tensors unless more, or less, is asked for."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What is asked of a ranking on engines."""

    precision: Precision = FP16
    """The low precision."""

    impact: ImpactMethod = "adjoint"
    """How impacts are found: by the emulation, or `exact` by an engine for each layer."""

    exact_count: int = 0
    """How many layers from the top have their impact measured on an engine each."""

    outputs: tuple[str, ...] | None = None
    """Names of the outputs that count; None for all."""

    choices: tuple[str, ...] = ()
    """Which layers are measured, as for `choose_layers`; all if empty."""

    uses_debug_tensors: bool = False
    """Whether to take the tensors that are not fused away, instead of marking outputs."""

    max_memory_bytes: int = DEFAULT_MEMORY_BYTES
    """Memory for activations, and for the marked tensors of a pair of engines."""

    generated_inputs: bool = False
    """Whether the samples were made up, which the ranking then says."""


def rank_on_engines(
    graph: Graph,
    samples: Sequence[Sample],
    request: EngineRequest,
    *,
    stack: EngineStack,
    progress: Progress | None = None,
) -> Ranking:
    """Returns the layers of `graph`, with divergences measured on engines.

    Impacts come from the emulation, but for those that engines with one layer lowered measure.

    Args:
        graph: The model.
        samples: Input samples, each an array for every input by name.
        request: What is asked for.
        stack: Builds, keeps and runs the engines.
        progress: Called with what is done, in all, and what is going on.

    Raises:
        SampleError: If a sample does not fit the model, has no elements, or holds a NaN.
        ExecutionError: If nothing can be measured, or the engines cannot be built or run. What was
            finished is kept in the store.
    """
    samples = list(check_samples(samples, graph.inputs))
    emulation = _Emulation(graph, samples, request, progress)
    emulated = emulation.assemble({})
    engines = EngineComparisons(
        EngineSession(stack, samples, outputs=graph.outputs),
        counted=outputs_that_count(graph, request.outputs),
        precision=request.precision,
    )
    count = len(emulated.layers) if request.impact == "exact" else request.exact_count
    worst = [first_output(layer.outputs) for layer in emulated.layers[:count]]
    plan = _plan(graph, emulated, samples, request, stack.engines)
    findings = compare_on_engines(engines, plan, progress=progress)
    impacts, impact_warnings = measure_impacts(engines, worst, progress=progress)
    return with_measured_divergences(
        emulation.assemble(impacts),
        findings.comparison,
        backend="tensorrt",
        versions=stack.engines.versions,
        model_tensors={*graph.producers, *graph.weights},
        warnings=[*findings.warnings, *impact_warnings],
    )


class _Emulation:
    """The emulated ranking, with the impacts of some layers replaced."""

    def __init__(
        self,
        graph: Graph,
        samples: Sequence[Sample],
        request: EngineRequest,
        progress: Progress | None,
    ) -> None:
        check_emulation()
        self._plan = Planner(graph, request.precision).plan()
        self._request = request
        method: ImpactMethod = "gain" if request.impact == "gain" else "adjoint"
        self._comparison: Comparison = compare_samples(
            self._plan,
            enumerate(samples),
            impact=method,
            outputs=outputs_that_count(graph, request.outputs),
            budget_bytes=request.max_memory_bytes,
            loss=None,
            progress=progress,
        )
        self._observed = self._comparison.observations.results(method, graph.nodes)
        if not self._observed:
            raise nothing_to_rank(graph, self._comparison)
        self._guards = find_guard_reasons(
            graph,
            self._comparison,
            rank_layers(self._observed, request.precision),
            precision=request.precision,
            outputs=outputs_that_count(graph, request.outputs),
            progress=progress,
        )

    def assemble(self, impacts: Mapping[str, float]) -> Ranking:
        """Returns the ranking with impacts measured elsewhere, by first output tensor."""
        observed = with_exact_impacts(self._observed, impacts)
        return assemble_ranking(
            self._plan.graph,
            self._plan,
            self._comparison,
            with_guards(rank_layers(observed, self._request.precision), self._guards),
            impact=self._request.impact,
            outputs=self._request.outputs or (),
            generated_inputs=self._request.generated_inputs,
        )


def _plan(
    graph: Graph,
    ranking: Ranking,
    samples: Sequence[Sample],
    request: EngineRequest,
    engines: Engines,
) -> MarkingPlan | None:
    layers = choose_layers(ranking, request.choices, load_ranking)
    if request.uses_debug_tensors:
        return None
    names = [name for layer in layers for name in layer.outputs if name]
    return plan_marking(
        layers,
        engines.markable(names),
        model_outputs=graph.outputs,
        sample_count=len(samples),
        spread=_spread(samples),
        max_memory_bytes=request.max_memory_bytes,
    )


def _spread(samples: Sequence[Sample]) -> float:
    """Elements of the largest sample over those of the mean one."""
    sizes = np.array([sum(values.size for values in sample.values()) for sample in samples])
    return float(sizes.max() / sizes.mean()) if sizes.any() else 1.0
