"""What stands in for a GPU: engines whose outputs real ONNX-Runtime computes.

The FP32 model with further outputs is the reference engine, the emulation the others. So the flow
around engines can be run to its end, and its result compared with that of the emulation.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper

from polygraphy_layerprec.backend.engines.specs import EngineError
from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor
from polygraphy_layerprec.execution.kernels.plain_session import PlainSession
from polygraphy_layerprec.matching.constraint_matching import kept_layers_of
from polygraphy_layerprec.model import Graph
from polygraphy_layerprec.plan import KeptLayers, Planner
from polygraphy_layerprec.precision import FP16

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polygraphy_layerprec.backend.engines.specs import EngineSpec

__all__ = ["NamedEngines", "Running", "StandIn"]


class Running:
    """An engine that runs a function."""

    def __init__(self, infer: Any, *, information: str = "") -> None:
        self.infer = infer
        self._information = information

    def latency_seconds(self, sample, *, runs: int) -> float:
        assert sample
        return 0.001 * runs

    def layer_information(self) -> str:
        return self._information


class StandIn:
    """Runs what an engine of `spec` would compute, on a CPU."""

    def __init__(self, model: onnx.ModelProto, graph: Graph) -> None:
        self._model = model
        self._graph = graph
        self.opened: list[EngineSpec] = []
        self.open_now = 0

    @contextmanager
    def open(self, spec: EngineSpec, plan: bytes) -> Iterator[Running]:
        assert plan
        self.opened.append(spec)
        self.open_now += 1
        marked = self._unfused() if spec.with_debug_tensors else spec.marked
        try:
            yield Running(self._infer(spec, marked))
        finally:
            self.open_now -= 1

    def _infer(self, spec: EngineSpec, marked: tuple[str, ...]) -> Any:
        if spec.kind == "reference":
            return PlainSession(_with_outputs(self._model, marked)).run
        graph = replace(self._graph, outputs=(*self._graph.outputs, *marked))
        kept = KeptLayers()
        if spec.asked is not None:
            kept = kept_layers_of(graph, spec.asked.constraints)
        elif spec.kind == "one layer":
            kept = KeptLayers.all_but(graph, graph.producers[spec.layer])
        plan, executor = Planner(graph, FP16).plan(kept), PlannedExecutor(graph, FP16)
        return lambda sample: executor.run(sample, plan)

    def _unfused(self) -> tuple[str, ...]:
        """Every second layer: the others are fused away."""
        names = [node.outputs[0] for node in self._graph.layers[::2]]
        return tuple(name for name in names if name not in self._graph.outputs)


class NamedEngines:
    """Engines whose plan is their description: nothing is built."""

    versions = (("tensorrt", "99.1"),)

    def __init__(
        self, runtime: Any = None, *, reasons: dict[str, str] | None = None, refuse: Any = None
    ) -> None:
        """Prepares.

        Args:
            runtime: Opens the engines.
            reasons: Tensors that cannot be marked, with the reason.
            refuse: Returns whether the build of a spec is to fail.
        """
        self.built: list[EngineSpec] = []
        self.runtime = runtime
        self._reasons = reasons or {}
        self._refuse = refuse or (lambda _: False)

    def markable(self, names) -> dict[str, str]:
        return {name: self._reasons.get(name, "") for name in names}

    def identity(self, spec) -> dict[str, object]:
        return {
            "kind": spec.kind,
            "layer": spec.layer,
            "marked": list(spec.marked),
            "kept": [list(c.outputs) for c in spec.asked.constraints] if spec.asked else [],
        }

    def build(self, spec, *, observe=None) -> bytes:
        assert observe is None
        self.built.append(spec)
        if self._refuse(spec):
            raise EngineError(f"A test cannot build the {spec.describe()}.\nNote: nothing.")
        return spec.describe().encode()

    def open(self, spec, plan):
        return self.runtime.open(spec, plan)


def _with_outputs(model: onnx.ModelProto, names: tuple[str, ...]) -> onnx.ModelProto:
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    extended.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    return extended
