"""What an impact does not see, in words."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.divergence.caveats import Caveat, describe_caveats
from polygraphy_layerprec.pipeline import measure_exact_impacts
from tests.models import build_model, custom_domain, node, normal, scalar, tensor


@pytest.mark.parametrize(
    ("caveats", "judged", "words"),
    [
        ([], True, ""),
        ([], False, ""),
        ([Caveat("gain", "Foo")], True, "by a measured gain: no rule for Foo"),
        (
            [Caveat("quantized", "QuantizeLinear"), Caveat("quantized", "Round")],
            True,
            "through the steps of QuantizeLinear and Round",
        ),
        ([Caveat("narrowed", "Cast")], True, "through Cast to narrower floats"),
        (
            [Caveat("few"), Caveat("output", "TopK")],
            True,
            "from few numbers, judged in front of TopK",
        ),
        ([Caveat("decides", "Cast")], True, "without what Cast decides"),
        (
            [Caveat("decides", "Cast"), Caveat("few")],
            False,
            "not judged: it reaches the outputs only by what Cast decides",
        ),
        (
            [Caveat("unconnected")],
            False,
            "not judged: no error gets from here to an output that counts",
        ),
        ([Caveat("unconnected")], True, ""),  # in another sample it did
        (
            [Caveat("decides", op) for op in "DCBA"],
            True,
            "without what A, B and C decides",
        ),
    ],
)  # fmt: skip
def test_caveats_in_words(caveats, judged, words):
    assert describe_caveats(caveats, judged=judged) == words


def ranked(nodes, weights, sample):
    model = build_model(nodes, [tensor("x", list(sample.shape))], [tensor("y", None)], weights)
    truth = measure_exact_impacts(model, [{"x": sample}])
    ranking = rank_model(model, [{"x": sample}])
    return {layer.name: layer for layer in ranking.layers}, truth


def test_the_operator_that_lacks_a_rule_is_named():
    layers, _ = ranked(
        [
            node("Exp", ["x"], "h", name="first"),
            node("LpNormalization", ["h"], "m", name="plain"),
            node("Bernoulli", ["m"], "b", name="draw"),
            node("Add", ["m", "b"], "y", name="last"),
        ],
        {},
        np.abs(normal(0, 8, 8)),
    )

    assert layers["first"].impact_method == "gain"
    assert "by a measured gain: no rule for Bernoulli" in layers["first"].reason
    assert layers["last"].caveat == ""


@pytest.mark.parametrize("factor", [0.7, 1.3, 3.1])
def test_a_layer_of_one_element_is_near_the_truth(factor):
    """One number that scales a whole tensor: a single probe would be off three times in four."""
    layers, truth = ranked(
        [
            node("ReduceMean", ["x"], "mean", name="mean", keepdims=0),
            node("Sqrt", ["mean"], "root", name="root"),
            node("Mul", ["x", "root"], "m", name="scale"),
            node("Mul", ["m", "factor"], "y", name="last"),
        ],
        {"factor": scalar(factor)},
        np.abs(normal(1, 20, 30)),
    )

    assert truth["root"] / 2 < layers["root"].impact < truth["root"] * 2


def test_few_numbers_are_told():
    layers, _ = ranked(
        [
            node("Exp", ["x"], "h", name="exp"),
            node("ReduceSum", ["h"], "y", name="sum", keepdims=0),
        ],
        {},
        normal(2, 5, 5),
    )

    assert layers["exp"].caveat == layers["sum"].caveat == "from few numbers"


def test_equal_values_whose_difference_counts_err_alike():
    """Softmax of rows that err alike does not err at all."""
    rows = np.broadcast_to(np.linspace(0.1, 0.9, 16, dtype=np.float32)[:, None], (16, 12))
    layers, truth = ranked(
        [
            node("Exp", ["x"], "h", name="exp"),
            node("Softmax", ["h"], "p", name="softmax", axis=-1),
            node("MatMul", ["p", "w"], "y", name="out"),
        ],
        {"w": normal(3, 12, 4)},
        np.ascontiguousarray(rows),
    )

    assert truth["h"] < 1e-6
    assert layers["exp"].impact < 3e-6
    assert layers["softmax"].impact > 1e-5


def test_rounding_that_a_narrow_output_undoes_is_told():
    layers, truth = ranked(
        [
            node("Exp", ["x"], "h", name="exp"),
            node("Cast", ["h"], "half", name="cast", to=10),
            node("Cast", ["half"], "y", name="back", to=1),
        ],
        {},
        normal(4, 8, 8).astype(np.float16).astype(np.float32),
    )

    assert truth["h"] == 0.0
    assert "to narrower floats" in layers["exp"].reason


def test_what_has_no_kernel_leaves_the_others_as_they_are():
    (layer,) = rank_model(custom_domain(), [{"x": normal(0, 2, 4)}]).layers

    assert layer.caveat == ""
