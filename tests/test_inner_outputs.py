"""Layers are judged by tensors within the model, or up to what cannot be computed."""

from __future__ import annotations

import pytest

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.pipeline import (
    measure_exact_impacts,
    select_constraints,
)
from polygraphy_layerprec.selection import SelectionRequest
from tests.judged_models import SAMPLE, model_of, plain
from tests.models import custom_domain, node, normal, tensor


def test_tensors_within_the_model_are_judged_by_up_to_there():
    ranking = rank_model(
        model_of(node("Exp", ["logits"], "y", name="/exp"), outputs=[tensor("y", None)]),
        [SAMPLE],
        outputs=["logits"],
    )
    cut = rank_model(plain(), [SAMPLE])

    assert ranking.layers == cut.layers
    assert [output.name for output in ranking.output_error.outputs] == ["logits"]
    assert ranking.model.node_count == 5
    assert ranking.unmeasured == ()


def test_sets_of_layers_are_chosen_by_tensors_within_the_model_too():
    model = model_of(node("Exp", ["logits"], "y", name="/exp"), outputs=[tensor("y", None)])
    ranking = rank_model(model, [SAMPLE], outputs=["logits"])

    chosen = select_constraints(
        ranking,
        SelectionRequest(tolerance=2e-3),
        model=model,
        samples=[SAMPLE],
        outputs=["logits"],
    )

    assert {layer.name for layer in chosen.layers} == {"/shift", "/unshift"}
    assert chosen.measured_error <= 2e-3
    exact = measure_exact_impacts(model, [SAMPLE], outputs=["logits"])
    assert set(exact) == {"a", "b", "u", "logits"}


def test_a_name_that_no_tensor_has_is_an_error():
    with pytest.raises(ExecutionError, match="no output named 'nothing', nor any other tensor"):
        rank_model(plain(), [SAMPLE], outputs=["nothing"])


def test_a_model_that_ends_in_a_plugin_is_judged_by_what_the_plugin_takes():
    model = custom_domain()
    del model.graph.output[1]
    del model.graph.node[3]
    sample = {"x": normal(0, 2, 4)}

    ranking = rank_model(model, [sample])

    (before,) = ranking.layers
    assert before.impact == pytest.approx(before.introduced_error, rel=1e-2)
    assert [output.name for output in ranking.output_error.outputs] == ["h"]
    assert [layer.name for layer in ranking.unmeasured] == ["plugin", "after"]
    assert any("'h'" in warning for warning in ranking.warnings)


def test_beside_an_output_that_can_be_computed_a_plugin_changes_nothing():
    ranking = rank_model(custom_domain(), [{"x": normal(0, 2, 4)}])

    assert [output.name for output in ranking.output_error.outputs] == ["y", "z"]


def test_an_output_that_no_kernel_computes_says_how_to_rank_up_to_it():
    resize = node("Scan", ["logits"], "y", name="/last")
    model = model_of(resize, outputs=[tensor("y", None)])

    with pytest.raises(ExecutionError, match="--outputs logits"):
        rank_model(model, [SAMPLE])
