"""Runs of a model as a plan says."""

from __future__ import annotations

import onnxruntime as ort

from polygraphy_layerprec.execution import EmulatedExecutor, PlannedExecutor
from polygraphy_layerprec.model import Graph, load_graph
from polygraphy_layerprec.plan import KeptLayers, Planner, Target
from polygraphy_layerprec.precision import FP16

__all__ = ["emulated_executor", "run_lowered", "run_reference", "run_whole"]


def emulated_executor(model, precision=FP16, **options):
    """Returns what compares a model with itself, all layers lowered."""
    return EmulatedExecutor(Planner(_graph(model), precision).plan(), **options)


def run_reference(model, sample):
    """Returns the outputs in FP32, node by node."""
    return PlannedExecutor(_graph(model), FP16).run(sample)


def run_lowered(model, sample, kept=(), *, precision=FP16, target=Target.STRONG, **options):
    """Returns the outputs with the makers of the tensors `kept` in FP32, all others lowered."""
    graph = _graph(model)
    plan = Planner(graph, precision, target).plan(KeptLayers.of_outputs(kept))
    return PlannedExecutor(graph, precision).run(sample, plan, **options)


def run_whole(model, sample):
    """Returns the outputs of a model as ONNX-Runtime runs it, with its own casts in place."""
    options = ort.SessionOptions()
    # Else casts vanish, and the rounding with them.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, sample), strict=True))


def _graph(model):
    return model if isinstance(model, Graph) else load_graph(model)
