"""At what errors are judged: outputs of any type, and what decides them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.pipeline import (
    measure_exact_impacts,
    measure_output_error,
    select_constraints,
)
from polygraphy_layerprec.selection import SelectionRequest
from tests.judged_models import SAMPLE, WEIGHTS, impacts_of, model_of, names_of, plain
from tests.models import build_model, node, normal, scalar, tensor


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_an_output_of_any_float_type_is_judged_as_one_of_fp32(kind, impact):
    cast = node("Cast", ["logits"], "y", name="/cast", to=kind)
    model = model_of(cast, outputs=[tensor("y", [64, 8], kind)], opset=17)
    expected = rank_model(plain(), [SAMPLE], impact=impact)

    ranking = rank_model(model, [SAMPLE], impact=impact)

    assert names_of(ranking)[0] == "/shift"
    (output,) = ranking.output_error.outputs
    assert output.error == ranking.output_error.measured
    assert output.error == pytest.approx(expected.output_error.measured, rel=0.05)
    for name, found in impacts_of(ranking).items():
        assert found == pytest.approx(impacts_of(expected)[name], rel=0.1)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_gradients_pass_a_part_in_a_narrow_type(kind):
    tail = [
        node("Cast", ["logits"], "narrow", name="/down", to=kind),
        node("Tanh", ["narrow"], "bent", name="/act"),
        node("Cast", ["bent"], "wide", name="/up", to=TensorProto.FLOAT),
        node("Exp", ["wide"], "y", name="/exp"),
    ]
    if kind == TensorProto.BFLOAT16:  # ONNX-Runtime's CPU has no Tanh for it
        tail[1] = node("Identity", ["narrow"], "bent", name="/act")
    model = model_of(*tail, outputs=[tensor("y", [64, 8])], opset=17)
    truth = measure_exact_impacts(model, [SAMPLE])

    ranking = rank_model(model, [SAMPLE])

    assert names_of(ranking)[0] == "/shift"
    assert impacts_of(ranking)["/shift"] == pytest.approx(truth["b"], rel=0.3)


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
def test_what_is_not_finite_in_the_reference_is_left_out(impact):
    masks = np.zeros((64, 8), np.float32)
    masks[3, 2], masks[5] = -np.inf, np.nan
    add = node("Add", ["logits", "mask"], "y", name="/mask")
    finite = np.isfinite(masks)
    masked = model_of(add, outputs=[tensor("y", [64, 8])], weights={"mask": masks})
    bare = model_of(add, outputs=[tensor("y", [64, 8])], weights={"mask": np.zeros_like(masks)})

    ranking = rank_model(masked, [SAMPLE], impact=impact)
    unmasked = rank_model(bare, [SAMPLE], impact=impact)

    assert names_of(ranking)[0] == "/shift"
    for name, found in impacts_of(ranking).items():
        assert found == pytest.approx(impacts_of(unmasked)[name], rel=0.15)
    layer = next(layer for layer in ranking.layers if layer.name == "/mask")
    assert layer.reference_nonfinite_count == np.count_nonzero(~finite)
    assert layer.introduced_error == pytest.approx(2.1e-4, rel=0.3)
    error = ranking.output_error
    assert error.measured == pytest.approx(error.forecast, rel=0.3)


INTEGER_TAILS = {
    "argmax": [node("ArgMax", ["logits"], "y", name="/last", axis=-1, keepdims=0)],
    "top k": [
        node("TopK", ["logits", "two"], "values", "y", name="/last", axis=-1),
    ],
    "comparison": [node("Greater", ["logits", "bound"], "y", name="/last")],
    "cast": [
        node("Mul", ["logits", "ten"], "scaled", name="/scale"),
        node("Cast", ["scaled"], "y", name="/last", to=TensorProto.INT32),
    ],
    "further integers": [
        node("ArgMax", ["logits"], "class", name="/argmax", axis=-1, keepdims=0),
        node("Add", ["class", "two"], "more", name="/more"),
        node("Cast", ["more"], "y", name="/last", to=TensorProto.INT32),
    ],
}
KINDS = {
    "comparison": TensorProto.BOOL,
    "cast": TensorProto.INT32,
    "further integers": TensorProto.INT32,
}
TAIL_WEIGHTS = {"two": np.array([2]), "bound": scalar(0.1), "ten": scalar(10.0)}


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
@pytest.mark.parametrize("name", INTEGER_TAILS)
def test_an_integer_output_is_judged_in_front_of_what_decides_it(name, impact):
    output = tensor("y", None, KINDS.get(name, TensorProto.INT64))
    model = model_of(*INTEGER_TAILS[name], outputs=[output], weights=TAIL_WEIGHTS)
    ranking = rank_model(model, [SAMPLE], impact=impact)
    cut = rank_model(plain(), [SAMPLE], impact=impact)

    assert [n for n in names_of(ranking) if n != "/scale"] == names_of(cut)
    for layer, found in impacts_of(cut).items():
        assert impacts_of(ranking)[layer] == pytest.approx(found, rel=0.1)
    (output,) = ranking.output_error.outputs
    assert output.error is None
    assert ranking.output_error.measured == output.mismatch_fraction > 0.0
    assert "judged in front of" in ranking.layers[0].caveat


def test_what_decides_one_output_together_shares_its_weight():
    """A comparison of the logits with a tensor that errs in its last bits alone."""
    tail = [
        node("Tanh", ["x8"], "other", name="/other"),
        node("Greater", ["logits", "other"], "y", name="/last"),
    ]
    model = model_of(*tail, outputs=[tensor("y", [64, 8], TensorProto.BOOL)])
    model.graph.input.append(tensor("x8", [64, 8]))

    ranking = rank_model(model, [{**SAMPLE, "x8": normal(3, 64, 8)}])

    cut = impacts_of(rank_model(plain(), [SAMPLE]))
    found = impacts_of(ranking)
    assert found["/shift"] == pytest.approx(cut["/shift"] / np.sqrt(2), rel=0.1)
    assert found["/other"] == pytest.approx(2e-4 / np.sqrt(2), rel=0.5)


def test_the_share_of_unequal_elements_is_what_sets_of_layers_are_chosen_by():
    output = tensor("y", [64, 8], TensorProto.INT32)
    model = model_of(*INTEGER_TAILS["cast"], outputs=[output], weights=TAIL_WEIGHTS)
    ranking = rank_model(model, [SAMPLE])

    chosen = select_constraints(
        ranking, SelectionRequest(tolerance=0.02), model=model, samples=[SAMPLE]
    )

    assert chosen.measured_error <= 0.02
    kept = [name for layer in chosen.layers for name in layer.outputs]
    assert measure_output_error(model, [SAMPLE], fp32_outputs=kept) == chosen.measured_error
    assert measure_output_error(model, [SAMPLE]) > 0.02


def test_classes_of_single_samples_count_by_their_share():
    """Three samples of one element each, one of which changes: a third, and no root of it."""
    nodes = [
        node("Add", ["x", "offset"], "b", name="/shift"),
        node("Sub", ["b", "offset"], "u", name="/unshift"),
        node("ArgMax", ["u"], "y", name="/argmax", axis=0),
    ]
    model = build_model(
        nodes,
        [tensor("x", [2])],
        [tensor("y", [1], TensorProto.INT64)],
        {"offset": scalar(500.0)},
    )
    samples = [np.array(x, np.float32) for x in ([0.05, 0.1], [1.0, 0.0], [0.0, 1.0])]

    ranking = rank_model(model, [{"x": x} for x in samples])

    assert ranking.output_error.measured == pytest.approx(1 / 3)


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
def test_a_decision_within_the_model_is_named_and_not_called_harmless(impact):
    nodes = [
        node("MatMul", ["x", "w1"], "scores", name="/gate"),
        node("ArgMax", ["scores"], "best", name="/argmax", axis=-1, keepdims=0),
        node("Gather", ["table", "best"], "rows", name="/gather"),
        node("Exp", ["rows"], "y", name="/exp"),
    ]
    weights = {"w1": WEIGHTS["w1"], "table": normal(4, 32, 4)}
    model = build_model(nodes, [tensor("x", [64, 32])], [tensor("y", [64, 4])], weights)

    ranking = rank_model(model, [SAMPLE], impact=impact)

    gate = next(layer for layer in ranking.layers if layer.name == "/gate")
    assert gate.impact == 0.0
    assert gate.reason == "not judged: it reaches the outputs only by what ArgMax decides"


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
def test_a_layer_from_which_nothing_gets_to_the_outputs_that_count_is_not_judged(impact):
    exp = node("Exp", ["a"], "side", name="/side")
    model = model_of(exp, outputs=[tensor("logits", [64, 8]), tensor("side", [64, 32])])

    ranking = rank_model(model, [SAMPLE], outputs=["logits"], impact=impact)

    side = next(layer for layer in ranking.layers if layer.name == "/side")
    assert side.reason == "not judged: no error gets from here to an output that counts"


@pytest.mark.parametrize(
    ("tail", "weights"),
    [
        ([node("Mul", ["logits", "none"], "y", name="/zero")], {"none": scalar(0.0)}),
        ([node("Shape", ["logits"], "y", name="/shape")], {}),
        ([node("Div", ["logits", "none"], "y", name="/nan")], {"none": scalar(0.0)}),
    ],
)
def test_where_nothing_can_be_judged_it_is_an_error_that_says_so(tail, weights):
    model = model_of(*tail, outputs=[tensor("y", None)], weights=weights)

    with pytest.raises(ExecutionError, match="No layer can be judged by the outputs"):
        rank_model(model, [SAMPLE])
