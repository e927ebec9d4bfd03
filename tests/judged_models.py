"""A cancellation with what may follow it, to judge layers at all kinds of outputs."""

from __future__ import annotations

from tests.models import build_model, node, normal, scalar, tensor

__all__ = ["SAMPLE", "WEIGHTS", "impacts_of", "model_of", "names_of", "plain"]

CANCELLATION = [
    node("MatMul", ["x", "w1"], "a", name="/fc1"),
    node("Add", ["a", "offset"], "b", name="/shift"),
    node("Sub", ["b", "offset"], "u", name="/unshift"),
    node("MatMul", ["u", "w2"], "logits", name="/fc2"),
]
WEIGHTS = {
    "w1": normal(0, 32, 32, scale=0.3),
    "w2": normal(1, 32, 8, scale=0.3),
    "offset": scalar(500.0),
}
SAMPLE = {"x": normal(2, 64, 32)}


def model_of(*tail, outputs, weights=None, opset=17):
    x = tensor("x", [64, 32])
    return build_model(
        [*CANCELLATION, *tail], [x], outputs, {**WEIGHTS, **(weights or {})}, opset=opset
    )


def plain():
    return model_of(outputs=[tensor("logits", [64, 8])])


def impacts_of(ranking):
    return {layer.name: layer.impact for layer in ranking.layers}


def names_of(ranking):
    return [layer.name for layer in ranking.layers]
