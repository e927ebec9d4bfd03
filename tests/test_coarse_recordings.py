"""What is kept coarse for the sweep gives the impacts that exact values give."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.divergence import recorded_values
from polygraphy_layerprec.divergence.compact_errors import ErrorMemory
from polygraphy_layerprec.execution.emulation import node_comparer
from tests.models import build_model, node, normal, tensor

ROWS, WIDE, NARROW = 256, 128, 64


def masked(rng):
    mask = np.where(rng.random((ROWS, WIDE)) < 0.5, -65504, 0).astype(np.float32)
    return [node("Add", ["h", "mask"], "s"), node("Softmax", ["s"], "m", axis=-1)], {"mask": mask}


def gelu(_):
    nodes = [
        node("Div", ["h", "root"], "u"),
        node("Erf", ["u"], "e"),
        node("Add", ["e", "one"], "p"),
        node("Mul", ["h", "p"], "m"),
    ]
    return nodes, {"root": np.float32(2**0.5), "one": np.float32(1)}


def attention(_):
    nodes = [
        node("Transpose", ["h"], "t", perm=[1, 0]),
        node("MatMul", ["h", "t"], "s"),
        node("Softmax", ["s"], "a", axis=-1),
        node("MatMul", ["a", "h"], "m"),
    ]
    return nodes, {}


def spread(rng):
    scales = np.exp(3 * rng.standard_normal(WIDE)).astype(np.float32)
    return [node("Mul", ["h", "c"], "w"), node("Div", ["w", "c"], "m")], {"c": scales}


def larger_of_two(_):
    nodes = [node("Neg", ["h"], "n"), node("Max", ["h", "n"], "x2"), node("Mul", ["x2", "h"], "m")]
    return nodes, {}


@pytest.mark.parametrize("middle", [masked, gelu, attention, spread, larger_of_two])
def test_impacts_are_those_of_exact_values(middle, monkeypatch):
    nodes, weights = middle(np.random.default_rng(0))
    model = build_model(
        [node("MatMul", ["x", "first"], "h"), *nodes, node("MatMul", ["m", "last"], "y")],
        [tensor("x", (ROWS, WIDE))],
        [tensor("y", (ROWS, NARROW))],
        {"first": normal(1, WIDE, WIDE) / 10, "last": normal(2, WIDE, NARROW), **weights},
    )
    found = {}
    for most, fewest in ((1 << 60, 1 << 60), (0, 1 << 14)):
        monkeypatch.setattr(node_comparer, "ErrorMemory", partial(ErrorMemory, most))
        monkeypatch.setattr(recorded_values, "_FEWEST_COARSE", fewest)
        ranking = rank_model(model, [{"x": normal(3, ROWS, WIDE)}])
        found[most] = {layer.name: layer.impact for layer in ranking.layers}

    exact, coarse = found[1 << 60], found[0]
    assert coarse == pytest.approx(exact, rel=0.03)
    assert any(coarse[name] != exact[name] for name in exact)
