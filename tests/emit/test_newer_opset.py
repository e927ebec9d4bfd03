"""Models that onnx's converter does not raise stay in their opset."""

from __future__ import annotations

import pytest
from onnx.shape_inference import InferenceError

from polygraphy_layerprec.emit.mixed_onnx import newer_opset
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.precision import BF16, FP16
from tests.models import build_model, node, tensor


def exponential(opset):
    return load_graph(
        build_model(
            [node("Exp", ["x"], "y", name="exp")],
            [tensor("x", [2])],
            [tensor("y", [2])],
            opset=opset,
        )
    )


@pytest.mark.parametrize(
    ("opset", "precision", "raised"),
    [(6, FP16, 12), (7, FP16, None), (17, FP16, None), (12, BF16, 22), (22, BF16, None)],
)
def test_an_opset_is_raised_only_where_the_precision_was_not_what_it_is(opset, precision, raised):
    newer = newer_opset.in_newer_opset(exponential(opset), precision)

    assert (None if newer is None else newer.opset()) == raised


@pytest.mark.parametrize("kind", [InferenceError, RuntimeError, ValueError, TypeError])
def test_whatever_the_converter_raises_leaves_the_model_as_it_is(kind, monkeypatch):
    graph = exponential(6)
    assert newer_opset.in_newer_opset(graph, FP16) is not None

    def refuse(*_):
        raise kind("no type is known")

    monkeypatch.setattr(newer_opset.version_converter, "convert_version", refuse)

    assert newer_opset.in_newer_opset(graph, FP16) is None
