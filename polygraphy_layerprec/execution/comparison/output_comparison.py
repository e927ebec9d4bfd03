"""The outputs of several candidates against one reference, over all samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.comparison.judging import Findings
from polygraphy_layerprec.precision import BF16
from polygraphy_layerprec.records import Outcome, OutputDivergence

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.execution.comparison.candidate_runs import (
        CandidateName,
        CandidateOutputs,
    )

__all__ = ["OutputComparison"]


class OutputComparison:
    """Accumulates the divergence of each candidate's outputs, a sample at a time."""

    def __init__(self, outputs: Sequence[str], judges: Sequence[Judge] = ()) -> None:
        self.outputs = tuple(outputs)
        self._judges = tuple(judges)
        self.sample_count = 0
        self.missing: dict[str, None] = {}
        """Outputs that the reference or a candidate did not give as tensors."""
        self._findings: dict[CandidateName, Findings] = {}

    def add(
        self,
        candidate: CandidateName,
        reference: Mapping[str, np.ndarray[Any, Any]],
        values: Mapping[str, np.ndarray[Any, Any]],
        sample: Mapping[str, np.ndarray[Any, Any]],
    ) -> None:
        """Adds one sample of one candidate: the outputs of both, and the inputs."""
        for name in self.outputs:
            if name not in reference or name not in values:
                self.missing[name] = None
        typed = {
            name: _in_type_of(reference[name], array)
            for name, array in values.items()
            if name in reference
        }
        self._of(candidate).add(reference, typed, sample)

    def add_sample(
        self,
        outputs: CandidateOutputs,
        sample: Mapping[str, np.ndarray[Any, Any]],
        *,
        with_fp32: bool = True,
    ) -> None:
        """Adds one sample of all candidates, or of all but that in FP32."""
        for name, values in outputs.candidates.items():
            if with_fp32 or name != "fp32":
                self.add(name, outputs.reference, values, sample)
        self.sample_count += 1

    def merge(self, other: OutputComparison, *, with_fp32: bool = True) -> None:
        """Adds later samples that were compared elsewhere, over the same outputs and judges."""
        self.sample_count += other.sample_count
        self.missing |= other.missing
        for name, findings in other._findings.items():
            if with_fp32 or name != "fp32":
                self._of(name).merge(findings)

    def outcome(self, candidate: CandidateName) -> Outcome | None:
        """Returns what the judges make of a candidate; None if it was not measured."""
        return self._of(candidate).outcome() if candidate in self._findings else None

    def error(self, candidate: CandidateName) -> float | None:
        """Returns the error over all float outputs and samples; None if there is none."""
        if all(record.error is None for record in self.records(candidate).values()):
            return None
        return self._of(candidate).divergences.error

    def records(self, candidate: CandidateName) -> dict[str, OutputDivergence]:
        """Returns the outputs of one candidate by name, none if it was not measured."""
        if candidate not in self._findings:
            return {}
        records = self._of(candidate).divergences.records()
        return {record.name: record for record in records if record.name not in self.missing}

    def _of(self, candidate: CandidateName) -> Findings:
        if candidate not in self._findings:
            self._findings[candidate] = Findings(self.outputs, self._judges, BF16)
        return self._findings[candidate]


def _in_type_of(
    reference: np.ndarray[Any, Any], values: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Engines may give narrower floats than the model does."""
    if reference.dtype in (np.float32, np.float64) and values.dtype != reference.dtype:
        return values.astype(reference.dtype)
    return values
