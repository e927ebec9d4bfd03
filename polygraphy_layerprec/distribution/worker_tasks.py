"""What runs on a worker: one sample, compared as any process compares it.

A worker opens the model by its path and measures nothing unless model and versions are those of the
client. What the user can fix comes back as a value: an exception may not survive the journey.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.distribution.observed_arrays import (
    ObservedRecord,
    observed_arrays,
    observed_record,
)
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.kernels.sessions import (
    available_threads,
    silence_native_log,
    threads_per_session,
)
from polygraphy_layerprec.model import ModelError, identify, load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.observing import Observer
from polygraphy_layerprec.precision import QDQ
from polygraphy_layerprec.ranking.assembly import installed_versions

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.side_by_side import SampleComparer
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.observing import RankRequest

__all__ = [
    "ModelOnWorkers",
    "Observed",
    "Refused",
    "WorkerFacts",
    "WorkerRequest",
    "describe_worker",
    "observe_sample",
]

Sample = Mapping[str, np.ndarray[Any, Any]]


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


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """How every worker compares samples."""

    model: ModelOnWorkers
    """The model."""

    rank: RankRequest
    """What is asked of the ranking; its memory is that of each worker."""

    threads: int
    """Threads of each ONNX-Runtime session."""

    reference: ModelOnWorkers | None = None
    """The float model that a quantised one is compared with, if there is one."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What one sample said."""

    record: ObservedRecord
    """The part that is a record."""

    arrays: Mapping[str, np.ndarray[Any, Any]]
    """The part that is numbers."""

    is_lost: bool
    """Whether an output becomes NaN or infinite."""

    has_inexact_ids: bool
    """Whether floats that are taken for integers are not exact."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a worker did not compare a sample."""

    reason: str
    """In words that tell the user what to do."""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker is."""

    host: str
    """Name of its machine."""

    cores: int
    """Cores that it may use."""

    refusal: str
    """Why it cannot take part, in words; empty if it can."""


_ONE_AT_A_TIME: Final = threading.Lock()
"""Sums take memory of the process, which several threads must not share."""

_PREPARED: Final[dict[WorkerRequest, SampleComparer]] = {}


def describe_worker(model: ModelOnWorkers) -> WorkerFacts:
    """Returns what a worker is, and whether it has the model and the versions."""
    try:
        _open_model(model)
    except (ExecutionError, ModelError, OSError) as error:
        return WorkerFacts(socket.gethostname(), available_threads(), str(error))
    return WorkerFacts(socket.gethostname(), available_threads(), "")


def observe_sample(request: WorkerRequest, index: int, sample: Sample) -> Observed | Refused:
    """Returns what one sample says, or why that is not to be known.

    Args:
        request: How to compare it.
        index: Its index in the data set.
        sample: An array for each input.
    """
    with _ONE_AT_A_TIME, threads_per_session(request.threads):
        try:
            comparison = _prepared(request).compare(index, sample)
        except (ExecutionError, ModelError, OSError) as error:
            return Refused(str(error))
        except MemoryError:
            return Refused("A worker is out of memory.\nUse fewer `--workers`, or a lower "
                           "`--max-memory`.")  # fmt: skip
    return Observed(
        observed_record(comparison),
        observed_arrays(comparison),
        is_lost=bool(comparison.lost_samples),
        has_inexact_ids=bool(comparison.id_samples),
    )


def _prepared(request: WorkerRequest) -> SampleComparer:
    """What compares samples, with its sessions; that of another request is forgotten."""
    if request not in _PREPARED:
        _PREPARED.clear()
        silence_native_log()
        graph = _with_pairs(_open_model(request.model), request)
        _PREPARED[request] = Observer(graph, request.rank).comparer()
    return _PREPARED[request]


def _with_pairs(graph: Graph, request: WorkerRequest) -> Graph:
    """What is ranked of a model: of a quantised one, its float graph and its pairs."""
    if request.rank.precision != QDQ:
        return graph
    wanted = request.reference
    if wanted is None:
        return pass_pairs_by(graph)
    return pass_pairs_by(graph, _open_model(wanted), reference_path=wanted.path)


def _open_model(model: ModelOnWorkers) -> Graph:
    here = f"the worker on {socket.gethostname()}"
    ours, theirs = dict(installed_versions()), dict(model.versions)
    for package in sorted(ours | theirs):
        if ours.get(package) != theirs.get(package):
            raise ExecutionError(
                f"{here.capitalize()} has another version of {package} than this program.\n"
                f"Note: They are: {ours.get(package)} and {theirs.get(package)}.\n"
                f"Install the same versions on every worker."
            )
    if not os.path.exists(model.path):
        raise ExecutionError(
            f"There is no {model.path!r} for {here}.\n"
            f"Put the model where every worker finds it under the same path."
        )
    graph = load_graph(model.path, external_data_folder=model.external_data_folder)
    if identify(graph).digest != model.digest:
        raise ExecutionError(
            f"{model.path!r} is another model for {here} than for this program.\n"
            f"Put the same file there."
        )
    return graph
