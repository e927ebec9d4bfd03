"""Runs of one sample that a verification compares: the reference, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from polygraphy_layerprec.execution.comparison.reference_check import check_against_reference
from polygraphy_layerprec.execution.comparison.set_runs import MOST_CHECKPOINT_BYTES, SetRuns
from polygraphy_layerprec.execution.emulation.canary import check_emulation
from polygraphy_layerprec.execution.emulation.quantized_runs import executor_for
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.matching.constraint_matching import kept_layers_of, planner_of
from polygraphy_layerprec.model.quantized import QuantizedGraph
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import precision_named

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import RequestedPrecisions

__all__ = ["CandidateName", "CandidateOutputs", "CandidateRuns", "Runner"]

Sample = Mapping[str, np.ndarray[Any, Any]]
CandidateName = Literal["fp32", "lowered", "constrained"]
"""The model in FP32 on a backend, with every layer lowered, and with some kept in FP32."""

Runner = Callable[[Sample], Mapping[str, np.ndarray[Any, Any]]]
"""Runs the FP32 model on a backend."""


@dataclass(frozen=True, slots=True)
class CandidateOutputs:
    """The outputs of the reference and of all candidates, for one sample."""

    reference: Sample
    """Those in FP32, node by node."""

    candidates: Mapping[CandidateName, Sample]
    """Those of each candidate that was run."""

    note: str
    """Why the whole model was not run on the backend; empty if it was."""


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
        self._graph = graph
        executor = executor_for(graph, precision_named(asked.precision), tf32=tf32)
        self._runs = SetRuns(graph, executor, planner_of(graph, asked))
        self._lowered = self._runs.plan(KeptLayers())
        self.constrained = self._runs.plan(kept_layers_of(graph, asked.constraints))
        self._run_fp32 = run_fp32
        self._is_checked = False

    def run(self, sample: Sample, *, with_fp32: bool = True) -> CandidateOutputs:
        """Returns the outputs of all candidates.

        Args:
            sample: An array for each input.
            with_fp32: Whether the whole model is run on the backend as well.

        Raises:
            ExecutionError: If a quantised model was not made of the reference that it is compared
                with.
        """
        remembered = self._runs.remember(sample, most_bytes=MOST_CHECKPOINT_BYTES)
        if isinstance(self._graph, QuantizedGraph) and not self._is_checked:
            check_against_reference(self._graph, sample, remembered.reference)
            self._is_checked = True
        candidates: dict[CandidateName, Sample] = {}
        note = ""
        if self._run_fp32 is not None and with_fp32:
            try:
                candidates["fp32"] = self._run_fp32(sample)
            except ExecutionError as error:
                note = f"FP32 on ONNX-Runtime was not measured: {error}"
        candidate = self._runs.candidate(remembered, self._lowered)
        candidates["lowered"] = candidate
        if self.constrained.kept.outputs:
            candidate = self._runs.candidate(remembered, self.constrained)
        candidates["constrained"] = candidate
        self._runs.executor.forget_sample()
        return CandidateOutputs(remembered.reference, candidates, note)
