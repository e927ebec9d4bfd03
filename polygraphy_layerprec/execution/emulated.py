"""Reference and candidate side by side, node by node, with low precision emulated on a CPU.

Each node runs once for the reference, once for the candidate, and once more for the introduced
error where rounded weights or inputs make one; the tensors are reduced to sums on the spot and
dropped after their last use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.node_evaluation import Evaluation, NodeEvaluator
from polygraphy_layerprec.execution.node_session import tensor_of, value_of
from polygraphy_layerprec.execution.streams import (
    Streams,
    is_float,
    largest_finite,
    union_of_overflows,
)

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["EmulatedExecutor", "SampleComparison", "last_uses"]


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


class EmulatedExecutor:
    """Compares a model with itself in low precision, on ONNX-Runtime's CPU kernels."""

    def __init__(
        self,
        graph: Graph,
        precision: Precision,
        *,
        needs_gains: Callable[[Node], bool] = lambda _: False,
        keep_errors: bool = False,
    ) -> None:
        """Prepares to run `graph`.

        Args:
            graph: The model.
            precision: The low precision.
            needs_gains: The nodes whose gains are to be probed, at the cost of a run an input.
            keep_errors: Whether evaluations carry the introduced errors, element by element.
        """
        self._graph = graph
        self._evaluator = NodeEvaluator(
            graph, precision, needs_gains=needs_gains, keep_errors=keep_errors
        )
        self._last_uses = last_uses(graph)

    def compare(
        self,
        sample: Mapping[str, np.ndarray[Any, Any]],
        observe: Callable[[Evaluation], None],
    ) -> SampleComparison:
        """Runs one sample through reference and candidate.

        Args:
            sample: An array for each input of the model.
            observe: Called after each node that ran, in execution order.
        """
        tensors = {name: _feed(values) for name, values in sample.items()}
        lost: dict[str, str] = {}
        failures: dict[int, str] = {}
        for node in self._graph.nodes:
            culprit = next((lost[name] for name in node.sources if name in lost), None)
            if culprit is None:
                try:
                    evaluation, made = self._evaluator.evaluate(node, tensors)
                except NodeError as error:
                    failures[node.index] = str(error)
                    culprit = node.name
                else:
                    tensors.update((n, s) for n, s in zip(node.outputs, made, strict=True) if s)
                    observe(evaluation)
            else:
                failures[node.index] = f"it needs the result of {culprit!r}, which failed"
            if culprit is not None:
                lost.update(dict.fromkeys(filter(None, node.outputs), culprit))
            for name in self._last_uses.get(node.index, ()):
                tensors.pop(name, None)
        return self._collect(tensors, failures)

    def _collect(
        self, tensors: Mapping[str, Streams], failures: Mapping[int, str]
    ) -> SampleComparison:
        streams = {
            name: tensors[name]
            for name in self._graph.outputs
            if name in tensors and tensors[name].reference.data_type().startswith("tensor")
        }
        return SampleComparison(
            {name: value_of(stream.reference) for name, stream in streams.items()},
            {name: value_of(stream.candidate) for name, stream in streams.items()},
            union_of_overflows(streams),
            frozenset(
                stream.nonfinite_from
                for stream in streams.values()
                if stream.nonfinite_from is not None
            ),
            failures,
        )


def last_uses(graph: Graph) -> dict[int, list[str]]:
    """Returns the tensors that nobody needs any more once a node ran, by the node's index."""
    last = {name: node.index for node in graph.nodes for name in (*node.outputs, *node.sources)}
    uses: dict[int, list[str]] = {}
    for name in last.keys() - set(graph.outputs):
        uses.setdefault(last[name], []).append(name)
    return uses


def _feed(values: np.ndarray[Any, Any]) -> Streams:
    tensor = tensor_of(values)
    if not is_float(tensor):
        return Streams(tensor, tensor, tensor)
    return Streams(tensor, tensor, tensor, fed=True, max_abs=largest_finite(values))
