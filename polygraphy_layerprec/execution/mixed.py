"""A model in mixed precision: a chosen set of layers in FP32, every other one lowered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.emulated import last_uses
from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.node_session import NodeRunner, tensor_of, value_of
from polygraphy_layerprec.execution.streams import Streams, hands_on_fed, is_float, writable_array
from polygraphy_layerprec.execution.weights_in_use import WeightsInUse
from polygraphy_layerprec.model import Role
from polygraphy_layerprec.model.operators import draws_random_numbers
from polygraphy_layerprec.precision import round_flat

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["MixedExecutor"]

Sample = Mapping[str, np.ndarray[Any, Any]]


class MixedExecutor:
    """Runs a model with some of its layers in low precision, emulated on a CPU.

    Between two FP32 layers a tensor stays exact; a lowered layer rounds what it takes, its
    weights, and what it makes.
    """

    def __init__(self, graph: Graph, precision: Precision) -> None:
        self._graph = graph
        self._precision = precision
        self._runner = NodeRunner(graph)
        self._weights = WeightsInUse(graph)
        self._last_uses = last_uses(graph)
        self._no_layers: set[int] = set()
        self._sample: Sample = {}
        # By identity of the sample, which is kept lest another takes its identity, and by node.
        self._draws: dict[tuple[int, int], tuple[Sample, Sequence[ort.OrtValue | None]]] = {}

    def run(
        self,
        sample: Sample,
        lowered: Callable[[Node], bool],
        *,
        exact_inputs: bool = False,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Returns the outputs by name, those that could be computed and are tensors.

        Args:
            sample: An array for each input of the model.
            lowered: Which layers run in low precision; asked of nodes that compute floats alone.
            exact_inputs: Whether a lowered layer takes what other layers made as it is, so that it
                adds its introduced error alone.
        """
        self._sample = sample
        tensors: dict[str, Streams] = {}
        for name, values in sample.items():
            tensor = tensor_of(values)
            tensors[name] = Streams(tensor, tensor, tensor, fed=is_float(tensor))
        for node in self._graph.nodes:
            weights = self._weights.load(node)
            if all(name in tensors or name in weights for name in node.sources):
                # The comparison named what cannot run; what needs it is missing from the outputs.
                with contextlib.suppress(NodeError):
                    self._run_node(node, weights, tensors, lowered, exact_inputs=exact_inputs)
            for name in self._last_uses.get(node.index, ()):
                tensors.pop(name, None)
        return {
            name: value_of(tensors[name].candidate)
            for name in self._graph.outputs
            if name in tensors and tensors[name].candidate.data_type().startswith("tensor")
        }

    def forget_sample(self) -> None:
        """Frees the random numbers that were drawn for samples: they will not be run again."""
        self._sample = {}
        self._draws.clear()

    def _run_node(
        self,
        node: Node,
        weights: dict[str, ort.OrtValue],
        tensors: dict[str, Streams],
        lowered: Callable[[Node], bool],
        *,
        exact_inputs: bool,
    ) -> None:
        streams = {name: tensors[name] for name in node.sources if name not in weights}
        floats = [stream for stream in streams.values() if is_float(stream.candidate)]
        exact_feeds = {**weights, **{name: stream.candidate for name, stream in streams.items()}}
        low = node.role is Role.COMPUTES and node.index not in self._no_layers and lowered(node)
        feeds = exact_feeds
        if low:
            entering = {
                name: stream.candidate
                if exact_inputs and stream.computed
                else stream.enter(self._precision)
                for name, stream in streams.items()
            }
            feeds = {**weights, **self._weights.round(self._precision)[0], **entering}
        outputs = self._outputs(node, feeds)
        if low and not any(output is not None and is_float(output) for output in outputs):
            # What gives no floats is not ranked, so nobody could keep it: it takes what it gets.
            self._no_layers.add(node.index)
            low, outputs = False, self._outputs(node, exact_feeds)
        float_weights = any(is_float(weight) for weight in weights.values())
        moved_on_grid = bool(floats) and not float_weights and all(s.on_grid for s in floats)
        for name, output in zip(node.outputs, outputs, strict=True):
            if not name or output is None:
                continue
            made = output
            if low and is_float(output):
                values, made = writable_array(output)
                round_flat(values.reshape(-1), values.reshape(-1), self._precision)
            exact = node.role is Role.EXACT
            tensors[name] = Streams(
                made,
                made,
                made,
                on_grid=low or (exact and moved_on_grid),
                computed=node.role is Role.COMPUTES or any(s.computed for s in floats),
                # What an FP32 layer hands to a lowered one is cast, not clipped as weights are.
                fed=hands_on_fed(node, floats) if exact else node.role is Role.COMPUTES,
            )

    def _outputs(
        self, node: Node, feeds: Mapping[str, ort.OrtValue]
    ) -> Sequence[ort.OrtValue | None]:
        if not draws_random_numbers(node.op_type, node.domain):
            return self._runner.run(node, feeds)
        # Runs of one sample share their noise: it must not pass for an error.
        key = id(self._sample), node.index
        if key not in self._draws:
            self._draws[key] = self._sample, self._runner.run(node, feeds)
        _, drawn = self._draws[key]
        return [None if o is None else tensor_of(value_of(o).copy()) for o in drawn]
