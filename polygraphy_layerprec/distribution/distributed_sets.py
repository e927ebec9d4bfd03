"""Sets of layers that are measured on workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.distribution.set_tasks import SetsRequest, SetTask, measure_set
from polygraphy_layerprec.divergence.judges import judges_for
from polygraphy_layerprec.execution.comparison.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.comparison.judging import Findings
from polygraphy_layerprec.execution.comparison.measured_model import MeasuredModel
from polygraphy_layerprec.execution.comparison.set_measurement import SampleRuns, no_reference
from polygraphy_layerprec.execution.comparison.set_runs import MOST_CHECKPOINT_BYTES
from polygraphy_layerprec.execution.samples.given import check_samples
from polygraphy_layerprec.matching.constraint_matching import check_ranked_model
from polygraphy_layerprec.plan.quantized_planning import planner_for
from polygraphy_layerprec.precision import precision_named

if TYPE_CHECKING:
    from polygraphy_layerprec.distribution.set_tasks import SetResult
    from polygraphy_layerprec.distribution.worker_pool import WorkerPool
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.plan import KeptLayers, Plan
    from polygraphy_layerprec.precision import Precision
    from polygraphy_layerprec.records import Ranking

__all__ = ["SetsInPool", "measure_in_pool"]

Sample = Mapping[str, np.ndarray[Any, Any]]


def measure_in_pool(
    pool: WorkerPool,
    ranking: Ranking,
    graph: Graph,
    samples: Iterable[Sample],
    *,
    outputs: Sequence[str] | None = None,
    judges: Sequence[Judge] = (),
    tolerance: float | None = None,
) -> MeasuredModel:
    """Returns what measures sets of layers on workers, as `measured_model` does in this process.

    Args:
        pool: The workers.
        ranking: As there, as all others.
        graph: As there.
        samples: As there.
        outputs: As there.
        judges: As there.
        tolerance: As there.

    Raises:
        UserError: If the model is another one than was ranked.
        SampleError: If a sample does not fit the model.
        ExecutionError: If there is no sample.
    """
    check_ranked_model(graph, ranking, made="The ranking")
    precision = precision_named(ranking.precision)
    sets = SetsInPool(pool, graph, samples, precision=precision, outputs=outputs)
    judged_by = judges_for(precision, tolerance=tolerance, others=judges)
    return MeasuredModel(ranking, graph, sets, judged_by)


class SetsInPool(SampleRuns):
    """Measures sets of layers on workers, each of which remembers the samples that it met.

    Samples that a worker remembered who is gone are sent to another one. What calls a function of
    the user's is judged in this process, to which the outputs are sent then.
    """

    def __init__(
        self,
        pool: WorkerPool,
        graph: Graph,
        samples: Iterable[Sample],
        *,
        precision: Precision,
        outputs: Sequence[str] | None,
    ) -> None:
        """Prepares to measure; nothing is run.

        Args:
            pool: The workers.
            graph: The model.
            samples: Input samples, which are kept.
            precision: The low precision.
            outputs: Names of the outputs that count, all by default.

        Raises:
            SampleError: If a sample does not fit the model.
            ExecutionError: If there is no sample.
        """
        part, counted = part_that_counts(graph, outputs)
        self._samples = list(check_samples(samples, part.inputs))
        if not self._samples:
            raise no_reference([], counted)
        super().__init__(precision, counted, len(self._samples))
        self._pool = pool
        self._planner = planner_for(part, precision)
        self._request = SetsRequest(
            pool.model,
            precision,
            None if outputs is None else tuple(outputs),
            pool.setting,
            pool.memory_bytes,
            pool.host_count * MOST_CHECKPOINT_BYTES // len(self._samples),
        )
        self._homes: dict[int, str] = {}
        self._references: dict[int, Sample] = {}

    def plan(self, kept: KeptLayers) -> Plan:
        """As in `SampleRuns`."""
        return self._planner.plan(kept)

    def findings(
        self,
        kept: KeptLayers,
        judges: Sequence[Judge] = (),
        places: range | None = None,
        *,
        tell: Callable[[int], None] | None = None,
    ) -> Findings:
        """Returns what becomes of the outputs; the arguments are those of `SampleRuns`.

        Raises:
            ExecutionError: If the scheduler or all workers are gone, a worker refuses, or no output
                that counts can be computed.
        """
        places = places or range(len(self._samples))
        judges_here = any(judge.calls_user for judge in judges)
        task = SetTask(
            self._request,
            kept,
            judges=() if judges_here else tuple(judges),
            wants_outputs=judges_here,
            wants_reference=judges_here and any(i not in self._references for i in places),
        )
        findings, has_reference = self.nothing(judges), False
        samples = ((place, self._samples[place]) for place in places)
        streamed = self._pool.stream(measure_set, task, samples, homes=self._homes)
        for done, (place, sample, result) in enumerate(streamed, start=1):
            has_reference |= result.has_reference
            self._add(findings, place, sample, result)
            if tell is not None:
                tell(done)
        if not has_reference:
            raise no_reference(self._samples, self._outputs)
        return findings

    def _add(self, findings: Findings, place: int, sample: Sample, result: SetResult) -> None:
        if result.home:
            self._homes[place] = result.home
        else:
            self._homes.pop(place, None)
        if result.reference is not None:
            self._references[place] = result.reference
        if result.candidate is None:
            findings.merge(result.findings)
        else:
            findings.add(self._references[place], result.candidate, sample)
