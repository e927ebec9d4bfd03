"""Gradients of recurrent layers agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.rules import Application, find_rule
from polygraphy_layerprec.divergence.rules.recurrent import run_recurrent

from .finite_differences import check_rule, onnxruntime_evaluation

STEPS, BATCH, INPUTS, HIDDEN = 4, 3, 2, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LAYERS = [("RNN", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {})]
SEQUENCE, LENGTHS, INITIAL_HIDDEN, INITIAL_CELL = 0, 4, 5, 6


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op_type", "attributes"), LAYERS)
@pytest.mark.parametrize("has_lengths", [True, False])
def test_recurrent_layer_matches_differences(op_type, attributes, direction, has_lengths):
    attributes = {**attributes, "direction": direction, "hidden_size": HIDDEN}
    inputs = layer_inputs(op_type, direction, has_lengths=has_lengths)
    states = (INITIAL_HIDDEN, INITIAL_CELL) if op_type == "LSTM" else (INITIAL_HIDDEN,)

    check_rule(
        op_type,
        inputs,
        attributes,
        opset=14,
        outputs=len(states) + 1,
        wanted=[SEQUENCE, *states],
        evaluate=lambda xs: run_layer(op_type, xs, attributes),
    )


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op_type", "attributes"), LAYERS)
def test_plain_evaluation_agrees_with_onnxruntime(op_type, attributes, direction):
    attributes = {**attributes, "direction": direction, "hidden_size": HIDDEN}
    inputs = layer_inputs(op_type, direction, has_lengths=True)
    outputs = 3 if op_type == "LSTM" else 2
    runtime = onnxruntime_evaluation(op_type, inputs, attributes, opset=14, outputs=outputs)

    for plain, expected in zip(
        run_layer(op_type, inputs, attributes), runtime(inputs), strict=True
    ):
        np.testing.assert_allclose(plain, expected, atol=1e-5)


@pytest.mark.parametrize("op_type", GATES)
def test_layer_given_nothing_but_weights_matches_differences(op_type):
    inputs = layer_inputs(op_type, "forward", has_lengths=False)[:3]

    check_rule(
        op_type,
        inputs,
        {"activations": ["Tanh"]} if op_type == "RNN" else {},
        opset=14,
        wanted=[SEQUENCE],
        evaluate=lambda xs: run_layer(op_type, xs, {"direction": "forward"})[:1],
    )


def test_batch_first_layout_only_swaps_axes():
    attributes = {"direction": "bidirectional", "hidden_size": HIDDEN, "layout": 1}
    inputs = layer_inputs("LSTM", "bidirectional", has_lengths=True)
    swapped = (SEQUENCE, INITIAL_HIDDEN, INITIAL_CELL)

    def swap(xs):
        return [x.swapaxes(0, 1) if i in swapped else x for i, x in enumerate(xs)]

    def evaluate(xs):
        steps, *states = run_layer("LSTM", swap(xs), attributes)
        return [steps.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in states)]

    check_rule(
        "LSTM",
        swap(inputs),
        attributes,
        opset=14,
        outputs=3,
        wanted=swapped,
        evaluate=evaluate,
    )


@pytest.mark.parametrize(
    "attributes",
    [{"clip": 1.0}, {"input_forget": 1}, {"activations": ["Relu", "Tanh", "Tanh"]}],
)
def test_layer_beyond_the_standard_is_left_to_the_caller(attributes):
    inputs = layer_inputs("LSTM", "forward", has_lengths=False)
    shapes = [None if x is None else x.shape for x in inputs]
    node = Application("LSTM", 14, attributes, inputs, [None], shapes, [None], frozenset({0}))

    gradients = find_rule("LSTM", "", 14).apply(node, [np.ones((STEPS, 1, BATCH, HIDDEN))])

    assert gradients == [None] * len(inputs)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op_type", "attributes"), LAYERS)
@pytest.mark.parametrize("layout", [0, 1])
def test_a_layer_runs_as_the_plainest_way_does(op_type, attributes, direction, layout):
    attributes = {**attributes, "direction": direction, "hidden_size": HIDDEN, "layout": layout}
    inputs = layer_inputs(op_type, direction, has_lengths=False)
    expected = run_layer(op_type, inputs, attributes)
    swapped = [
        x.swapaxes(0, 1) if layout and i in (SEQUENCE, INITIAL_HIDDEN, INITIAL_CELL) else x
        for i, x in enumerate(inputs)
    ]

    found = run_recurrent(op_type, swapped, attributes)

    axes = (2, 0, 1, 3) if layout else (0, 1, 2, 3)
    np.testing.assert_allclose(found[0], expected[0].transpose(axes), atol=1e-12)
    for state, plain in zip(found[1:], expected[1:], strict=False):
        np.testing.assert_allclose(state, plain.swapaxes(0, 1) if layout else plain, atol=1e-12)


def layer_inputs(op_type, direction, *, has_lengths):
    generator = np.random.default_rng(0)
    directions = 2 if direction == "bidirectional" else 1
    rows = GATES[op_type] * HIDDEN
    shapes = [
        (STEPS, BATCH, INPUTS),
        (directions, rows, INPUTS),
        (directions, rows, HIDDEN),
        (directions, 2 * rows),
        None,
        (directions, BATCH, HIDDEN),
    ]
    if op_type == "LSTM":
        shapes += [(directions, BATCH, HIDDEN), (directions, 3 * HIDDEN)]
    inputs = [None if s is None else 0.7 * generator.standard_normal(s) for s in shapes]
    if has_lengths:
        inputs[LENGTHS] = np.array([4, 1, 3], np.int32)
    return inputs


def run_layer(op_type, inputs, attributes):
    """Runs a recurrent layer in the plainest way: one sequence and one step at a time."""
    inputs = [*inputs, *[None] * (8 - len(inputs))]
    sequence, weights, recurrent, bias, lengths, hidden, cell, peepholes = inputs
    directions = len(weights)
    size = recurrent.shape[-1]
    steps, batch = sequence.shape[:2]
    lengths = [steps] * batch if lengths is None else lengths
    outputs = np.zeros((steps, directions, batch, size))
    last_hidden, last_cell = (np.zeros((directions, batch, size)) for _ in range(2))
    for d, b in np.ndindex(directions, batch):
        parameters = (
            weights[d],
            recurrent[d],
            np.zeros(2 * len(weights[d])) if bias is None else bias[d],
            np.zeros(3 * size) if peepholes is None else peepholes[d],
        )
        h, c = (np.zeros(size) if s is None else s[d, b] for s in (hidden, cell))
        order = list(range(lengths[b]))
        for t in order[::-1] if d == 1 or attributes["direction"] == "reverse" else order:
            h, c = step_layer(op_type, sequence[t, b], h, c, parameters, attributes)
            outputs[t, d, b] = h
        last_hidden[d, b], last_cell[d, b] = h, c
    return [outputs, last_hidden, last_cell] if op_type == "LSTM" else [outputs, last_hidden]


def step_layer(op_type, x, h, c, parameters, attributes):
    """Computes one step as the ONNX specification writes it."""
    weights, recurrent, bias, peepholes = parameters
    size = len(h)
    wx = (weights @ x + bias[: len(weights)]).reshape(-1, size)
    rh = (recurrent @ h + bias[len(weights) :]).reshape(-1, size)
    p = peepholes.reshape(3, size)

    def f(v):
        return 1 / (1 + np.exp(-v))

    if op_type == "RNN":
        return np.tanh(wx[0] + rh[0]), c
    if op_type == "GRU":
        z, r = f(wx[0] + rh[0]), f(wx[1] + rh[1])
        if attributes.get("linear_before_reset"):
            candidate = np.tanh(wx[2] + r * rh[2])
        else:
            of_candidate, its_bias = recurrent[-size:], bias[-size:]
            candidate = np.tanh(wx[2] + of_candidate @ (r * h) + its_bias)
        return (1 - z) * candidate + z * h, c
    i, forget = f(wx[0] + rh[0] + p[0] * c), f(wx[2] + rh[2] + p[2] * c)
    cell = forget * c + i * np.tanh(wx[3] + rh[3])
    o = f(wx[1] + rh[1] + p[1] * cell)
    return o * np.tanh(cell), cell
