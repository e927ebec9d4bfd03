"""A lowered layer as a builder runs it: folded, unrolled, or simply on rounded inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from polygraphy_layerprec.arrays import namespace_of, on_host
from polygraphy_layerprec.divergence.rules.cells import Multiply, Rounding, exactly
from polygraphy_layerprec.divergence.rules.recurrent import run_recurrent, takes_default_steps
from polygraphy_layerprec.execution.emulation.loops import body_graph, run_loop, run_scan
from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.device import on_the_host
from polygraphy_layerprec.execution.kernels.device_runner import fetched
from polygraphy_layerprec.execution.kernels.ort_tensors import (
    placed,
    placed_tensor,
    tensor_of,
    value_of,
)
from polygraphy_layerprec.model import Role
from polygraphy_layerprec.model.operators import ITERATING, RECURRENT
from polygraphy_layerprec.plan.batch_norm import (
    epsilon_of,
    fold_parameters,
    is_folded,
    normalize_in_steps,
    parameter_names,
)
from polygraphy_layerprec.plan.widths import Target, Width
from polygraphy_layerprec.precision import TF32
from polygraphy_layerprec.rounding import round_to_precision

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.execution.kernels.device_runner import Runner
    from polygraphy_layerprec.execution.kernels.weights_in_use import WeightsInUse
    from polygraphy_layerprec.execution.kernels.weights_on_device import WeightsOnDevice
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.plan.widths import Plan
    from polygraphy_layerprec.precision import Precision

__all__ = ["LoweredNodes"]


class LoweredNodes:
    """Runs the lowered layers of one graph."""

    def __init__(
        self,
        graph: Graph,
        precision: Precision,
        runner: Runner,
        weights: WeightsInUse | WeightsOnDevice,
    ) -> None:
        self._graph = graph
        self._precision = precision
        self._runner = runner
        self._weights = weights
        self._folded: dict[int, Node] = {}
        self._bodies: dict[tuple[int, Target | None], Any] = {}

    def low_weights(
        self, node: Node, plan: Plan, loaded: Mapping[str, ort.OrtValue]
    ) -> tuple[dict[str, ort.OrtValue], float]:
        """Returns the weights of a lowered node that change, and the largest magnitude of all.

        Args:
            node: The node.
            plan: What says which of its weights are in low precision.
            loaded: Its exact weights, which may be gone afterwards.
        """
        if is_folded(self._graph, node):
            return self._folded_weights(node, loaded)
        if self._is_unrolled_norm(node):
            return {}, 0.0  # rounded in steps
        low = {
            name
            for name, width in zip(node.inputs, plan.of(node).inputs, strict=True)
            if width is Width.LOW
        }
        return self._weights.round(self._precision, low)

    def run(
        self, node: Node, plan: Plan, feeds: Mapping[str, ort.OrtValue]
    ) -> list[ort.OrtValue | None]:
        """Returns the outputs of a lowered node from rounded inputs and weights, not yet rounded.

        What iterates is rounded inside, at every step.

        Args:
            node: The node.
            plan: What it is part of.
            feeds: A value for each of its sources.

        Raises:
            NodeError: As `NodeRunner.run`.
        """
        try:
            return self._run(node, plan, feeds)
        except (LookupError, TypeError, ValueError) as error:
            # What is computed here takes for granted what ONNX-Runtime checks in its kernels.
            raise NodeError(f"its inputs do not fit it: {error}") from error

    def _run(
        self, node: Node, plan: Plan, feeds: Mapping[str, ort.OrtValue]
    ) -> list[ort.OrtValue | None]:
        if is_folded(self._graph, node):
            return self._runner.run(self._folded_node(node), feeds)
        if self._is_unrolled_norm(node):
            return [self._normalized(node, plan, feeds)]
        if node.op_type in RECURRENT and takes_default_steps(node.op_type, node.attributes):
            return self._recurrent(node, feeds, rounded=self._rounded)
        if node.op_type in {"Loop", "Scan"} and not node.domain:
            return self._iterated(node, plan.target, feeds)
        return self._runner.run(node, feeds)

    def run_in_tf32(
        self, node: Node, feeds: Mapping[str, ort.OrtValue]
    ) -> list[ort.OrtValue | None] | None:
        """Returns the outputs of what iterates in FP32, with factors of its products in TF32.

        None where the node does not iterate, or only ONNX-Runtime can run it.
        """
        if node.op_type in RECURRENT and takes_default_steps(node.op_type, node.attributes):
            return self._recurrent(node, feeds, rounded=exactly, multiply=_multiply_in_tf32)
        if node.op_type in {"Loop", "Scan"} and not node.domain:
            return self._iterated(node, Target.STRONG, feeds, tf32=True)
        return None

    def rounds_inside(self, node: Node) -> bool:
        """Whether a lowered node rounds more than its inputs, weights and outputs."""
        iterates = node.op_type in ITERATING and not node.domain
        return iterates or self._is_unrolled_norm(node)

    def _folded_weights(
        self, node: Node, loaded: Mapping[str, ort.OrtValue]
    ) -> tuple[dict[str, ort.OrtValue], float]:
        names = parameter_names(node)
        first, bias, mean, variance = (on_host(value_of(loaded[name])) for name in names)
        scale, shift = fold_parameters(first, bias, mean, variance, epsilon_of(node))
        low = [self._rounded_weight(values) for values in (scale, shift)]
        made = [*low, np.zeros_like(scale), np.ones_like(scale)]
        with np.errstate(invalid="ignore"):
            largest = float(np.nanmax(np.abs([scale, shift]), initial=0.0))
        # Two parameters may be one tensor: the node that reads these has names of its own.
        tensors = {f"{node.index}/{i}": tensor_of(values) for i, values in enumerate(made)}
        return tensors, largest if np.isfinite(largest) else 0.0

    def _folded_node(self, node: Node) -> Node:
        if node.index not in self._folded:
            names = [f"{node.index}/{i}" for i in range(4)]
            proto = helper.make_node(
                node.op_type, [node.inputs[0], *names], [node.outputs[0]], epsilon=0.0
            )
            self._folded[node.index] = replace(node, index=-1 - node.index, proto=proto)
        return self._folded[node.index]

    def _is_unrolled_norm(self, node: Node) -> bool:
        return (
            node.op_type == "BatchNormalization"
            and not node.domain
            and not node.attributes.get("training_mode")
            and not any(node.outputs[1:])
        )

    def _normalized(
        self, node: Node, plan: Plan, feeds: Mapping[str, ort.OrtValue]
    ) -> ort.OrtValue:
        x, *parameters = (value_of(feeds[name]) for name in node.inputs)
        constant = plan.target is not Target.ONNX and all(
            self._is_constant(name) for name in parameter_names(node)
        )
        scale, bias, mean, variance = parameters
        made = normalize_in_steps(
            x,
            (scale, bias, mean, variance),
            epsilon_of(node),
            self._rounded,
            deviation_in_fp32=constant,
        )
        return tensor_of(made.astype(np.float32))

    def _is_constant(self, name: str) -> bool:
        producer = self._graph.producers.get(name)
        folded = producer is not None and producer.role is Role.FOLDED
        return folded or name in self._graph.weights

    def _recurrent(
        self,
        node: Node,
        feeds: Mapping[str, ort.OrtValue],
        *,
        rounded: Rounding,
        multiply: Multiply = np.matmul,
    ) -> list[ort.OrtValue | None]:
        inputs = [on_host(value_of(feeds[name])) if name else None for name in node.inputs]
        with np.errstate(all="ignore"):
            made = run_recurrent(node.op_type, inputs, node.attributes, rounded, multiply)
        return [
            placed_tensor(np.ascontiguousarray(values, np.float32)) if name else None
            for name, values in zip(node.outputs, made, strict=False)
        ]

    def _iterated(
        self,
        node: Node,
        target: Target,
        feeds: Mapping[str, ort.OrtValue],
        *,
        tf32: bool = False,
    ) -> list[ort.OrtValue | None]:
        from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor  # noqa: PLC0415

        # What iterates takes small steps: it stays on the host.
        feeds = {name: fetched(feed) for name, feed in feeds.items()}
        key = node.index, None if tf32 else target
        if key not in self._bodies:
            from polygraphy_layerprec.plan import KeptLayers, Planner  # noqa: PLC0415

            body = body_graph(self._graph, node, feeds)
            planner = Planner(body, self._precision, target)
            body_plan = planner.plan(KeptLayers.of_nodes(body.layers)) if tf32 else planner.plan()
            with on_the_host():
                executor = PlannedExecutor(body, self._precision, tf32=tf32)
            self._bodies[key] = body, body_plan, executor
        body, body_plan, executor = self._bodies[key]

        def run_body(values: Mapping[str, np.ndarray[Any, Any]]) -> Mapping[str, Any]:
            made: dict[str, np.ndarray[Any, Any]] = executor.run(values, body_plan)
            missing = [name for name in body.outputs if name not in made]
            if missing:
                raise NodeError(f"the body of {node.name!r} does not give {missing[0]!r}")
            return made

        run: Any = run_loop if node.op_type == "Loop" else run_scan
        with on_the_host():
            result: list[ort.OrtValue | None] | None = run(node, body, run_body, feeds)
        if result is None:
            return self._runner.run(node, feeds)
        return [None if made is None else placed(made) for made in result]

    def _rounded(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        narrow = namespace_of(values).asarray(values, np.float32)
        rounded: np.ndarray[Any, Any] = round_to_precision(narrow, self._precision)
        return rounded

    def _rounded_weight(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(round_to_precision(values, self._precision, saturate=True))


def _multiply_in_tf32(
    first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    factors = [np.asarray(round_to_precision(factor, TF32)) for factor in (first, second)]
    return np.asarray(factors[0] @ factors[1])
