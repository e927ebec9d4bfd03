"""What runs on a worker for a ranking: one sample, compared as any process compares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.distribution.observed_arrays import (
    ObservedRecord,
    observed_arrays,
    observed_record,
)
from polygraphy_layerprec.distribution.worker_models import (
    ModelOnWorkers,
    Refused,
    WorkerSetting,
    answer,
    open_model,
    prepared,
)
from polygraphy_layerprec.observing import Observer

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.side_by_side import SampleComparer
    from polygraphy_layerprec.observing import RankRequest

__all__ = ["Observed", "WorkerRequest", "observe_sample"]

Sample = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """How every worker compares samples."""

    model: ModelOnWorkers
    """The model."""

    rank: RankRequest
    """What is asked of the ranking; its memory is that of each worker."""

    setting: WorkerSetting
    """How they run it."""


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


def observe_sample(request: WorkerRequest, index: int, sample: Sample) -> Observed | Refused:
    """Returns what one sample says, or why that is not to be known.

    Args:
        request: How to compare it.
        index: Its index in the data set.
        sample: An array for each input.
    """
    return answer(request.setting, lambda: _observed(request, index, sample))


def _observed(request: WorkerRequest, index: int, sample: Sample) -> Observed:
    comparison = prepared(request, lambda: _comparer(request)).compare(index, sample)
    return Observed(
        observed_record(comparison),
        observed_arrays(comparison),
        is_lost=bool(comparison.lost_samples),
        has_inexact_ids=bool(comparison.id_samples),
    )


def _comparer(request: WorkerRequest) -> SampleComparer:
    graph = open_model(request.model, request.rank.precision)
    return Observer(graph, request.rank).comparer()
