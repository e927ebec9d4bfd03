"""Reference and candidate side by side, node by node, with low precision emulated on a CPU.

Each node runs once for the reference, once for the candidate, and once more for the introduced
error where rounded weights or inputs make one; the tensors are reduced to sums on the spot and
dropped after their last use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.arrays import on_host
from polygraphy_layerprec.execution.background import background_for_host
from polygraphy_layerprec.execution.emulation.branches import (
    branches_taken,
    is_flipped,
    needed_sources,
)
from polygraphy_layerprec.execution.emulation.node_comparer import NodeComparer, NodeRun
from polygraphy_layerprec.execution.emulation.quantized_comparer import QuantizedComparer
from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.ort_tensors import value_of
from polygraphy_layerprec.execution.streams import (
    Streams,
    entering_streams,
    is_float,
    union_of_overflows,
)
from polygraphy_layerprec.model.quantized import QuantizedGraph

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.pair_fit import PairFit
    from polygraphy_layerprec.execution.background import Background
    from polygraphy_layerprec.execution.emulation.node_run import NodeResult
    from polygraphy_layerprec.execution.kernels.weights_ahead import WeightsAhead
    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.plan.widths import Plan

__all__ = ["EmulatedExecutor", "SampleComparison"]

_KEPT_BYTES: Final = 4096
"""Smaller weights stay in memory of their own."""
_FLOATS: Final = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True)
class SampleComparison:
    """The outputs of one sample, and what could not be run."""

    reference: Mapping[str, np.ndarray[Any, Any]]
    """Reference outputs by name, those that could be computed and are tensors."""

    candidate: Mapping[str, np.ndarray[Any, Any]]
    """Candidate outputs by name."""

    harmful_overflows: frozenset[int]
    """Indices of nodes whose overflow reaches an output."""

    nonfinite_from: frozenset[int]
    """Indices of the layers that handed a NaN or infinity on to an output."""

    failures: Mapping[int, str]
    """Why a node could not run, by node index."""

    flips: frozenset[int]
    """Indices of `If` nodes where reference and candidate take different branches."""

    fits: Mapping[str, PairFit]
    """How the scales of a quantised model fit the values, by the pair's name."""


class EmulatedExecutor:
    """Compares a model with itself in low precision, on ONNX-Runtime's CPU kernels."""

    def __init__(
        self,
        plan: Plan,
        *,
        needs_gains: Callable[[Node], bool] = lambda _: False,
        keep_errors: bool = False,
        ahead: WeightsAhead | None = None,
    ) -> None:
        """Prepares to run a graph.

        Args:
            plan: What becomes of the tensors of the candidate.
            needs_gains: The nodes whose gains are to be probed, at the cost of a run an input.
            keep_errors: Whether node runs carry the introduced errors, element by element.
            ahead: What reads weights ahead, if others read with it between the samples.
        """
        self._graph = plan.graph
        kind = QuantizedComparer if isinstance(plan.graph, QuantizedGraph) else NodeComparer
        self._comparer = kind(plan, needs_gains=needs_gains, keep_errors=keep_errors, ahead=ahead)

    def compare(
        self,
        sample: Mapping[str, np.ndarray[Any, Any]],
        observe: Callable[[NodeRun], None],
        tell: Callable[[Node], None] = lambda _: None,
    ) -> SampleComparison:
        """Runs one sample through reference and candidate.

        Args:
            sample: An array for each input of the model.
            observe: Called for each node that ran, in execution order, on a thread of its own:
                others run meanwhile.
            tell: Called after each node that ran.

        Raises:
            ExecutionError: If ONNX-Runtime has no tensors of an input's type.
        """
        self._comparer.start()
        with background_for_host() as background:
            return self._compare(sample, _Observation(background, observe, tell))

    def _compare(
        self, sample: Mapping[str, np.ndarray[Any, Any]], observation: _Observation
    ) -> SampleComparison:
        tensors = entering_streams(self._graph, sample)
        lost: dict[str, str] = {}
        failures: dict[int, str] = {}
        flips: set[int] = set()
        for node in self._graph.nodes:
            taken, by_candidate = branches_taken(self._graph, node, tensors)
            if taken or by_candidate:
                needed = needed_sources(self._graph, node, tensors)
                culprit = next((lost[name] for name in needed if name in lost), None)
                if culprit is None:
                    try:
                        made = self._run(node, tensors, observation, taken=taken)
                    except NodeError as error:
                        failures[node.index] = str(error)
                        culprit = node.name
                    else:
                        tensors.update((n, s) for n, s in zip(node.outputs, made, strict=True) if s)
                else:
                    failures[node.index] = f"it needs the result of {culprit!r}, which failed"
                if culprit is not None:
                    lost.update(dict.fromkeys(filter(None, node.outputs), culprit))
            flips |= {node.index} if taken and is_flipped(self._graph, node, tensors) else set()
            for name in self._graph.last_uses.get(node.index, ()):
                tensors.pop(name, None)
        return self._collect(tensors, failures, frozenset(flips))

    def _run(
        self,
        node: Node,
        tensors: Mapping[str, Streams],
        observation: _Observation,
        *,
        taken: bool,
    ) -> list[Streams | None]:
        if not taken:
            return self._comparer.run_candidate(node, tensors)
        result = self._comparer.compare(node, tensors)
        observation.add(node, result)
        if self._may_be_read_again(node, tensors, result.streams):
            observation.background.catch_up()
        return result.streams

    def _may_be_read_again(
        self, node: Node, tensors: Mapping[str, Streams], made: Sequence[Streams | None]
    ) -> bool:
        """Whether those who observe may read large weights, whose memory is used again.

        They do for what takes or makes integers that stand for floats.
        """
        weights = [
            self._graph.weights[name] for name in node.sources if name in self._graph.weights
        ]
        if all(weight.nbytes <= _KEPT_BYTES for weight in weights):
            return False
        streams = [tensors[name] for name in node.sources if name in tensors]
        return not all(weight.dtype in _FLOATS for weight in weights) or not all(
            is_float(stream.reference) for stream in (*streams, *filter(None, made))
        )

    def _collect(
        self,
        tensors: Mapping[str, Streams],
        failures: Mapping[int, str],
        flips: frozenset[int],
    ) -> SampleComparison:
        streams = {
            name: tensors[name]
            for name in self._graph.outputs
            if name in tensors and tensors[name].reference.data_type().startswith("tensor")
        }
        return SampleComparison(
            {name: on_host(value_of(stream.reference)) for name, stream in streams.items()},
            {name: on_host(value_of(stream.candidate)) for name, stream in streams.items()},
            union_of_overflows(streams),
            frozenset(
                stream.nonfinite_from
                for stream in streams.values()
                if stream.nonfinite_from is not None
            ),
            failures,
            flips,
            self._comparer.take_fits(),
        )


@dataclass(frozen=True, slots=True)
class _Observation:
    """Hands on what comes of nodes, summed up in the background."""

    background: Background
    observe: Callable[[NodeRun], None]
    tell: Callable[[Node], None]

    def add(self, node: Node, result: NodeResult) -> None:
        self.background.put(lambda: self.observe(result.finish()), result.nbytes)
        self.tell(node)
