"""How many probes there are, and that several of them average out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.divergence.adjoint import Tape, TapeEntry, probe_count
from polygraphy_layerprec.divergence.probes import (
    merge_targets,
    output_scales,
    spanning_seeds,
    sweep_work,
    target_of,
)
from polygraphy_layerprec.pipeline import measure_exact_impacts
from tests.divergence.kept import kept
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
    assert probe_count([shape]) == count


def test_the_output_with_most_rows_decides():
    assert probe_count([(1, 9), (16, 2), ()]) == 1
    assert probe_count([]) == 4


def test_what_stands_for_half_an_output_counts_half():
    values = np.array([3.0, 4.0], np.float32)
    output, half = target_of(values), replace(target_of(values), weight=0.5)

    scales = output_scales({"y": output, "a": half, "b": half, "none": target_of(0 * values)})

    assert scales == pytest.approx({"y": 0.5 / 25, "a": 0.25 / 25, "b": 0.25 / 25})


def test_the_weights_of_a_tensor_that_stands_for_several_outputs_add_up():
    target = target_of(np.ones(3, np.float16))

    merged = merge_targets([("a", target), ("b", target), ("a", replace(target, weight=0.5))])

    assert {name: t.weight for name, t in merged.items()} == {"a": 1.5, "b": 1.0}
    assert target.dtype == np.float32
    assert target_of(np.ones(3)).dtype == np.float64


def test_more_probes_are_taken_where_they_cost_next_to_nothing():
    small, large = sweep_work([64] * 10), sweep_work([2**20] * 500)

    assert probe_count([(1000, 10)], work=small) == 16
    assert probe_count([(1, 10)], work=large) == 4
    assert probe_count([(1000, 10)], work=large) == 1


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
    errors = kept(np.ones(2))
    h = np.ones(2, np.float32)
    tape.record(entry(0, "Exp", "x", "h"), {"h": h}, {"h": errors})
    tape.record(entry(1, "Neg", "h", "a"), {"h": h, "a": -h}, {"a": errors})
    tape.record(entry(2, "Relu", "h", "b"), {"h": h, "b": h}, {"b": errors})
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


@pytest.mark.parametrize(("shape", "count"), [((1,), 1), ((1, 2), 2), ((3,), 4), ((2, 2), 4)])
def test_probes_that_span_few_numbers_see_the_whole_of_an_error(shape, count):
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    error = np.random.default_rng(2).standard_normal(shape)

    probes = spanning_seeds({"y": target_of(values), "empty": target_of(0 * values)}, most=4)

    assert len(probes) == count
    seen = [float(np.sum(probe["y"] * error)) ** 2 for probe in probes]
    assert np.mean(seen) == pytest.approx(np.sum(error**2) / np.sum(values**2), rel=1e-5)
    assert all(list(probe) == ["y"] for probe in probes)


def test_several_outputs_of_few_numbers_are_spanned_together():
    targets = {name: target_of(np.full(2, 3.0, np.float32)) for name in "ab"}

    probes = spanning_seeds(targets, most=16)

    rows = np.array([np.concatenate([probe["a"], probe["b"]]) for probe in probes])
    np.testing.assert_allclose(rows @ rows.T, np.eye(4) * np.sum(rows[0] ** 2), atol=1e-6)


def test_numbers_that_take_too_many_probes_are_not_spanned():
    assert spanning_seeds({"y": target_of(np.ones(5, np.float32))}, most=7) == []
    assert spanning_seeds({"y": target_of(np.zeros(2, np.float32))}, most=7) == []
    assert len(spanning_seeds({"y": target_of(np.ones(5, np.float32))}, most=8)) == 8
