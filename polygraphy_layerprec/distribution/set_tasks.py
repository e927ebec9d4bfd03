"""What runs on a worker for a set of layers: one sample, which the worker remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import get_worker

from polygraphy_layerprec.distribution.streaming import SampleMissing
from polygraphy_layerprec.distribution.worker_models import (
    ModelOnWorkers,
    WorkerSetting,
    answer,
    open_model,
    prepared,
)
from polygraphy_layerprec.divergence.activation_store import half_of_free_memory
from polygraphy_layerprec.execution.comparison.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.comparison.judging import Findings
from polygraphy_layerprec.execution.comparison.set_runs import RememberedSample, SetRuns
from polygraphy_layerprec.plan import KeptLayers, Target

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.precision import Precision

__all__ = ["SetResult", "SetTask", "SetsRequest", "measure_set"]

Sample = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class SetsRequest:
    """How every worker measures sets of layers."""

    model: ModelOnWorkers
    """The model."""

    precision: Precision
    """The low precision."""

    outputs: tuple[str, ...] | None
    """Names of the outputs that count; None for all."""

    setting: WorkerSetting
    """How they run it."""

    most_bytes: int | None
    """Memory for samples with their references; None for half of what is free. Others are sent,
    and their references run, for each set anew."""

    checkpoint_bytes: int
    """Memory for the checkpoints of each sample."""


@dataclass(frozen=True, slots=True)
class SetTask:
    """A set of layers to measure."""

    sets: SetsRequest
    """How."""

    kept: KeptLayers
    """The layers in FP32."""

    judges: tuple[Judge, ...]
    """What judges the outputs."""

    wants_outputs: bool
    """Whether the outputs are to be sent, for judges that stay with the client."""

    wants_reference: bool
    """Whether those in FP32 are, too."""


@dataclass(frozen=True, slots=True)
class SetResult:
    """What one sample said of a set."""

    home: str
    """Address of the worker, if it remembers the sample; else empty."""

    findings: Findings
    """What becomes of the outputs."""

    has_reference: bool
    """Whether any output that counts could be computed in FP32."""

    candidate: Sample | None
    """The outputs, where they are wanted."""

    reference: Sample | None
    """Those in FP32, where they are wanted."""


def measure_set(task: SetTask, index: int, sample: Sample | None) -> Any:
    """Returns the `SetResult` of one sample, `SampleMissing` if it must be sent, or `Refused`.

    Args:
        task: What to measure.
        index: Its index in the data set.
        sample: An array for each input; None if the worker should remember it.
    """
    return answer(task.sets.setting, lambda: _measured(task, index, sample))


def _measured(task: SetTask, index: int, sample: Sample | None) -> SetResult | SampleMissing:
    sets = prepared(task.sets, lambda: _Sets(task.sets))
    remembered = sets.remembered.get(index)
    if remembered is None:
        if sample is None:
            return SampleMissing()
        remembered = sets.remember(index, sample)
    candidate = sets.runs.whole_candidate(remembered, sets.plan(task.kept))
    findings = Findings(sets.outputs, task.judges, task.sets.precision)
    if not task.wants_outputs:
        findings.add(remembered.reference, candidate, remembered.sample)
    return SetResult(
        home=get_worker().address if index in sets.remembered else "",
        findings=findings,
        has_reference=any(name in remembered.reference for name in sets.outputs),
        candidate=candidate if task.wants_outputs else None,
        reference=remembered.reference if task.wants_reference else None,
    )


class _Sets:
    """What measures sets of one model, and the samples that it met."""

    def __init__(self, request: SetsRequest) -> None:
        whole = open_model(request.model, request.precision)
        graph, self.outputs = part_that_counts(whole, request.outputs)
        self.runs = SetRuns.of(graph, request.precision, Target.STRONG)
        self.plan = lru_cache(maxsize=1)(self.runs.plan)
        self.remembered: dict[int, RememberedSample] = {}
        self._checkpoint_bytes = request.checkpoint_bytes
        self._room = half_of_free_memory() if request.most_bytes is None else request.most_bytes

    def remember(self, index: int, sample: Sample) -> RememberedSample:
        """Runs the reference, and remembers the sample if there is room."""
        found = self.runs.remember(sample, most_bytes=self._checkpoint_bytes)
        size = sum(array.nbytes for part in (sample, found.reference) for array in part.values())
        if self._room is None or size <= self._room:
            self._room = None if self._room is None else self._room - size
            self.remembered[index] = found
        return found
