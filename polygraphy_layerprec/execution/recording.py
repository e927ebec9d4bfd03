"""From evaluations, as they come, to the tape that the backward sweep reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.divergence.adjoint import Tape, TapeEntry
from polygraphy_layerprec.divergence.coherence import coherent_axes
from polygraphy_layerprec.execution.fast_products import fast_product
from polygraphy_layerprec.execution.node_session import value_of
from polygraphy_layerprec.execution.streams import can_carry_error, is_float, shape_of
from polygraphy_layerprec.model import Graph, Role, WeightBuffer

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnxruntime as ort

    from polygraphy_layerprec.execution.node_evaluation import Evaluation
    from polygraphy_layerprec.model import Node

__all__ = ["TapeRecorder"]


class TapeRecorder:
    """Records the evaluations of one sample at a time."""

    def __init__(self, graph: Graph, *, budget_bytes: int | None = None) -> None:
        self._graph = graph
        self._buffer = WeightBuffer()
        self._reached: set[str] = set()
        self.tape = Tape(self._read_constants, budget_bytes=budget_bytes, product=fast_product)

    def record(self, evaluation: Evaluation) -> None:
        """Appends one evaluation."""
        node = evaluation.node
        tensors = _tensors(evaluation)
        wanted = frozenset(i for i, name in enumerate(node.inputs) if name in self._reached)
        is_layer = evaluation.sums is not None
        captured = frozenset(i for i, n in enumerate(node.captures) if n in self._reached)
        if not is_layer and not wanted and not captured:
            return  # no error comes from here, and none passes
        self._reached |= {n for n in filter(None, node.outputs) if can_carry_error(tensors.get(n))}
        entry = TapeEntry(
            index=node.index,
            op_type=node.op_type,
            domain=node.domain,
            opset=self._graph.opset(node.domain),
            attributes=node.attributes,
            inputs=node.inputs,
            captures=node.captures,
            captured_shapes=tuple(shape_of(tensors.get(name)) for name in node.captures),
            outputs=node.outputs,
            input_shapes=tuple(shape_of(tensors.get(name)) for name in node.inputs),
            output_shapes=tuple(shape_of(tensors.get(name)) for name in node.outputs),
            wanted=wanted,
            wanted_captures=captured,
            is_layer=is_layer,
            gains=evaluation.gains,
            coherent_axes=()
            if evaluation.introduced is None
            else self._coherent_axes(node, tensors),
        )
        values = {
            name: value_of(tensor)
            for name, tensor in tensors.items()
            if name not in self._graph.weights and tensor.data_type().startswith("tensor")
        }
        self.tape.record(entry, values, evaluation.error_halves)

    def _coherent_axes(self, node: Node, tensors: Mapping[str, ort.OrtValue]) -> tuple[int, ...]:
        constants = [
            shape_of(tensors[name]) if self._is_float_constant(name, tensors) else None
            for name in node.inputs
        ]
        output = shape_of(tensors.get(node.outputs[0]))
        return coherent_axes(node.op_type, constants, len(output or ()))

    def _is_float_constant(self, name: str, tensors: Mapping[str, ort.OrtValue]) -> bool:
        producer = self._graph.producers.get(name)
        folded = producer is not None and producer.role is Role.FOLDED
        return (name in self._graph.weights or folded) and is_float(tensors[name])

    def finish(self) -> None:
        """Forgets which tensors errors reach, before the next sample."""
        self._reached.clear()

    def _read_constants(self, names: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        weights = [self._graph.weights[name] for name in names]
        self._buffer.reset(weights)
        return {weight.name: weight.read(self._buffer) for weight in weights}


def _tensors(evaluation: Evaluation) -> dict[str, ort.OrtValue]:
    outputs = zip(evaluation.node.outputs, evaluation.outputs, strict=True)
    made = {name: output for name, output in outputs if name and output is not None}
    return {**evaluation.inputs, **made}
