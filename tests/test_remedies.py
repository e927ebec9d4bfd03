"""What can be done to a model instead of keeping layers in FP32."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.remedies import find_remedies
from tests.layer_graphs import layer_of
from tests.models import build_model, node, scalar, tensor

SHAPE = [4, 8]


def model(nodes, weights):
    values = [tensor("x", SHAPE)], [tensor("y", SHAPE)]
    return load_graph(build_model(nodes, *values, weights))


def remedies(graph, *names, precision="fp16", **changes):
    by_name = {one.name: one for one in graph.nodes}
    layers = [
        layer_of(name, 1.0, op=by_name[name].op_type, outputs=by_name[name].outputs, **changes)
        for name in names
    ]
    return [(one.advice, one.place, one.value) for one in find_remedies(graph, layers, precision)]


def norm(*, centred=True, opset=17):
    """A LayerNormalization in pieces; without its mean it is an RMSNormalization."""
    centre = [
        node("ReduceMean", ["x"], "middle", name="middle", axes=[-1]),
        node("Sub", ["x", "middle"], "apart", name="centre"),
    ]
    source = "apart" if centred else "x"
    nodes = [
        *(centre if centred else []),
        node("Mul", [source, source], "squares", name="squares"),
        node("ReduceMean", ["squares"], "mean", name="mean", axes=[-1]),
        node("Add", ["mean", "epsilon"], "guarded", name="guard"),
        node("Sqrt", ["guarded"], "root", name="root"),
        node("Div", [source, "root"], "y", name="divide"),
    ]
    values = [tensor("x", SHAPE)], [tensor("y", SHAPE)]
    return load_graph(build_model(nodes, *values, {"epsilon": scalar(1e-12)}, opset=opset))


@pytest.mark.parametrize("kept", ["squares", "mean", "root"])
@pytest.mark.parametrize(
    ("opset", "advice"),
    [
        (12, "export with opset 17 or later, so that it is one LayerNormalization"),
        (17, "have it exported as one LayerNormalization, instead of written out in pieces"),
    ],
)
def test_a_normalization_in_pieces_should_be_one_operator(kept, opset, advice):
    (found,) = remedies(norm(opset=opset), kept)

    assert found[0].startswith(advice)
    assert found[1:] == ("root", f"in pieces, opset {opset}")


def test_a_norm_without_its_mean_is_no_layer_normalization():
    assert remedies(norm(centred=False), "root") == []


def test_a_normalization_that_is_fine_is_left_alone():
    assert remedies(norm(), "divide") == []


@pytest.mark.parametrize(("epsilon", "is_zero"), [(1e-12, True), (2.0**-25, True), (1e-7, False)])
def test_an_epsilon_that_low_precision_lacks_should_be_raised(epsilon, is_zero):
    nodes = [node("Max", ["x", "epsilon"], "y", name="guard")]

    found = remedies(model(nodes, {"epsilon": scalar(epsilon)}), "guard")

    expected = ("raise the epsilon to 1e-07 or more: it is 0 in FP16", "guard", f"{epsilon:g}")
    assert found == ([expected] if is_zero else [])


def test_bf16_has_an_epsilon_that_fp16_lacks():
    nodes = [node("Max", ["x", "epsilon"], "y", name="guard")]

    assert remedies(model(nodes, {"epsilon": scalar(1e-12)}), "guard", precision="bf16") == []


def scaled(op, factor):
    nodes = [
        node("MatMul", ["x", "w"], "scores", name="scores"),
        node(op, ["scores", "factor"], "y", name="scale"),
    ]
    return model(nodes, {"w": np.ones((8, 8), np.float32), "factor": scalar(factor)})


@pytest.mark.parametrize(("op", "factor"), [("Div", 8.0), ("Mul", 0.125)])
def test_what_overflows_before_it_is_scaled_should_be_scaled_before(op, factor):
    scale, bf16 = remedies(scaled(op, factor), "scores", overflow=True, max_abs=1e5)

    assert scale == (
        "scale before the product and not after it: move scale in front",
        "scores",
        "|x| up to 1e+05, divided by 8",
    )
    assert bf16[0].startswith("use BF16, which has the range of FP32")
    assert bf16[1:] == ("scores", "|x| up to 1e+05")


@pytest.mark.parametrize(("op", "factor"), [("Div", 0.5), ("Mul", 2.0), ("Add", 8.0), ("Mul", 0.0)])
def test_scaling_that_would_not_help_is_not_proposed(op, factor):
    found = remedies(scaled(op, factor), "scores", overflow=True, max_abs=1e5)

    assert [advice.split(",")[0] for advice, *_ in found] == ["use BF16"]


def test_bf16_is_no_remedy_for_itself():
    assert remedies(scaled("Mul", 2.0), "scores", overflow=True, precision="bf16") == []


def test_layers_that_the_model_lacks_have_none():
    assert find_remedies(norm(), [layer_of("gone", 1.0, op="Add")], "fp16") == ()
