"""Loops and recurrent layers, lowered, in TF32, without a step, with draws and with constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.execution import PlannedExecutor
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import measure_output_error
from polygraphy_layerprec.plan import KeptLayers, Planner
from polygraphy_layerprec.precision import FP16, TF32
from polygraphy_layerprec.rounding import round_to_precision
from tests.models import build_model, node, normal, tensor
from tests.planned_runs import run_lowered, run_reference

ROWS = normal(0, 2, 4)


def loop_model(nodes, *, weights=(), inner=(), steps=3, shape=(2, 4), outputs=("s_next",)):
    """A state `s` that the nodes turn into `s_next` in each step."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["going"], "on"), *nodes],
        "body",
        [
            info("step", TensorProto.INT64, []),
            info("going", TensorProto.BOOL, []),
            info("s", TensorProto.FLOAT, list(shape)),
        ],
        [info("on", TensorProto.BOOL, []), *[tensor(name, None) for name in outputs]],
        [numpy_helper.from_array(values, name) for name, values in inner],
    )
    made = ["y", *[f"all_{name}" for name in outputs[1:]]]
    loop = helper.make_node("Loop", ["steps", "", "x"], made, name="loop", body=body)
    return build_model(
        [loop],
        [tensor("x", list(shape))],
        [tensor(name, None) for name in made],
        {"steps": np.int64(steps), **dict(weights)},
    )


MASK = np.where(np.arange(8).reshape(2, 4) == 3, 0.0, -1e9).astype(np.float32)
MASKED = (
    [node("Add", ["s", "mask"], "masked"), node("Softmax", ["masked"], "s_next")],
    [("mask", MASK)],
    (2, 4),
)
FOLDED = (
    [node("BatchNormalization", ["s", "scale", "bias", "mean", "variance"], "s_next")],
    [
        (name, np.full(4, value, np.float32))
        for name, value in (("scale", 1), ("bias", 0.3), ("mean", 0), ("variance", 1e6))
    ],
    (2, 4, 1, 1),
)


@pytest.mark.parametrize("case", [MASKED, FOLDED], ids=["mask", "normalization"])
def test_constants_are_constants_wherever_they_stand(case):
    nodes, weights, shape = case
    sample = {"x": 1000 * ROWS.reshape(shape)}

    within = run_lowered(loop_model(nodes, inner=weights, shape=shape), sample)["y"]
    around = run_lowered(loop_model(nodes, weights=weights, shape=shape), sample)["y"]

    assert np.array_equal(within, around)
    assert np.isfinite(around).all()


@pytest.mark.parametrize("steps", [0, 2])
def test_a_loop_gives_what_it_gives_in_fp32_but_for_rounding(steps):
    nodes = [node("Tanh", ["s"], "s_next"), node("Exp", ["s"], "each")]
    model = loop_model(nodes, steps=steps, outputs=("s_next", "each"))

    exact, lowered = run_reference(model, {"x": ROWS}), run_lowered(model, {"x": ROWS})

    assert {n: v.shape for n, v in lowered.items()} == {n: v.shape for n, v in exact.items()}
    assert exact["all_each"].shape == (steps, 2, 4)
    for name, values in exact.items():
        np.testing.assert_allclose(lowered[name], values, rtol=2e-3)


def in_tf32(model, sample):
    graph = load_graph(model)
    plan = Planner(graph, FP16).plan(KeptLayers.of_nodes(graph.layers))
    return PlannedExecutor(graph, FP16, tf32=True).run(sample, plan)["y"]


def rounded(values):
    return round_to_precision(np.asarray(values, np.float32), TF32).astype(np.float64)


def test_products_in_a_kept_loop_take_factors_in_tf32():
    weight = normal(1, 4, 4)
    model = loop_model([node("MatMul", ["s", "w"], "s_next")], weights=[("w", weight)], steps=2)

    found = in_tf32(model, {"x": ROWS})

    first = (rounded(ROWS) @ rounded(weight)).astype(np.float32)
    np.testing.assert_allclose(found, rounded(first) @ rounded(weight), rtol=1e-5)
    assert not np.allclose(found, ROWS @ weight @ weight, rtol=1e-5)


def test_products_in_a_kept_recurrent_layer_take_factors_in_tf32():
    weights = {"w": normal(1, 1, 4, 3), "r": normal(2, 1, 4, 4)}
    model = build_model(
        [node("RNN", ["x", "w", "r"], "y", hidden_size=4)],
        [tensor("x", [2, 1, 3])],
        [tensor("y", [2, 1, 1, 4])],
        weights,
    )
    x = normal(3, 2, 1, 3)

    found = in_tf32(model, {"x": x})

    w, r = (rounded(weights[name][0]).T for name in "wr")
    state = np.zeros((1, 4))
    for step in range(2):
        state = np.tanh(rounded(x[step]) @ w + rounded(state) @ r)
        np.testing.assert_allclose(found[step, 0], state, rtol=1e-5)
    assert not np.array_equal(found, run_reference(model, {"x": x})["y"])


@pytest.mark.parametrize(
    "drawing",
    [
        [helper.make_node("RandomNormal", [], ["noise"], shape=[2, 4], dtype=TensorProto.FLOAT)],
        [helper.make_node("Dropout", ["s", "half", "yes"], ["noise"])],
    ],
    ids=["random numbers", "dropout"],
)
def test_draws_within_a_body_are_no_error(drawing):
    nodes = [*drawing, node("Add", ["s", "noise"], "s_next")]
    constants = [("half", np.float32(0.5)), ("yes", np.ones((), bool))]
    model = loop_model(nodes, weights=constants)

    assert load_graph(model).nodes[0].is_random
    assert measure_output_error(model, [{"x": ROWS}]) == 0.0


@pytest.mark.parametrize("training", [False, True])
def test_dropout_draws_where_it_trains(training):
    model = build_model(
        [node("Dropout", ["x", "half", "trains"], "d"), node("Exp", ["d"], "y")],
        [tensor("x", [2, 4])],
        [tensor("y", [2, 4])],
        {"half": np.float32(0.5), "trains": np.array(training)},
    )

    assert load_graph(model).nodes[0].is_random is training
    assert measure_output_error(model, [{"x": ROWS}]) < 1e-3
    onnx.checker.check_model(model)
