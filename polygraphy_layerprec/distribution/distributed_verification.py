"""A verification of samples that are compared on workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.distribution.verification_tasks import VerificationTask, verify_sample
from polygraphy_layerprec.divergence.judges import judges_for
from polygraphy_layerprec.execution.comparison.counted_outputs import outputs_that_count
from polygraphy_layerprec.execution.comparison.output_comparison import OutputComparison
from polygraphy_layerprec.execution.samples.given import check_samples
from polygraphy_layerprec.matching.constraint_matching import plan_of
from polygraphy_layerprec.precision import precision_named
from polygraphy_layerprec.verify import conclude_emulation

if TYPE_CHECKING:
    from polygraphy_layerprec.distribution.worker_pool import WorkerPool
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.execution.comparison.side_by_side import Progress
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import RequestedPrecisions, Verification

__all__ = ["verify_in_pool"]

Sample = Mapping[str, np.ndarray[Any, Any]]


def verify_in_pool(  # noqa: PLR0913 - as `verify_model`, and where
    pool: WorkerPool,
    graph: Graph,
    samples: Iterable[Sample],
    asked: RequestedPrecisions,
    *,
    outputs: Sequence[str] | None = None,
    tolerance: float | None = None,
    judges: Sequence[Judge] = (),
    tf32: bool = False,
    generated_inputs: bool = False,
    sample_count: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Returns what `verify_model` does with as many threads, from many processes.

    Samples are read as workers get free. What calls a function of the user's is judged in this
    process, to which the outputs are sent then.

    Args:
        pool: The workers.
        graph: The model.
        samples: As for `verify_model`, as all others.
        asked: As there.
        outputs: As there.
        tolerance: As there.
        judges: As there.
        tf32: As there.
        generated_inputs: As there.
        sample_count: As there.
        progress: As there.

    Raises:
        SampleError: As `verify_model`.
        ExecutionError: As `verify_model`; and if the scheduler or all workers are gone, or a worker
            refuses.
    """
    plan = plan_of(graph, asked)
    judged_by = judges_for(precision_named(asked.precision), tolerance=tolerance, others=judges)
    judges_here = any(judge.calls_user for judge in judged_by)
    task = VerificationTask(
        pool.model,
        asked,
        outputs_that_count(graph, outputs),
        judges=() if judges_here else judged_by,
        wants_outputs=judges_here,
        tf32=tf32,
        setting=pool.setting,
    )
    comparison, note = OutputComparison(task.outputs, judged_by), ""
    checked = enumerate(check_samples(samples, graph.inputs))
    for done, (_, sample, found) in enumerate(pool.stream(verify_sample, task, checked), start=1):
        note = note or found.note
        if found.outputs is not None:
            comparison.add_sample(found.outputs, sample, with_fp32=not note)
        else:
            comparison.merge(found.comparison, with_fp32=not note)
        if progress is not None:
            progress(done, sample_count or 0, "samples")
    return conclude_emulation(
        graph, asked, comparison, plan, note, generated_inputs=generated_inputs
    )
