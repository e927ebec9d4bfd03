"""Models with a hazard in the middle: it is found at the top, and the chosen set repairs it."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.pipeline import measure_output_error, select_constraints
from polygraphy_layerprec.selection import SelectionRequest
from tests.hazard_models import large_activations
from tests.models import build_model, node, normal, scalar, tensor

pytestmark = pytest.mark.onnxrt

WIDTH, ROWS = 32, 16
REST = 2e-3
"""More than the error of these models in FP16 without their hazard."""


def planted(nodes, weights, *, x="h", y="m", made=WIDTH):
    """Returns a perceptron whose hidden tensor `h` becomes `m`, of width `made`, by `nodes`."""
    around = [
        node("MatMul", ["x", "w_in"], "p", name="in/MatMul"),
        node("Tanh", ["p"], x, name="in/Tanh"),
        *nodes,
        node("MatMul", [y, "w_out"], "q", name="out/MatMul"),
        node("Sigmoid", ["q"], "y", name="out/Sigmoid"),
    ]
    weights = {
        "w_in": normal(0, WIDTH, WIDTH, scale=WIDTH**-0.5),
        "w_out": normal(1, made, WIDTH, scale=WIDTH**-0.5),
        **weights,
    }
    return build_model(around, [tensor("x", [ROWS, WIDTH])], [tensor("y", [ROWS, WIDTH])], weights)


def layer_norm():
    """Squares of 400 pass 65504 in a LayerNorm of primitive ops."""
    nodes = [
        node("Mul", ["h", "spread"], "wide", name="widen"),
        node("ReduceMean", ["wide"], "mean", name="norm/mean", axes=[-1]),
        node("Sub", ["wide", "mean"], "centred", name="norm/Sub"),
        node("Pow", ["centred", "two"], "squared", name="norm/Pow"),
        node("ReduceMean", ["squared"], "variance", name="norm/variance", axes=[-1]),
        node("Sqrt", ["variance"], "deviation", name="norm/Sqrt"),
        node("Div", ["centred", "deviation"], "m", name="norm/Div"),
    ]
    return planted(nodes, {"spread": scalar(600.0), "two": scalar(2.0)})


def shift_and_back():
    """Of |h| < 0.1 nothing is left after + 400."""
    nodes = [
        node("Mul", ["h", "small"], "s", name="shrink"),
        node("Add", ["s", "offset"], "up", name="up"),
        node("Sub", ["up", "offset"], "down", name="down"),
        node("Mul", ["down", "large"], "m", name="grow"),
    ]
    weights = {"small": scalar(0.05), "offset": scalar(400.0), "large": scalar(20.0)}
    return planted(nodes, weights)


def million_and_back():
    """Times 1e6 is beyond the range, divided by 1e6 it is in range again.

    In two steps: a factor of 1e6 would be clipped itself, and no harm done.
    """
    nodes = [
        node("Mul", ["h", "thousand"], "large", name="grow"),
        node("Mul", ["large", "thousand"], "huge", name="blow_up"),
        node("Div", ["huge", "thousand"], "less", name="shrink"),
        node("Div", ["less", "thousand"], "m", name="restore"),
    ]
    return planted(nodes, {"thousand": scalar(1e3)})


def tiny_products():
    """Squares of 1e-4 are below the smallest number."""
    nodes = [
        node("Mul", ["h", "tiny"], "small", name="shrink"),
        node("Mul", ["small", "small"], "vanishing", name="square"),
        node("Mul", ["vanishing", "huge"], "less", name="grow"),
        node("Mul", ["less", "huge"], "m", name="regrow"),
    ]
    return planted(nodes, {"tiny": scalar(1e-4), "huge": scalar(1e4)})


def same_sign_sum():
    """Terms of one sign add up to more than 65504; a factor behind them brings that back."""
    nodes = [
        node("Exp", ["h"], "positive", name="positive"),
        node("MatMul", ["positive", "column"], "total", name="reduce"),
        node("Mul", ["total", "share"], "m", name="average"),
    ]
    weights = {
        "column": np.full((WIDTH, 4), 8000.0, np.float32) * (1 + normal(5, WIDTH, 4, scale=0.01)),
        "share": scalar(2.0**-18),
    }
    return planted(nodes, weights, made=4)


CASES = [
    (layer_norm, "norm/Pow", "overflow"),
    (shift_and_back, "up", "rounding"),
    (million_and_back, "blow_up", "overflow"),
    (tiny_products, "square", "underflow"),
    (same_sign_sum, "reduce", "overflow"),
]


def samples():
    return [{"x": normal(7, ROWS, WIDTH)}]


def names(layers):
    return [layer.name for layer in layers]


@pytest.mark.parametrize(("build", "culprit", "kind"), CASES)
def test_the_planted_layer_ranks_first_with_its_kind(build, culprit, kind):
    first = rank_model(build(), samples()).layers[0]

    assert (first.name, first.kind) == (culprit, kind)
    assert first.overflow == (kind == "overflow")
    assert first.overflow or first.share > 0.95


@pytest.mark.parametrize(("build", "culprit", "_"), CASES)
@pytest.mark.parametrize("request_", [SelectionRequest(tolerance=REST), SelectionRequest()])
def test_the_chosen_set_repairs_it(build, culprit, _, request_):
    model = build()
    ranking = rank_model(model, samples())
    assert ranking.output_error.measured > 0.02

    selection = select_constraints(ranking, request_, model=model, samples=samples())

    assert culprit in names(selection.layers)
    assert selection.reached
    assert selection.measured_error < REST
    kept = [name for layer in selection.layers for name in layer.outputs]
    assert measure_output_error(model, samples(), fp32_outputs=kept) == selection.measured_error


@pytest.mark.parametrize("build", [build for build, _, _ in CASES])
def test_the_repair_leaves_the_rest_alone(build):
    model = build()
    ranking = rank_model(model, samples())

    selection = select_constraints(
        ranking, SelectionRequest(tolerance=REST), model=model, samples=samples()
    )

    untouched = {"in/MatMul", "in/Tanh", "out/MatMul", "out/Sigmoid"}
    assert not untouched & set(names(selection.layers))
    assert measure_output_error(model, samples()) > 10 * selection.measured_error


@pytest.mark.parametrize(("build", "culprit", "_"), CASES)
def test_without_the_model_the_same_layers_are_chosen(build, culprit, _):
    selection = select_constraints(rank_model(build(), samples()), SelectionRequest(tolerance=REST))

    assert culprit in names(selection.layers)
    kept = [name for layer in selection.layers for name in layer.outputs]
    assert measure_output_error(build(), samples(), fp32_outputs=kept) < REST


def test_a_long_reduction_of_one_sign_is_told_and_kept():
    # The mean of 16 numbers near 9,000 is in range, the sum of them is not.
    nodes = [
        node("Mul", ["h", "spread"], "wide", name="widen"),
        node("Add", ["wide", "floor"], "large", name="lift"),
        node("ReduceMean", ["large"], "mean", name="reduce", axes=[0]),
        node("Sub", ["mean", "floor"], "centred", name="centre"),
        node("Mul", ["centred", "down"], "m", name="scale_down"),
    ]
    weights = {"spread": scalar(500.0), "floor": scalar(9000.0), "down": scalar(2.0**-7)}
    model = planted(nodes, weights)
    ranking = rank_model(model, samples())

    first = ranking.layers[0]
    assert (first.name, first.kind, first.overflow) == ("reduce", "long reduction", False)
    assert "terms add up to 1.48e+05" in first.reason  # 16 times the largest
    selection = select_constraints(
        ranking, SelectionRequest(tolerance=REST), model=model, samples=samples()
    )
    assert "reduce" in names(selection.layers)
    assert selection.reached
    assert ranking.output_error.measured > REST


def harmless():
    """Returns a CNN whose Conv, Relu and Add see 500 to 3,000, in front of a cancellation."""
    nodes, weights = large_activations("large/")
    nodes += [
        node("Mul", ["doubled", "down"], "small", name="scale_down"),
        node("Add", ["small", "offset"], "up", name="up"),
        node("Sub", ["up", "offset"], "y", name="down"),
    ]
    shape = [1, 4, 8, 8]
    weights["offset"] = scalar(50.0)
    return build_model(nodes, [tensor("x", shape)], [tensor("y", shape)], weights)


@pytest.mark.parametrize("request_", [SelectionRequest(), SelectionRequest(tolerance=1e-3)])
@pytest.mark.parametrize("is_measured", [True, False])
def test_large_values_that_do_no_harm_are_not_kept(request_, is_measured):
    model = harmless()
    sample = [{"x": normal(3, 1, 4, 8, 8)}]
    ranking = rank_model(model, sample)
    large = [layer for layer in ranking.layers if layer.name.startswith("large/")]
    assert all(500 < layer.max_abs_input < 3000 for layer in large)
    assert {layer.kind for layer in large} == {"rounding"}

    given = {"model": model, "samples": sample} if is_measured else {}
    selection = select_constraints(ranking, request_, **given)

    assert selection.reached
    assert "up" in names(selection.layers)
    assert not [name for name in names(selection.layers) if name.startswith("large/")]


def test_a_tolerance_that_large_values_meet_keeps_nothing():
    nodes = [
        node("Relu", ["x"], "a", name="relu"),
        node("Add", ["a", "floor"], "y", name="add"),
    ]
    shapes = [tensor("x", [ROWS])], [tensor("y", [ROWS])]
    model = build_model(nodes, *shapes, {"floor": scalar(2000.3)})
    sample = [{"x": 1000.0 * normal(0, ROWS)}]

    request = SelectionRequest(tolerance=2.0**-10)  # two roundings of at most 2^-11
    selection = select_constraints(rank_model(model, sample), request, model=model, samples=sample)

    assert selection.layers == ()
    assert selection.reached
    assert selection.decision.verdict == "fine"
