"""Models that onnx's converter does not raise stay in their opset."""

from __future__ import annotations

import pytest
from onnx.shape_inference import InferenceError

from polygraphy_layerprec.emit.mixed_onnx import newer_opset
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.precision import FP16
from tests.models import build_model, node, tensor


@pytest.mark.parametrize("kind", [InferenceError, RuntimeError, ValueError, TypeError])
def test_whatever_the_converter_raises_leaves_the_model_as_it_is(kind, monkeypatch):
    model = build_model(
        [node("Exp", ["x"], "y", name="exp")], [tensor("x", [2])], [tensor("y", [2])], opset=6
    )
    graph = load_graph(model)
    assert newer_opset.in_newer_opset(graph, FP16) is not None

    def refuse(*_):
        raise kind("no type is known")

    monkeypatch.setattr(newer_opset.version_converter, "convert_version", refuse)

    assert newer_opset.in_newer_opset(graph, FP16) is None
