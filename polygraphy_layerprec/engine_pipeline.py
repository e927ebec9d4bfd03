"""The verb that ranks on engines: what `pipeline.rank_model` is to the emulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.backend.engines.comparisons import EngineComparisons
from polygraphy_layerprec.backend.engines.marking import choose_layers, plan_marking
from polygraphy_layerprec.backend.engines.ranking import compare_on_engines, measure_impacts
from polygraphy_layerprec.backend.engines.session import EngineSession
from polygraphy_layerprec.execution.comparison.counted_outputs import outputs_that_count
from polygraphy_layerprec.execution.samples.given import check_samples
from polygraphy_layerprec.files.ranking_file import load_ranking
from polygraphy_layerprec.observing import RankRequest, observe
from polygraphy_layerprec.ranking.measured_divergence import with_measured_divergences
from polygraphy_layerprec.ranking.order import first_output

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engines.marking import MarkingPlan
    from polygraphy_layerprec.backend.engines.session import EngineStack
    from polygraphy_layerprec.backend.engines.specs import Engines, Sample
    from polygraphy_layerprec.execution.comparison.side_by_side import Progress
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["DEFAULT_MEMORY_BYTES", "EngineRequest", "rank_on_engines"]

DEFAULT_MEMORY_BYTES: Final = 4 * 2**30
"""Memory for activations and marked tensors unless more, or less, is asked for."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What is asked of a ranking on engines."""

    rank: RankRequest = field(default_factory=RankRequest)
    """What is asked of any ranking; engines have an exact impact from an engine for each layer."""

    choices: tuple[str, ...] = ()
    """Which layers are measured, as for `choose_layers`; all if empty."""

    uses_debug_tensors: bool = False
    """Whether to take the tensors that are not fused away, instead of marking outputs."""

    max_marked_bytes: int = DEFAULT_MEMORY_BYTES
    """Memory for the marked tensors of a pair of engines."""


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
    wanted = request.rank
    observed = observe(graph, samples, wanted, progress=progress)
    emulated = observed.ranking(impacts={})
    engines = EngineComparisons(
        EngineSession(stack, samples, outputs=graph.outputs),
        counted=outputs_that_count(graph, wanted.outputs),
        precision=wanted.precision,
    )
    count = len(emulated.layers) if wanted.impact == "exact" else wanted.exact_count
    worst = [first_output(layer.outputs) for layer in emulated.layers[:count]]
    plan = _plan(graph, emulated, samples, request, stack.engines)
    findings = compare_on_engines(engines, plan, progress=progress)
    impacts, impact_warnings = measure_impacts(engines, worst, progress=progress)
    return with_measured_divergences(
        observed.ranking(impacts=impacts),
        findings.comparison,
        backend="tensorrt",
        versions=stack.engines.versions,
        model_tensors={*graph.producers, *graph.weights},
        warnings=[*findings.warnings, *impact_warnings],
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
        max_memory_bytes=request.max_marked_bytes,
    )


def _spread(samples: Sequence[Sample]) -> float:
    """Elements of the largest sample over those of the mean one."""
    sizes = np.array([sum(values.size for values in sample.values()) for sample in samples])
    return float(sizes.max() / sizes.mean()) if sizes.any() else 1.0
