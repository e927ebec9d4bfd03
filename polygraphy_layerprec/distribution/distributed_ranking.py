"""A ranking of samples that are compared on workers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.distribution.observed_arrays import comparison_from
from polygraphy_layerprec.distribution.streaming import NO_WORKER_SECONDS
from polygraphy_layerprec.distribution.worker_pool import WorkerPool, worker_pool
from polygraphy_layerprec.distribution.worker_tasks import WorkerRequest, observe_sample
from polygraphy_layerprec.execution.comparison.side_by_side import no_sample
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.samples.given import check_samples
from polygraphy_layerprec.model import Graph, load_graph
from polygraphy_layerprec.observing import Observer, RankRequest

if TYPE_CHECKING:
    from polygraphy_layerprec.distribution.clients import Workers
    from polygraphy_layerprec.distribution.worker_tasks import Observed
    from polygraphy_layerprec.execution.comparison.side_by_side import (
        Comparison,
        Progress,
        SampleComparer,
    )
    from polygraphy_layerprec.records import Ranking

__all__ = ["rank_in_pool", "rank_on_workers"]

Sample = Mapping[str, np.ndarray[Any, Any]]


def rank_on_workers(  # noqa: PLR0913 - as `rank`, and where
    model: str | os.PathLike[str],
    samples: Iterable[Sample],
    workers: Workers,
    request: RankRequest = RankRequest(),  # noqa: B008 - it is immutable
    *,
    graph: Graph | None = None,
    external_data_folder: str | None = None,
    threads: int | None = None,
    sample_count: int | None = None,
    no_worker_seconds: float = NO_WORKER_SECONDS,
    progress: Progress | None = None,
) -> Ranking:
    """Returns the ranking that one process makes with as many threads, from many processes.

    Samples are read as workers get free, and never are all of them in memory.

    Args:
        model: Path of an `.onnx` file, which every worker opens for itself.
        samples: As for `rank_model`.
        workers: As for `worker_pool`, as are all others that are not told here.
        request: What is asked for; its memory is that of each worker.
        graph: The model, if it was loaded already.
        external_data_folder: As there.
        threads: As there.
        sample_count: How many samples there are, if that is known.
        no_worker_seconds: As there.
        progress: Called with samples done, samples in all (0 if unknown), and what is going on.

    Raises:
        ModelError: If the model cannot be read.
        SampleError: As `rank_model`.
        ExecutionError: As `rank_model` and `worker_pool`; and if the request needs one process, or
            the scheduler or all workers go away.
    """
    _check_distributable(request)
    whole = graph or load_graph(model, external_data_folder=external_data_folder)
    with worker_pool(
        workers,
        model,
        whole,
        external_data_folder=external_data_folder,
        threads=threads,
        max_memory_bytes=request.max_memory_bytes,
        no_worker_seconds=no_worker_seconds,
    ) as pool:
        return rank_in_pool(
            pool, whole, samples, request, sample_count=sample_count, progress=progress
        )


def rank_in_pool(
    pool: WorkerPool,
    graph: Graph,
    samples: Iterable[Sample],
    request: RankRequest,
    *,
    sample_count: int | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Returns the ranking of a model for which there are workers; see `rank_on_workers`.

    Raises:
        SampleError: As `rank_model`.
        ExecutionError: As `rank_on_workers`.
    """
    _check_distributable(request)
    observer = Observer(graph, request)
    merged = _observe(pool, observer, samples, sample_count, progress)
    if not merged.sample_count:
        raise no_sample()
    return observer.observed(merged).ranking(progress=progress)


def _observe(
    pool: WorkerPool,
    observer: Observer,
    samples: Iterable[Sample],
    sample_count: int | None,
    progress: Progress | None,
) -> Comparison:
    """What all samples say, merged in their order."""
    on_workers = replace(observer.request, max_memory_bytes=pool.memory_bytes)
    task = WorkerRequest(pool.model, on_workers, pool.setting)
    comparer = observer.comparer()
    merged = comparer.nothing()
    _tell(progress, 0, sample_count)
    checked = enumerate(check_samples(samples, observer.whole.inputs))
    for index, sample, result in pool.stream(observe_sample, task, checked):
        merged.merge(_comparison(result, index, sample, comparer, observer.whole))
        _tell(progress, merged.sample_count, sample_count)
    return merged


def _check_distributable(request: RankRequest) -> None:
    if request.runs_samples_again:
        raise ExecutionError(
            "Exact impacts run all samples for every layer, in one process.\n"
            "Leave out `--workers` and `--cluster`, or `--impact exact` and `--exact`."
        )
    if request.loss is not None:
        raise ExecutionError(
            "A loss is a function of this process.\n"
            "Leave out `--workers` and `--cluster`, or `--loss-script`."
        )


def _comparison(
    result: Observed, index: int, sample: Sample, comparer: SampleComparer, graph: Graph
) -> Comparison:
    comparison = comparison_from(
        result.record, result.arrays, comparer.nothing(), node_count=len(graph.nodes)
    )
    if result.is_lost:
        comparison.lost_samples = {index: sample}
    if result.has_inexact_ids:
        comparison.id_samples = {index: sample}
    return comparison


def _tell(progress: Progress | None, done: int, total: int | None) -> None:
    if progress is not None:
        progress(done, total or 0, "samples")
