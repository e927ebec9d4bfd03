"""What a worker must have before it measures: the model, the versions, and room.

A worker opens the model by its path and measures nothing unless model and versions are those of the
client. What the user can fix comes back as a value: an exception may not survive the journey.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.execution.errors import ExecutionError, WorkersError
from polygraphy_layerprec.execution.kernels.device import on_device
from polygraphy_layerprec.execution.kernels.sessions import (
    available_threads,
    silence_native_log,
    threads_per_session,
)
from polygraphy_layerprec.model import identify, load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.precision import QDQ
from polygraphy_layerprec.ranking.assembly import installed_versions

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.kernels.cuda_device import CudaDevice
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.precision import Precision

__all__ = [
    "ModelOnWorkers",
    "Refused",
    "WorkerFacts",
    "WorkerSetting",
    "answer",
    "describe_worker",
    "open_model",
    "prepared",
]

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ModelOnWorkers:
    """The model as every worker must find it."""

    path: str
    """Absolute path, the same on every machine."""

    external_data_folder: str | None
    """Folder with its external data, absolute; None where these lie beside it."""

    digest: str
    """Digest of the client's model."""

    versions: tuple[tuple[str, str], ...]
    """Packages that numbers depend on, with the client's versions."""

    reference: ModelOnWorkers | None = None
    """The float model that a quantised one is compared with."""


@dataclass(frozen=True, slots=True)
class WorkerSetting:
    """How every worker runs what it is asked to."""

    threads: int
    """Threads of each ONNX-Runtime session."""

    on_gpu: bool = False
    """Whether the worker's GPU runs nodes."""

    gpu_bytes: int | None = None
    """Memory of the GPU for weights and activations; None for what is free."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a worker did not do what it was asked to."""

    reason: str
    """In words that tell the user what to do."""

    of_model: bool
    """Whether the model is to blame, as it would be in one process; else it is the worker."""

    def error(self) -> ExecutionError:
        """Returns the error that says so."""
        return (ExecutionError if self.of_model else WorkersError)(self.reason)


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker is."""

    host: str
    """Name of its machine."""

    cores: int
    """Cores that it may use."""

    gpu: str
    """Address of its GPU on the bus of the machine; empty where none is used."""

    refusal: str
    """Why it cannot take part, in words; empty if it can."""


_ONE_AT_A_TIME: Final = threading.Lock()
"""Sums take memory of the process, which several threads must not share."""

_PREPARED: Final[dict[Any, Any]] = {}
_OPENED: Final[dict[tuple[ModelOnWorkers, Precision], Graph]] = {}


def describe_worker(model: ModelOnWorkers, *, on_gpu: bool, gpu_bytes: int | None) -> WorkerFacts:
    """Returns what a worker is, and whether it has the model, the versions and a GPU if wanted."""
    host, cores, gpu = socket.gethostname(), available_threads(), ""
    try:
        _load(model)
        if on_gpu:
            gpu = _gpu(gpu_bytes).address
    except (UserError, OSError) as error:
        return WorkerFacts(host, cores, gpu, str(error))
    return WorkerFacts(host, cores, gpu, "")


def answer(setting: WorkerSetting, work: Callable[[], _Result]) -> _Result | Refused:
    """Returns what `work` does in a setting, or why that is not to be had."""
    with _ONE_AT_A_TIME, threads_per_session(setting.threads):
        try:
            with _running(setting):
                return work()
        except (UserError, OSError) as error:
            of_model = isinstance(error, ExecutionError) and not isinstance(error, WorkersError)
            return Refused(str(error), of_model)
        except MemoryError:
            return Refused("A worker is out of memory.\nUse fewer `--workers`, or a lower "
                           "`--max-memory`.", of_model=False)  # fmt: skip


@cache
def _gpu(memory_bytes: int | None) -> CudaDevice:
    from polygraphy_layerprec.execution.kernels.cuda_setup import open_gpu

    return open_gpu(memory_bytes=memory_bytes)


@contextlib.contextmanager
def _running(setting: WorkerSetting) -> Iterator[None]:
    if not setting.on_gpu:
        yield
        return
    from polygraphy_layerprec.execution.kernels.cuda_setup import device_errors

    device = _gpu(setting.gpu_bytes)
    with device_errors(device), on_device(device):
        yield


def prepared(request: Any, make: Callable[[], _Result]) -> _Result:
    """Returns what `make` makes, once for a request; that of another request is forgotten."""
    if request not in _PREPARED:
        _PREPARED.clear()
        silence_native_log()
        _PREPARED[request] = make()
    found: _Result = _PREPARED[request]
    return found


def open_model(model: ModelOnWorkers, precision: Precision) -> Graph:
    """Returns what is measured of a model: of a quantised one, its float graph and its pairs.

    Raises:
        WorkersError: If the worker has other versions, or no such model.
        ModelError: If it cannot be read.
    """
    key = model, precision
    if key not in _OPENED:
        _OPENED.clear()
        graph, reference = _load(model), model.reference
        if precision == QDQ:
            graph = (
                pass_pairs_by(graph)
                if reference is None
                else pass_pairs_by(graph, _load(reference), reference_path=reference.path)
            )
        _OPENED[key] = graph
    return _OPENED[key]


def _load(model: ModelOnWorkers) -> Graph:
    here = f"the worker on {socket.gethostname()}"
    ours, theirs = dict(installed_versions()), dict(model.versions)
    for package in sorted(ours | theirs):
        if ours.get(package) != theirs.get(package):
            raise WorkersError(
                f"{here.capitalize()} has another version of {package} than this program.\n"
                f"Note: They are: {ours.get(package)} and {theirs.get(package)}.\n"
                f"Install the same versions on every worker."
            )
    if not os.path.exists(model.path):
        raise WorkersError(
            f"There is no {model.path!r} for {here}.\n"
            f"Put the model where every worker finds it under the same path."
        )
    graph = load_graph(model.path, external_data_folder=model.external_data_folder)
    if identify(graph).digest != model.digest:
        raise WorkersError(
            f"{model.path!r} is another model for {here} than for this program.\n"
            f"Put the same file there."
        )
    return graph
