"""Integers that flow as floats, and that a narrow float cannot tell apart."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.pipeline import (
    measure_exact_impacts,
    select_constraints,
)
from polygraphy_layerprec.precision import BF16
from polygraphy_layerprec.selection import SelectionRequest
from tests.models import build_model, node, normal, scalar, tensor

IDS = np.random.default_rng(0).integers(2100, 6000, (16, 1))


def id_model(*carriers, take):
    weights = {
        "one": scalar(1.0),
        "axis": np.array([1]),
        "depth": scalar(6000.0),
        "table": normal(0, 6000, 4),
        "w": normal(1, 4, 1),
        "onoff": np.array([0.0, 1.0], np.float32),
    }
    nodes = [*carriers, *take, node("MatMul", ["rows", "w"], "score", name="/head")]
    return build_model(nodes, [tensor("ids", [16, 1])], [tensor("score", None)], weights)


GATHER = [
    node("Cast", ["id"], "index", name="/id/Cast", to=TensorProto.INT64),
    node("Squeeze", ["index", "axis"], "flat", name="/id/Squeeze"),
    node("Gather", ["table", "flat"], "rows", name="/emb/Gather"),
]
ONE_HOT = [
    node("Squeeze", ["id", "axis"], "flat", name="/id/Squeeze"),
    node("OneHot", ["flat", "depth", "onoff"], "hot", name="/id/OneHot"),
    node("MatMul", ["hot", "table"], "rows", name="/emb/MatMul"),
]
SHIFTED = node("Sub", ["ids", "one"], "id", name="/id/Sub")


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
@pytest.mark.parametrize("take", [GATHER, ONE_HOT], ids=["gather", "one hot"])
def test_ids_that_are_not_exact_rank_first_by_what_they_do(take, impact):
    model, sample = id_model(SHIFTED, take=take), {"ids": IDS.astype(np.float32)}
    truth = measure_exact_impacts(model, [sample])

    ranking = rank_model(model, [sample], impact=impact)

    first = ranking.layers[0]
    assert (first.name, first.kind) == ("/id/Sub", "inexact integers")
    assert first.reason.startswith("ids beyond 2048 are not exact in FP16")
    assert first.impact == pytest.approx(truth["id"])
    assert first.impact > 0.3
    assert first.impact_method == "exact"
    chosen = select_constraints(
        ranking, SelectionRequest(tolerance=2e-3), model=model, samples=[sample]
    )
    assert "/id/Sub" in {layer.name for layer in chosen.layers}
    assert chosen.measured_error < 2e-3


def test_every_layer_that_carries_the_ids_is_named():
    carriers = [
        node("Sub", ["ids", "one"], "less", name="/id/Sub"),
        node("Identity", ["less"], "same", name="/id/Identity"),
        node("Mul", ["same", "one"], "id", name="/id/Mul"),
    ]
    model = id_model(*carriers, take=GATHER)

    ranking = rank_model(model, [{"ids": IDS.astype(np.float32)}])

    assert {layer.name for layer in ranking.layers[:2]} == {"/id/Sub", "/id/Mul"}
    assert {layer.kind for layer in ranking.layers[:2]} == {"inexact integers"}


@pytest.mark.parametrize(
    ("precision", "most"), [("fp16", 2048), ("bf16", 256)], ids=["fp16", "bf16"]
)
def test_ids_that_are_exact_are_no_trouble(precision, most):
    chosen = {} if precision == "fp16" else {"precision": BF16}
    ids = np.arange(most - 15, most + 1, dtype=np.float32)[:, None]
    model = id_model(SHIFTED, take=GATHER)

    exact = rank_model(model, [{"ids": ids}], **chosen)
    beyond = rank_model(model, [{"ids": ids + 20}], **chosen)

    assert "inexact integers" not in {layer.kind for layer in exact.layers}
    assert beyond.layers[0].kind == "inexact integers"
    assert f"beyond {most} " in beyond.layers[0].reason


def test_large_integers_that_nothing_takes_for_ids_are_no_ids():
    nodes = [
        node("Sub", ["ids", "one"], "id", name="/id/Sub"),
        node("Sin", ["id"], "y", name="/sin"),
    ]
    model = build_model(nodes, [tensor("ids", [16, 1])], [tensor("y", None)], {"one": scalar(1.0)})

    ranking = rank_model(model, [{"ids": IDS.astype(np.float32)}])

    assert "inexact integers" not in {layer.kind for layer in ranking.layers}


def test_samples_whose_ids_are_exact_dilute_the_impact():
    model = id_model(SHIFTED, take=GATHER)
    samples = [{"ids": IDS.astype(np.float32)}, {"ids": IDS.astype(np.float32) % 1000}]
    alone = rank_model(model, samples[:1]).layers[0].impact

    ranking = rank_model(model, samples)

    assert ranking.layers[0].impact == pytest.approx(alone / np.sqrt(2))
    assert ranking.output_error.forecast == pytest.approx(ranking.output_error.measured, rel=0.3)
