"""From node runs, as they come, to the tape that the backward sweep reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.divergence.adjoint import Tape, TapeEntry
from polygraphy_layerprec.divergence.backward_sweep import names_read
from polygraphy_layerprec.divergence.coherence import coherent_axes
from polygraphy_layerprec.divergence.probes import sweep_work
from polygraphy_layerprec.execution.background import background_for_host
from polygraphy_layerprec.execution.kernels.device import current_device
from polygraphy_layerprec.execution.kernels.fast_products import fast_product
from polygraphy_layerprec.execution.kernels.node_session import value_of
from polygraphy_layerprec.execution.kernels.weights_ahead import WeightsAhead
from polygraphy_layerprec.execution.kernels.weights_on_device import constants_from
from polygraphy_layerprec.execution.parallel import run_side_by_side
from polygraphy_layerprec.execution.streams import is_float, shape_of
from polygraphy_layerprec.model import Graph, Role, WeightBuffer

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnxruntime as ort

    from polygraphy_layerprec.divergence.probes import Target
    from polygraphy_layerprec.execution.emulation.node_comparer import NodeRun
    from polygraphy_layerprec.execution.probes.error_paths import ErrorPaths
    from polygraphy_layerprec.model import Node

__all__ = ["TapeRecorder", "tensors_of"]


class TapeRecorder:
    """Records the node runs of one sample at a time."""

    def __init__(
        self,
        graph: Graph,
        paths: ErrorPaths,
        *,
        budget_bytes: int | None = None,
        ahead: WeightsAhead | None = None,
    ) -> None:
        """Prepares to record.

        Args:
            graph: The graph.
            paths: Where errors go.
            budget_bytes: Memory for what is recorded; beyond it, that is kept on disk.
            ahead: What reads weights ahead, if others read with it between the sweeps.
        """
        self._graph = graph
        self._buffer = WeightBuffer()
        self._ahead = ahead or WeightsAhead()
        self._constants: list[tuple[str, ...]] = []
        self._is_sweeping = False
        self._paths = paths
        self._sizes: list[int] = []
        self.tape = Tape(
            self._read_constants,
            budget_bytes=budget_bytes,
            product=fast_product,
            side_by_side=run_side_by_side,
            background=background_for_host,
        )

    def record(self, node_run: NodeRun) -> None:
        """Appends the run of one node."""
        node = node_run.node
        tensors = tensors_of(node_run)
        is_layer = node_run.sums is not None
        paths = self._paths.follow(node, tensors, is_layer=is_layer)
        if not is_layer and not paths.are_reached:
            return  # no error comes from here, and none passes
        entry = TapeEntry(
            index=node.index,
            op_type=node.op_type,
            domain=node.domain,
            opset=node.opset,
            attributes=node.attributes,
            inputs=node.inputs,
            captures=node.captures,
            captured_shapes=tuple(shape_of(tensors.get(name)) for name in node.captures),
            outputs=node.outputs,
            input_shapes=tuple(shape_of(tensors.get(name)) for name in node.inputs),
            output_shapes=tuple(shape_of(tensors.get(name)) for name in node.outputs),
            wanted=paths.wanted,
            wanted_captures=paths.captured,
            decided=paths.decided,
            steps=paths.steps,
            step_gain=node_run.step_gain,
            is_layer=is_layer,
            gains=node_run.gains,
            coherent_axes=() if node_run.introduced is None else self._coherent_axes(node, tensors),
        )
        names = names_read(entry)
        self._note_constants(names)
        read = set(names) - self._graph.weights.keys()
        values = {
            name: value_of(tensor)
            for name, tensor in tensors.items()
            if name in read and tensor.data_type().startswith("tensor")
        }
        self._sizes.append(sum(math.prod(shape or ()) for shape in entry.output_shapes))
        self.tape.record(entry, values, node_run.errors)

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

    def targets(self, outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, Target]:
        """Returns where the errors of `outputs` are judged: see `ErrorPaths.targets`."""
        return self._paths.targets(outputs)

    @property
    def sweep_work(self) -> int:
        """What one sweep over the recording costs: see `probe_count`."""
        return sweep_work(self._sizes)

    def finish(self) -> None:
        """Forgets what the recording cost, before the next sample."""
        self._sizes.clear()
        self._constants.clear()
        self._is_sweeping = False

    def _note_constants(self, names: Sequence[str]) -> None:
        constants = tuple(name for name in names if name in self._graph.weights)
        if constants and current_device() is None:  # which keeps weights itself
            self._constants.append(constants)

    def _read_constants(self, names: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        if not self._is_sweeping:
            self._is_sweeping = True
            known = self._graph.weights
            self._ahead.expect((n, [known[name] for name in n]) for n in reversed(self._constants))
        weights = [self._graph.weights[name] for name in names]
        read = self._ahead.take(tuple(names)).exact
        self._buffer.reset(weight for weight in weights if weight.name not in read)
        return constants_from(
            weights,
            lambda weight: read[weight.name] if weight.name in read else weight.read(self._buffer),
        )


def tensors_of(node_run: NodeRun) -> dict[str, ort.OrtValue]:
    """Returns what a node took and what it made, by name."""
    outputs = zip(node_run.node.outputs, node_run.outputs, strict=True)
    made = {name: output for name, output in outputs if name and output is not None}
    return {**node_run.inputs, **made}
