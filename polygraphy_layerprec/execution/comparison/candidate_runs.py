"""Runs of one sample that a verification compares: the reference, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.comparison.set_runs import MOST_CHECKPOINT_BYTES, SetRuns
from polygraphy_layerprec.execution.emulation.canary import check_emulation
from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.matching.constraint_matching import kept_layers_of, planner_of
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import PRECISIONS

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.output_comparison import OutputComparison
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import RequestedPrecisions

__all__ = ["CandidateRuns", "Runner"]

Sample = Mapping[str, np.ndarray[Any, Any]]
Runner = Callable[[Sample], Mapping[str, np.ndarray[Any, Any]]]
"""Runs the FP32 model on a backend."""


class CandidateRuns:
    """Runs samples in FP32, with every layer lowered, and with what was requested."""

    def __init__(
        self, graph: Graph, asked: RequestedPrecisions, run_fp32: Runner | None, *, tf32: bool
    ) -> None:
        """Plans the candidates.

        Raises:
            ExecutionError: If ONNX-Runtime cannot emulate low precision.
        """
        check_emulation()
        executor = PlannedExecutor(graph, PRECISIONS[asked.precision], tf32=tf32)
        self._runs = SetRuns(graph, executor, planner_of(graph, asked))
        self._lowered = self._runs.plan(KeptLayers())
        self.constrained = self._runs.plan(kept_layers_of(graph, asked.constraints))
        self._run_fp32 = run_fp32
        self.notes: list[str] = []

    def compare(self, sample: Sample, comparison: OutputComparison) -> None:
        """Adds one sample."""
        remembered = self._runs.remember(sample, most_bytes=MOST_CHECKPOINT_BYTES)
        reference = remembered.reference
        if self._run_fp32 is not None:
            try:
                comparison.add("fp32", reference, self._run_fp32(sample), sample)
            except ExecutionError as error:
                self._run_fp32 = None
                self.notes.append(f"FP32 on ONNX-Runtime was not measured: {error}")
        candidate = self._runs.candidate(remembered, self._lowered)
        comparison.add("lowered", reference, candidate, sample)
        if self.constrained.kept.outputs:
            candidate = self._runs.candidate(remembered, self.constrained)
        comparison.add("constrained", reference, candidate, sample)
        comparison.sample_count += 1
        self._runs.executor.forget_sample()
