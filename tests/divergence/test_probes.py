"""How many probes there are, and that several of them average out."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.divergence.adjoint import Tape, TapeEntry, probe_count
from polygraphy_layerprec.pipeline import measure_exact_impacts
from tests.models import build_model, node, normal, tensor


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((1, 10), 4),
        ((10,), 4),
        ((4, 10), 4),
        ((5, 10), 4),
        ((6, 10), 3),
        ((8, 10), 2),
        ((15, 10), 2),
        ((16, 10), 1),
        ((2, 8, 10), 1),
        ((1000, 10), 1),
        ((), 4),
        ((0, 10), 4),
        ((3, 0), 4),
    ],
)
def test_outputs_of_few_rows_are_probed_more_often(shape, count):
    assert probe_count({"y": np.zeros(shape, np.float32)}) == count


def test_the_output_with_most_rows_decides():
    outputs = {"one": np.zeros((1, 9)), "many": np.zeros((16, 2)), "scalar": np.zeros(())}

    assert probe_count(outputs) == 1
    assert probe_count({}) == 4


def sweep(*probes):
    """Sweeps `h = exp(x)`, of which `Neg` and `Relu` take one element each."""
    shapes = {"x": (2,), "h": (2,), "a": (2,), "b": (2,)}

    def entry(index, op_type, source, output):
        return TapeEntry(
            index=index,
            op_type=op_type,
            domain="",
            opset=17,
            attributes={},
            inputs=(source,),
            captures=(),
            captured_shapes=(),
            outputs=(output,),
            input_shapes=(shapes[source],),
            output_shapes=(shapes[output],),
            wanted=frozenset({0} if index else ()),
            wanted_captures=frozenset(),
            is_layer=True,
            gains={},
        )

    tape = Tape(lambda _: {})
    halves = (np.ones(2, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    h = np.ones(2, np.float32)
    tape.record(entry(0, "Exp", "x", "h"), {"h": h}, {"h": halves})
    tape.record(entry(1, "Neg", "h", "a"), {"h": h, "a": -h}, {"a": halves})
    tape.record(entry(2, "Relu", "h", "b"), {"h": h, "b": h}, {"b": halves})
    return tape.sweep(*probes)


def test_several_probes_give_the_mean_of_impacts_and_of_shares():
    to_a = {"a": np.array([1.0, 0.0], np.float32)}
    to_b = {"b": np.array([3.0, 0.0], np.float32)}

    found = sweep(to_a, to_b)

    assert found.powers == {0: 5.0, 1: 0.5, 2: 4.5}
    assert found.consumers[0] == {1: 0.5, 2: 0.5}
    assert sweep(to_b).powers == {0: 9.0, 1: 0.0, 2: 9.0}


def test_one_row_of_output_is_enough_for_impacts_near_the_truth():
    nodes = [
        node("Tanh", ["x"], "a", name="first"),
        node("MatMul", ["a", "w"], "b", name="second"),
        node("Exp", ["b"], "y", name="third"),
    ]
    weights = {"w": normal(0, 64, 64, scale=0.125)}
    model = build_model(nodes, [tensor("x", [1, 64])], [tensor("y", [1, 64])], weights)
    samples = [{"x": normal(seed, 1, 64)} for seed in range(8)]

    ranking = rank_model(model, samples)
    truth = measure_exact_impacts(model, samples)

    for layer in ranking.layers:
        assert layer.impact == pytest.approx(truth[layer.outputs[0]], rel=0.25)
