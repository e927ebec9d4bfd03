"""Runs a model as a plan says: every tensor in its width, emulated on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from polygraphy_layerprec.arrays import on_host
from polygraphy_layerprec.execution.emulation.checkpoints import Checkpoint
from polygraphy_layerprec.execution.emulation.lowered_nodes import LoweredNodes
from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.cast_rounding import CastRounder
from polygraphy_layerprec.execution.kernels.device_runner import runner_of
from polygraphy_layerprec.execution.kernels.ort_tensors import (
    fed_tensor,
    placed_tensor,
    tensor_of,
    value_of,
)
from polygraphy_layerprec.execution.kernels.row_lookup import narrow_lookup
from polygraphy_layerprec.execution.kernels.weights_on_device import weights_of
from polygraphy_layerprec.execution.streams import is_float, rounded_tensor, writable_array
from polygraphy_layerprec.model.operators import (
    PRODUCTS,
    Behavior,
    behavior_of,
)
from polygraphy_layerprec.plan.widths import Plan, Verdict, Width, reads_of
from polygraphy_layerprec.precision import TF32
from polygraphy_layerprec.rounding import round_flat

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.execution.emulation.checkpoints import Checkpoints
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["HeldTensors", "PlannedExecutor"]

Sample = Mapping[str, np.ndarray[Any, Any]]

_FACTOR_COUNTS: Final = {"Attention": 3, "Einsum": None}


@dataclass(slots=True)
class _Held:
    """One tensor on its way through the graph."""

    tensor: ort.OrtValue
    """Its value."""

    constant: bool = False
    """Whether it depends on constants alone: those are clipped when they are converted."""

    computed: bool = False
    """Whether a layer made it, if only by way of nodes that move values."""

    rounded: ort.OrtValue | None = None
    """The value in low precision, once a node read it so."""


HeldTensors = dict[str, _Held]


class PlannedExecutor:
    """Executes plans of one graph.

    A tensor that is read in another width than it is made in is cast: variables that leave the
    range become infinite, constants are clipped as builders convert them.
    """

    def __init__(
        self, graph: Graph, precision: Precision, *, tf32: bool = False, weight_bytes: int = 0
    ) -> None:
        """Prepares to run a graph.

        Args:
            graph: The graph.
            precision: The low precision of its plans.
            tf32: Whether the factors of products that stay in FP32 are rounded to TF32, as tensor
                cores do unless it is switched off.
            weight_bytes: Memory for weights that are kept between the runs, in bytes.
        """
        self._tf32 = tf32
        self._graph = graph
        self._precision = precision
        self._rounder = CastRounder(precision)
        self._runner = runner_of(graph)
        self._weights = weights_of(graph, most_bytes=weight_bytes)
        self._lowered = LoweredNodes(graph, precision, self._runner, self._weights)
        self._sample: Sample = {}
        # By identity of the sample, which is kept so that no other takes its identity, and by node.
        self._draws: dict[tuple[int, int], tuple[Sample, Sequence[ort.OrtValue | None]]] = {}

    def run(
        self,
        sample: Sample,
        plan: Plan | None = None,
        *,
        exact_inputs: bool = False,
        on_failure: Callable[[Node, NodeError], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Returns the outputs by name, those that could be computed and are tensors.

        Args:
            sample: An array for each input of the model.
            plan: Which tensors are in low precision; none where there is no plan.
            exact_inputs: Whether a lowered layer takes what other layers made as it is, so that it
                adds its introduced error alone.
            on_failure: Called with each node that fails; what needs it is missing from the
                outputs.
            checkpoints: Those of this sample: nodes that an earlier plan ran alike do not run
                again.

        Raises:
            ExecutionError: If ONNX-Runtime has no tensors of an input's type.
        """
        self._sample = sample
        self._weights.start()
        start, held = self._start(sample, plan, checkpoints, exact_inputs=exact_inputs)
        for position, node in enumerate(self._graph.nodes[start:], start):
            if plan and checkpoints and checkpoints.is_due(position, after=start):
                checkpoints.keep(Checkpoint(position, plan, exact_inputs, dict(held)))
            if self._is_taken(node, held):
                try:
                    self._run_node(node, plan, held, exact_inputs=exact_inputs)
                except NodeError as error:
                    if on_failure is not None:
                        on_failure(node, error)
            for name in self._graph.last_uses.get(node.index, ()):
                held.pop(name, None)
        return self._collect(plan, held)

    def _start(
        self,
        sample: Sample,
        plan: Plan | None,
        checkpoints: Checkpoints | None,
        *,
        exact_inputs: bool,
    ) -> tuple[int, dict[str, _Held]]:
        """Where a run begins, and with what."""
        if plan is not None and checkpoints is not None:
            found = checkpoints.latest(plan, exact_inputs=exact_inputs)
            if found is not None:
                return found.position, cast("dict[str, _Held]", dict(found.held))
        return 0, {name: _Held(fed_tensor(name, values)) for name, values in sample.items()}

    def forget_sample(self) -> None:
        """Frees the random numbers that were drawn for samples: they will not be run again."""
        self._sample = {}
        self._draws.clear()

    def _collect(self, plan: Plan | None, held: Mapping[str, _Held]) -> dict[str, Any]:
        outputs = {}
        for name in self._graph.outputs:
            found = held.get(name)
            if found is None and name in self._graph.weights:
                outputs[name] = self._graph.weights[name].read()
            elif found is not None and found.tensor.data_type().startswith("tensor"):
                low = plan is not None and plan.io_width is Width.LOW and not plan.is_low(name)
                outputs[name] = on_host(value_of(self._cast(found) if low else found.tensor))
        return outputs

    def _is_taken(self, node: Node, held: Mapping[str, _Held]) -> bool:
        return all(self._truth(guard.condition, held) is guard.value for guard in node.guards)

    def _truth(self, condition: str, held: Mapping[str, _Held]) -> bool | None:
        """What a condition says; None where it could not be computed."""
        if condition in self._graph.weights:
            return bool(self._graph.weights[condition].read().reshape(-1)[0])
        found = held.get(condition)
        return None if found is None else bool(value_of(found.tensor).reshape(-1)[0])

    def _run_node(
        self, node: Node, plan: Plan | None, held: dict[str, _Held], *, exact_inputs: bool
    ) -> None:
        if node.branches:
            self._join(node, held)
            return
        weights, given = self._load(node, held)
        variable = [name for name in node.sources if name not in weights]
        if any(name not in given for name in variable):
            return
        if plan is None or node.is_random:
            feeds = {**weights, **{name: given[name].tensor for name in variable}}
            outputs = self._outputs(node, feeds)
        else:
            outputs = self._planned_outputs(node, plan, weights, given, exact_inputs=exact_inputs)
        is_layer = node.is_layer or any(held[name].computed for name in variable)
        for name, output in zip(node.outputs, outputs, strict=True):
            if name and output is not None:
                constant = node.is_constant
                held[name] = _Held(output, constant, computed=is_layer and not constant)

    def _load(
        self, node: Node, held: dict[str, _Held]
    ) -> tuple[dict[str, ort.OrtValue], dict[str, _Held]]:
        """The node's constants, and the other tensors; of a large table the rows that it needs."""

        def computed(name: str) -> ort.OrtValue | None:
            return held[name].tensor if name in held else None

        narrowed = narrow_lookup(self._graph, node, computed)
        if narrowed is None:
            return self._weights.load(node), held
        rows, places = narrowed
        weights = {node.inputs[0]: self._weights.hold(node.inputs[0], rows)}
        return weights, {node.inputs[1]: _Held(places)}

    def _planned_outputs(
        self,
        node: Node,
        plan: Plan,
        weights: dict[str, ort.OrtValue],
        held: dict[str, _Held],
        *,
        exact_inputs: bool,
    ) -> Sequence[ort.OrtValue | None]:
        taken = plan.of(node)
        # With exact inputs, what moves values moves them exactly too.
        low = taken.verdict is Verdict.LOWERED and (
            node.is_layer or node.is_constant or not exact_inputs
        )
        if low:
            weights = {**weights, **self._lowered.low_weights(node, plan, weights)[0]}
        widths = dict(reads_of(node, taken))
        feeds = dict(weights)
        for name in node.sources:
            if name in held:
                is_cast = widths.get(name) is Width.LOW and not plan.is_low(name)
                exact = exact_inputs and held[name].computed
                feeds[name] = self._cast(held[name]) if is_cast and not exact else held[name].tensor
        if not low:
            iterated = self._lowered.run_in_tf32(node, feeds) if self._tf32 else None
            return iterated or self._runner.run(node, self._factors(node, feeds))
        outputs = self._lowered.run(node, plan, feeds)
        if not (node.is_constant or behavior_of(node.op_type, node.domain) is Behavior.COMPUTES):
            return outputs
        return [
            self._rounded(output, saturate=node.is_constant)
            if width is Width.LOW and output is not None
            else output
            for output, width in zip(outputs, taken.outputs, strict=True)
        ]

    def _factors(self, node: Node, feeds: Mapping[str, ort.OrtValue]) -> Mapping[str, ort.OrtValue]:
        if not self._tf32 or node.domain or node.op_type not in {*PRODUCTS, "Attention"}:
            return feeds
        factors = node.inputs[: _FACTOR_COUNTS.get(node.op_type, 2)]  # a bias is added
        return {
            name: rounded_tensor(tensor, TF32) if name in factors else tensor
            for name, tensor in feeds.items()
        }

    def _join(self, node: Node, held: dict[str, _Held]) -> None:
        """Takes on what the branch that ran gives."""
        truth = self._truth(node.inputs[0], held)
        if truth is None:
            return
        results = node.branches[0 if truth else 1]
        for name, result in zip(node.outputs, results, strict=False):
            if result in self._graph.weights:
                held[name] = _Held(placed_tensor(self._graph.weights[result].read()), constant=True)
            elif result in held:
                held[name] = held[result]

    def _cast(self, held: _Held) -> ort.OrtValue:
        if held.rounded is None:
            held.rounded = rounded_tensor(held.tensor, self._precision, saturate=held.constant)
        return held.rounded

    def _rounded(self, output: ort.OrtValue, *, saturate: bool) -> ort.OrtValue:
        if not is_float(output):
            return output
        if not saturate and self._rounder.round_in_place(output):
            return output
        values, made = writable_array(output)
        flat = values.reshape(-1)
        round_flat(flat, flat, self._precision, saturate=saturate)
        return made

    def _outputs(
        self, node: Node, feeds: Mapping[str, ort.OrtValue]
    ) -> Sequence[ort.OrtValue | None]:
        if not node.is_random:
            return self._runner.run(node, feeds)
        # Runs of one sample share their noise: it must not pass for an error.
        key = id(self._sample), node.index
        if key not in self._draws:
            self._draws[key] = self._sample, self._runner.run(node, feeds)
        _, drawn = self._draws[key]
        return [None if o is None else tensor_of(value_of(o).copy()) for o in drawn]
