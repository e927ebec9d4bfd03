"""Verdicts on whole models: healthy ones keep nothing, broken ones what breaks them."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import select_constraints
from polygraphy_layerprec.records import RequestedPrecisions
from polygraphy_layerprec.selection import SelectionRequest, constraints_of
from polygraphy_layerprec.verify import verify_model
from tests import models, reported_models
from tests.models import build_model, node, normal, sample_inputs, scalar, tensor

pytestmark = pytest.mark.onnxrt


def decide(model, samples, **options):
    ranking = rank_model(model, samples)
    return select_constraints(ranking, SelectionRequest(), model=model, samples=samples, **options)


@pytest.mark.parametrize("make", [models.small_cnn, models.small_transformer])
def test_healthy_models_keep_nothing(make):
    model = make()

    selection = decide(model, [sample_inputs(model)])

    assert selection.layers == ()
    assert selection.decision.verdict == "fine"
    assert "FP16 is fine, no layer needs to stay in FP32" in selection.decision.sentence


def residual(factor):
    """A residual that is scaled by a factor before it is normalised."""
    nodes = [
        node("MatMul", ["x", "w"], "inner", name="project"),
        node("Mul", ["inner", "factor"], "large", name="scale"),
        node("LayerNormalization", ["large", "gamma"], "normal", name="norm", axis=-1),
        node("MatMul", ["normal", "v"], "y", name="head"),
    ]
    weights = {
        "w": normal(1, 32, 32, scale=0.2),
        "factor": scalar(factor),
        "gamma": np.ones(32, np.float32),
        "v": normal(2, 32, 32, scale=0.2),
    }
    return build_model(nodes, [tensor("x", [4, 32])], [tensor("y", [4, 32])], weights)


def test_a_residual_that_overflows_is_kept_and_nothing_beyond_it():
    samples = [{"x": normal(0, 4, 32)}]

    healthy, broken = (decide(residual(factor), samples) for factor in (1.0, 1e6))

    assert healthy.decision.verdict == "fine"
    assert broken.decision.verdict == "broken"
    assert [layer.name for layer in broken.layers] == ["scale", "norm"]
    assert broken.decision.outcome.passed
    assert broken.decision.sentence.startswith("FP16 is broken by scale")
    assert broken.cost.node_count == 2


def test_the_set_in_the_list_is_the_one_that_is_measured():
    samples = [{"x": normal(0, 4, 32)}]
    selection = decide(residual(1e6), samples)

    chosen = selection.decision.sets[selection.decision.chosen - 1]

    assert chosen.layers == tuple(layer.name for layer in selection.layers)
    assert chosen.cost == selection.cost
    assert selection.decision.lowered.headline.criterion.finiteness


def test_a_decision_on_what_a_kept_layer_makes_is_made_in_fp32():
    model, sample = reported_models.hardmax_between_kept()

    selection = decide(model, [sample])

    assert [layer.name for layer in selection.layers] == ["/first"]
    assert selection.decision.verdict == "inaccurate"
    assert selection.decision.outcome.passed
    assert selection.cost.cast_count == 2


def test_layers_that_were_not_measured_count_as_well():
    model, sample = reported_models.layers_in_branches()
    graph, request = load_graph(model), SelectionRequest(tolerance=1e-4)

    ranking = rank_model(graph, [sample])
    selection = select_constraints(ranking, request, model=graph, samples=[sample])
    asked = RequestedPrecisions("the choice", "fp16", constraints_of(selection), ())
    verification = verify_model(graph, [sample], asked, tolerance=1e-4)

    assert len(ranking.layers) < ranking.layer_count == verification.layer_count
    assert selection.decision.sentence == verification.sentence
