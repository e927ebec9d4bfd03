"""Workers that have a model and the versions of this program, and what each of them may use."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.distribution.clients import connected
from polygraphy_layerprec.distribution.streaming import (
    NO_WORKER_SECONDS,
    stream,
    wait_for_worker,
)
from polygraphy_layerprec.distribution.worker_models import (
    ModelOnWorkers,
    Refused,
    WorkerFacts,
    WorkerSetting,
    describe_worker,
)
from polygraphy_layerprec.divergence.activation_store import half_of_free_memory
from polygraphy_layerprec.execution.errors import WorkersError
from polygraphy_layerprec.execution.kernels.sessions import available_threads, threads_per_session
from polygraphy_layerprec.model import identify
from polygraphy_layerprec.model.digest import reference_digest
from polygraphy_layerprec.model.quantized import QuantizedGraph
from polygraphy_layerprec.ranking.assembly import installed_versions

if TYPE_CHECKING:
    from distributed import Client

    from polygraphy_layerprec.distribution.clients import Workers
    from polygraphy_layerprec.model import Graph

__all__ = ["WorkerPool", "worker_pool"]

_MOST_THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """Workers that can take part, for one model."""

    client: Client
    """The connection to them."""

    model: ModelOnWorkers
    """The model as they find it."""

    setting: WorkerSetting
    """How they run it."""

    memory_bytes: int | None
    """Memory of each for activations, and for samples; None where it knows best itself."""

    host_count: int
    """On how many machines they are."""

    no_worker_seconds: float
    """Time without any worker after which it is an error."""

    def stream(
        self,
        measure: Callable[..., Any],
        request: Any,
        samples: Iterable[tuple[int, Any]],
        *,
        homes: Mapping[int, str] | None = None,
    ) -> Iterator[tuple[int, Any, Any]]:
        """Yields what `streaming.stream` does, of a `measure` that may return `Refused`.

        Raises:
            ExecutionError: As `stream`, or what a worker refused.
        """
        seconds = self.no_worker_seconds
        for index, sample, result in stream(
            self.client, measure, request, samples, homes=homes, no_worker_seconds=seconds
        ):
            if isinstance(result, Refused):
                raise result.error()
            yield index, sample, result


@contextlib.contextmanager
def worker_pool(
    workers: Workers,
    model: str | os.PathLike[str],
    graph: Graph,
    *,
    external_data_folder: str | None = None,
    threads: int | None = None,
    max_memory_bytes: int | None = None,
    gpus: int | None = None,
    no_worker_seconds: float = NO_WORKER_SECONDS,
) -> Iterator[WorkerPool]:
    """Yields workers for a model; sessions of this process have as many threads in the block.

    Args:
        workers: How many processes to start on this machine, which end with the block; or a cluster
            that runs already, with workers of one thread each (`dask worker --nthreads 1`).
        model: Path of an `.onnx` file, which every worker opens for itself.
        graph: The same, loaded.
        external_data_folder: Where the files with external data are; beside the model by default.
        threads: Threads of each session; by default workers share the cores of their machine.
        max_memory_bytes: Memory of each worker for activations, and as much for samples that it
            remembers; by default workers of this machine share half of what is free.
        gpus: How many GPUs this machine has, if each worker has nodes run on a GPU of its own: one
            of them, or on a cluster the first that it sees. None for the CPU.
        no_worker_seconds: Time without any worker after which it is an error.

    Raises:
        WorkersError: If Dask is not installed, no scheduler or worker is there, a worker has
            another model or other versions, or two have to share a GPU.
    """
    wanted = _model_on_workers(os.path.abspath(model), graph, external_data_folder)
    memory_bytes = max_memory_bytes or _memory_of(workers)
    on_gpu = gpus is not None
    seen = _gpus_for(workers, gpus) if gpus is not None else ()
    gpu_bytes = max_memory_bytes if on_gpu else None
    with connected(workers, seen) as client:
        describe = partial(describe_worker, wanted, on_gpu=on_gpu, gpu_bytes=gpu_bytes)
        facts = _check_workers(client, describe, seconds=no_worker_seconds)
        share = _threads_of(workers, facts) if threads is None else threads
        hosts = len({found.host for found in facts.values()})
        with threads_per_session(share):
            setting = WorkerSetting(share, on_gpu, gpu_bytes)
            yield WorkerPool(client, wanted, setting, memory_bytes, hosts, no_worker_seconds)


def _gpus_for(workers: Workers, count: int) -> Sequence[str]:
    """The GPUs of workers on this machine, as CUDA_VISIBLE_DEVICES names them."""
    if not isinstance(workers, int):
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(i) for i in range(count)] if named is None else named.split(",")
    if workers > len(names):
        raise WorkersError(
            f"{workers} workers need a GPU each, and there {'is' if len(names) == 1 else 'are'} "
            f"{len(names)}.\nUse `--workers {max(len(names), 1)}`, or leave out `--providers cuda`."
        )
    return names[:workers]


def _model_on_workers(path: str, graph: Graph, external_data_folder: str | None) -> ModelOnWorkers:
    found = ModelOnWorkers(
        path=path,
        external_data_folder=external_data_folder and os.path.abspath(external_data_folder),
        digest=identify(graph).digest,
        versions=installed_versions(),
    )
    if not isinstance(graph, QuantizedGraph) or graph.reference_path is None:
        return found
    of_floats = ModelOnWorkers(
        path=os.path.abspath(graph.reference_path),
        external_data_folder=None,
        digest=reference_digest(graph),
        versions=found.versions,
    )
    return replace(found, reference=of_floats)


def _check_workers(
    client: Client, describe: Callable[[], WorkerFacts], *, seconds: float
) -> Mapping[str, WorkerFacts]:
    """Returns what the workers are, once there is one and each of them can take part."""
    for address, count in wait_for_worker(client, seconds=seconds).items():
        if count != 1:
            raise WorkersError(
                f"The worker {address} runs {count} tasks at once, where sessions have threads of "
                f"their own.\nStart it with `dask worker --nthreads 1`."
            )
    facts: dict[str, Any] = client.run(describe, on_error="return")
    for address, found in facts.items():
        if isinstance(found, BaseException):
            raise WorkersError(
                f"The worker {address} cannot say what it has: {type(found).__name__}: "
                f"{found!s:.300}.\nInstall polygraphy-layerprec in the same version there."
            )
        if found.refusal:
            raise WorkersError(found.refusal)
    _check_gpus(facts)
    return facts


def _check_gpus(facts: Mapping[str, WorkerFacts]) -> None:
    """Checks that no two workers of a cluster share a GPU."""
    owners: dict[tuple[str, str], str] = {}
    for address, found in facts.items():
        other = owners.setdefault((found.host, found.gpu), address)
        if found.gpu and other != address:
            raise WorkersError(
                f"The workers {other} and {address} share the GPU {found.gpu} of {found.host}.\n"
                f"Start each with a GPU of its own, for example with CUDA_VISIBLE_DEVICES=1."
            )


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
