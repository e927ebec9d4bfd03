"""What runs on a worker for a verification: one sample through the reference and all candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.distribution.worker_models import (
    ModelOnWorkers,
    Refused,
    WorkerSetting,
    answer,
    open_model,
    prepared,
)
from polygraphy_layerprec.execution.comparison.candidate_runs import (
    CandidateOutputs,
    CandidateRuns,
)
from polygraphy_layerprec.execution.comparison.output_comparison import OutputComparison
from polygraphy_layerprec.execution.comparison.plain_runs import run_fp32_of
from polygraphy_layerprec.precision import precision_named

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.records import RequestedPrecisions

__all__ = ["VerificationTask", "VerifiedSample", "verify_sample"]

Sample = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class VerificationTask:
    """How every worker compares samples."""

    model: ModelOnWorkers
    """The model."""

    asked: RequestedPrecisions
    """Which layers stay in FP32."""

    outputs: tuple[str, ...]
    """Names of the outputs that count."""

    judges: tuple[Judge, ...]
    """What judges the outputs."""

    wants_outputs: bool
    """Whether the outputs are to be sent, for judges that stay with the client."""

    tf32: bool
    """Whether the factors of products in FP32 are rounded to TF32."""

    setting: WorkerSetting
    """How they run it."""


@dataclass(frozen=True, slots=True)
class VerifiedSample:
    """What one sample said."""

    comparison: OutputComparison
    """Its outputs, compared; empty where they are sent."""

    outputs: CandidateOutputs | None
    """The outputs, where they are wanted."""

    note: str
    """Why the model was not run as a whole; empty if it was."""


def verify_sample(task: VerificationTask, index: int, sample: Sample) -> VerifiedSample | Refused:
    """Returns what one sample says, or why that is not to be known."""
    del index
    return answer(task.setting, lambda: _verified(task, sample))


def _verified(task: VerificationTask, sample: Sample) -> VerifiedSample:
    # Judges cannot be told apart, and do not change what is run.
    key = task.model, task.asked, task.outputs, task.tf32, task.setting
    outputs = prepared(key, lambda: _runs(task)).run(sample)
    comparison = OutputComparison(task.outputs, task.judges)
    if task.wants_outputs:
        return VerifiedSample(comparison, outputs, outputs.note)
    comparison.add_sample(outputs, sample)
    return VerifiedSample(comparison, None, outputs.note)


def _runs(task: VerificationTask) -> CandidateRuns:
    model = task.model
    graph = open_model(model, precision_named(task.asked.precision))
    run_fp32 = run_fp32_of(graph, model.path, external_data_folder=model.external_data_folder)
    return CandidateRuns(graph, task.asked, run_fp32, tf32=task.tf32)
