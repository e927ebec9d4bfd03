"""A ranking of samples that are compared on workers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.distribution.clients import connected
from polygraphy_layerprec.distribution.observed_arrays import comparison_from
from polygraphy_layerprec.distribution.streaming import (
    NO_WORKER_SECONDS,
    stream,
    wait_for_worker,
)
from polygraphy_layerprec.distribution.worker_tasks import (
    ModelOnWorkers,
    Refused,
    WorkerFacts,
    WorkerRequest,
    describe_worker,
    observe_sample,
)
from polygraphy_layerprec.divergence.activation_store import half_of_free_memory
from polygraphy_layerprec.execution.comparison.side_by_side import no_sample
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.kernels.sessions import available_threads, threads_per_session
from polygraphy_layerprec.execution.samples.given import check_sample
from polygraphy_layerprec.model import Graph, identify, load_graph
from polygraphy_layerprec.model.digest import reference_digest
from polygraphy_layerprec.model.quantized import QuantizedGraph
from polygraphy_layerprec.observing import Observer, RankRequest
from polygraphy_layerprec.ranking.assembly import installed_versions

if TYPE_CHECKING:
    from distributed import Client

    from polygraphy_layerprec.distribution.clients import Workers
    from polygraphy_layerprec.distribution.worker_tasks import Observed
    from polygraphy_layerprec.execution.comparison.side_by_side import (
        Comparison,
        Progress,
        SampleComparer,
    )
    from polygraphy_layerprec.records import Ranking

__all__ = ["rank_on_workers"]

Sample = Mapping[str, np.ndarray[Any, Any]]

_MOST_THREADS: Final = 16


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
        workers: How many processes to start on this machine, which end with the call; or a cluster
            that runs already, with workers of one thread each (`dask worker --nthreads 1`).
        request: What is asked for; its memory is that of each worker.
        graph: The model, if it was loaded already.
        external_data_folder: Where the files with external data are; beside the model by default.
        threads: Threads of each session; by default workers share the cores of their machine.
        sample_count: How many samples there are, if that is known.
        no_worker_seconds: Time without any worker after which it is an error.
        progress: Called with samples done, samples in all (0 if unknown), and what is going on.

    Raises:
        ModelError: If the model cannot be read.
        SampleError: As `rank_model`.
        ExecutionError: As `rank_model`; and if the request needs one process, Dask is not
            installed, the scheduler or all workers are gone, or a worker has another model or
            other versions.
    """
    _check_distributable(request)
    whole = graph or load_graph(model, external_data_folder=external_data_folder)
    found = ModelOnWorkers(
        path=os.path.abspath(model),
        external_data_folder=external_data_folder and os.path.abspath(external_data_folder),
        digest=identify(whole).digest,
        versions=installed_versions(),
    )
    checked = (
        (index, check_sample(sample, whole.inputs, where=f"sample {index}"))
        for index, sample in enumerate(samples)
    )
    memory_bytes = request.max_memory_bytes or _memory_of(workers)
    with connected(workers) as client:
        facts = _check_workers(client, found, seconds=no_worker_seconds)
        share = _threads_of(workers, facts) if threads is None else threads
        task = WorkerRequest(
            found, replace(request, max_memory_bytes=memory_bytes), share, _reference_of(whole)
        )
        with threads_per_session(share):
            observer = Observer(whole, request)
            comparer = observer.comparer()
            merged = comparer.nothing()
            _tell(progress, 0, sample_count)
            streamed = stream(
                client, observe_sample, task, checked, no_worker_seconds=no_worker_seconds
            )
            for index, sample, result in streamed:
                merged.merge(_observed(result, index, sample, comparer, whole))
                _tell(progress, merged.sample_count, sample_count)
    if not merged.sample_count:
        raise no_sample()
    with threads_per_session(share):
        return observer.observed(merged).ranking(progress=progress)


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


def _reference_of(graph: Graph) -> ModelOnWorkers | None:
    """The float model that a quantised one is compared with, as workers must find it."""
    if not isinstance(graph, QuantizedGraph) or graph.reference_path is None:
        return None
    return ModelOnWorkers(
        path=os.path.abspath(graph.reference_path),
        external_data_folder=None,
        digest=reference_digest(graph),
        versions=installed_versions(),
    )


def _observed(
    result: Observed | Refused,
    index: int,
    sample: Sample,
    comparer: SampleComparer,
    graph: Graph,
) -> Comparison:
    if isinstance(result, Refused):
        raise ExecutionError(result.reason)
    comparison = comparison_from(
        result.record, result.arrays, comparer.nothing(), node_count=len(graph.nodes)
    )
    if result.is_lost:
        comparison.lost_samples = {index: sample}
    if result.has_inexact_ids:
        comparison.id_samples = {index: sample}
    return comparison


def _check_workers(
    client: Client, model: ModelOnWorkers, *, seconds: float
) -> Mapping[str, WorkerFacts]:
    """Returns what the workers are, once there is one and each of them can take part."""
    for address, count in wait_for_worker(client, seconds=seconds).items():
        if count != 1:
            raise ExecutionError(
                f"The worker {address} runs {count} tasks at once, where sessions have threads of "
                f"their own.\nStart it with `dask worker --nthreads 1`."
            )
    facts: dict[str, Any] = client.run(describe_worker, model, on_error="return")
    for address, found in facts.items():
        if isinstance(found, BaseException):
            raise ExecutionError(
                f"The worker {address} cannot say what it has: {type(found).__name__}: "
                f"{found!s:.300}.\nInstall polygraphy-layerprec in the same version there."
            )
        if found.refusal:
            raise ExecutionError(found.refusal)
    return facts


def _threads_of(workers: Workers, facts: Mapping[str, WorkerFacts]) -> int:
    """Threads of each session, equal on all workers: those of a machine share its cores."""
    if isinstance(workers, int):
        return max(1, min(available_threads() // workers, _MOST_THREADS))
    on_host = Counter(found.host for found in facts.values())
    shares = (found.cores // on_host[found.host] for found in facts.values())
    return max(1, min(*shares, _MOST_THREADS))


def _memory_of(workers: Workers) -> int | None:
    """What is free is shared by the workers of this machine; others know best themselves."""
    free = half_of_free_memory()
    return free // workers if isinstance(workers, int) and free is not None else None


def _tell(progress: Progress | None, done: int, total: int | None) -> None:
    if progress is not None:
        progress(done, total or 0, "samples")
