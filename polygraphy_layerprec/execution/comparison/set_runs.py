"""Runs of one sample with sets of layers in FP32: what they share is run once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.divergence.activation_store import half_of_free_memory
from polygraphy_layerprec.execution.emulation.checkpoints import Checkpoints
from polygraphy_layerprec.execution.emulation.quantized_runs import executor_for
from polygraphy_layerprec.plan.quantized_planning import planner_for
from polygraphy_layerprec.precision import is_floating

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.plan import KeptLayers, Plan, Target
    from polygraphy_layerprec.plan.planning import Planner
    from polygraphy_layerprec.plan.quantized_planning import QuantizedPlanner
    from polygraphy_layerprec.precision import Precision

__all__ = ["MOST_CHECKPOINT_BYTES", "RememberedSample", "SetRuns"]

Sample = Mapping[str, np.ndarray[Any, Any]]

MOST_CHECKPOINT_BYTES: Final = 1 << 29
"""For all samples of a process; what does not fit is computed again."""

_MOST_WEIGHT_BYTES: Final = 1 << 30
"""For weights, exact and rounded; what does not fit is read and rounded for each set."""


@dataclass(frozen=True, slots=True)
class RememberedSample:
    """A sample, and what was computed of it."""

    sample: Sample
    """An array for each input."""

    reference: Sample
    """The outputs in FP32."""

    checkpoints: Checkpoints
    """Where its runs stood on their way."""


class SetRuns:
    """Runs a model on samples, as it is and with sets of layers in FP32."""

    def __init__(
        self, graph: Graph, executor: PlannedExecutor, planner: Planner | QuantizedPlanner
    ) -> None:
        self.executor = executor
        self._planner = planner
        self._node_count = len(graph.nodes)

    @classmethod
    def of(cls, graph: Graph, precision: Precision, target: Target) -> SetRuns:
        """Returns the runs of a model, quantised or not, that is planned for a target."""
        free = half_of_free_memory()
        weight_bytes = _MOST_WEIGHT_BYTES if free is None else min(_MOST_WEIGHT_BYTES, free // 2)
        executor = executor_for(graph, precision, weight_bytes=weight_bytes)
        return cls(graph, executor, planner_for(graph, precision, target))

    def plan(self, kept: KeptLayers) -> Plan:
        """Returns what becomes of the model with these layers in FP32."""
        return self._planner.plan(kept)

    def remember(self, sample: Sample, *, most_bytes: int) -> RememberedSample:
        """Runs the reference on a sample.

        Args:
            sample: An array for each input, which is kept.
            most_bytes: Memory for its checkpoints, in bytes.
        """
        checkpoints = Checkpoints(self._node_count, most_bytes=most_bytes)
        return RememberedSample(sample, self.executor.run(sample), checkpoints)

    def candidate(
        self, remembered: RememberedSample, plan: Plan, *, exact_inputs: bool = False
    ) -> Sample:
        """Returns the outputs that a plan gives, those that could be computed."""
        return self.executor.run(
            remembered.sample,
            plan,
            exact_inputs=exact_inputs,
            checkpoints=remembered.checkpoints,
        )

    def whole_candidate(
        self, remembered: RememberedSample, plan: Plan, *, exact_inputs: bool = False
    ) -> Sample:
        """Returns the same, where a float output that is missing has no element: a total loss."""
        candidate = self.candidate(remembered, plan, exact_inputs=exact_inputs)
        lost = {
            name: np.empty((*expected.shape, 0), expected.dtype)
            for name, expected in remembered.reference.items()
            if is_floating(expected.dtype) and name not in candidate
        }
        return {**candidate, **lost}
