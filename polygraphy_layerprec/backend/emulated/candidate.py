"""A whole model in low precision, ready to run sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.backend.emulated.placement import running_on
from polygraphy_layerprec.execution import EmulatedExecutor, ExecutionError, PlannedExecutor
from polygraphy_layerprec.matching.constraint_matching import plan_of
from polygraphy_layerprec.precision import PRECISIONS

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.kernels.device import Device
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import RequestedPrecisions

__all__ = ["Candidate"]

Sample = Mapping[str, np.ndarray[Any, Any]]


class Candidate:
    """A model whose constrained layers are in FP32 and all others in low precision, emulated.

    Raises:
        ExecutionError: If a constraint matches no layer of the model.
    """

    def __init__(
        self, graph: Graph, asked: RequestedPrecisions, device: Device | None = None
    ) -> None:
        """Prepares a model to run.

        Args:
            graph: The model.
            asked: Which layers stay in FP32.
            device: What runs its nodes; None for the CPU.
        """
        self._graph = graph
        self.device = device
        self._precision = PRECISIONS[asked.precision]
        with running_on(device):
            self._executor = PlannedExecutor(graph, self._precision)
        self._plan = plan_of(graph, asked)
        self._no_tensors: set[str] = set()

    @property
    def graph(self) -> Graph:
        """The model."""
        return self._graph

    @property
    def layer_count(self) -> int:
        """Layers of the model, as a ranking counts them."""
        return len(self._graph.layers)

    def run(self, sample: Sample) -> dict[str, np.ndarray[Any, Any]]:
        """Returns the outputs by name, in the model's order, those that are tensors.

        Args:
            sample: An array for each input of the model.

        Raises:
            ExecutionError: If an output cannot be computed; the text names the node that fails.
        """
        with running_on(self.device):
            return self._outputs(sample)

    def _outputs(self, sample: Sample) -> dict[str, np.ndarray[Any, Any]]:
        computed = self._executor.run(sample, self._plan)
        constants = self._graph.weights.keys() & set(self._graph.outputs)
        missing = {name for name in self._graph.outputs if name} - {*computed, *constants}
        if missing - self._no_tensors:
            self._no_tensors = missing - self._lost(sample, missing)
        return {
            name: computed[name] if name in computed else self._graph.weights[name].read()
            for name in self._graph.outputs
            if name in computed or name in constants
        }

    def _lost(self, sample: Sample, missing: set[str]) -> set[str]:
        """Returns those of the missing outputs that would be tensors: none, or it raises."""
        executor = EmulatedExecutor(self._plan)
        failures = executor.compare(sample, lambda _: None).failures
        producers = self._graph.producers
        lost = {name for name in missing if producers[name].index in failures}
        # What fails with these very precisions, as where a shape is computed from rounded floats.
        lost |= missing & self._executor.run(sample).keys()
        if not lost:
            return lost
        first = next(name for name in self._graph.outputs if name in lost)
        reason = f"it runs in FP32, but not with values of {self._precision.name}"
        if failures:
            culprit = self._graph.nodes[min(failures)]
            reason = f"{culprit.op_type} {culprit.name!r} fails: {failures[culprit.index]}"
        raise ExecutionError(
            f"{len(lost)} of {len(self._graph.outputs)} outputs cannot be computed, {first!r} the "
            f"first.\nNote: {reason}.\n"
            f"Choose outputs that do not need it, with `--onnx-outputs`."
        )
