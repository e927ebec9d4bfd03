"""Files of earlier versions: their names within functions were those of onnx's inliner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import numpy_helper

from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.matching.earlier_versions import (
    constraints_of_today,
    ranking_of_today,
)
from polygraphy_layerprec.matching.requested_precisions import requested_by_ranking
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.earlier_names import earlier_names
from polygraphy_layerprec.pipeline import rank_model, select_constraints
from polygraphy_layerprec.plan.network_widths import constraint_of
from polygraphy_layerprec.selection import SelectionRequest
from tests.function_models import SAMPLE, call, function, model_of
from tests.models import node, small_cnn

OLD_DIGEST = "5e" * 32


def constant(name, value):
    return node("Constant", [], name, value=numpy_helper.from_array(np.float32(value)))


def nested():
    """Returns a model that calls a function of functions twice, with constants within."""
    inner = function(
        "Inner",
        ["a"],
        ["c"],
        [
            constant("k", 0.5),
            node("Mul", ["a", "k"], "b", name="half"),
            node("Tanh", ["b"], "c", name="squash"),
        ],
    )
    outer = function(
        "Outer",
        ["a"],
        ["z"],
        [
            call("Inner", ["a"], "m", name="first"),
            call("Inner", ["m"], "n", name="second"),
            node("Add", ["m", "n"], "z", name="sum"),
        ],
    )
    calls = [call("Outer", ["x"], "h", name="one"), call("Outer", ["h"], "y", name="two")]
    return model_of(calls, [inner, outer])


@pytest.fixture
def graph(tmp_path):
    onnx.save(nested(), tmp_path / "model.onnx")
    return load_graph(tmp_path / "model.onnx")


def of_then(model):
    """Returns the ranking of a model as an earlier version wrote it."""
    ranking = rank_model(onnx.inliner.inline_local_functions(model), [SAMPLE])
    return replace(ranking, model=replace(ranking.model, name="model.onnx", digest=OLD_DIGEST))


def test_every_name_of_the_inliner_has_one_of_today(graph):
    inlined = onnx.inliner.inline_local_functions(nested()).graph.node
    names = earlier_names(graph)

    made = [name for proto in inlined if proto.op_type != "Constant" for name in proto.output]
    assert set(names) == set(made)
    assert sorted(names.values()) == sorted(graph.producers)
    assert names["y"] == "y"


def test_an_old_ranking_is_read_under_the_names_of_today(graph):
    now = rank_model(graph, [SAMPLE])
    old = of_then(nested())
    assert {layer.name for layer in old.layers}.isdisjoint(layer.name for layer in now.layers)

    read = ranking_of_today(graph, old)

    for found, expected in zip(read.layers, now.layers, strict=True):
        assert (found.name, found.node_name) == (expected.name, expected.node_name)
        assert (found.inputs, found.outputs) == (expected.inputs, expected.outputs)
        assert found.trace == expected.trace
        assert found.impact == pytest.approx(expected.impact, rel=1e-6)


def test_sets_of_an_old_ranking_are_measured(graph):
    read = ranking_of_today(graph, of_then(nested()))

    selection = select_constraints(read, SelectionRequest(top_k=2), model=graph, samples=[SAMPLE])

    assert [layer.name for layer in selection.layers] == [layer.name for layer in read.layers[:2]]
    assert selection.decision is not None
    assert selection.decision.outcome.error < selection.decision.lowered.error


def test_verification_takes_an_old_ranking_and_says_that_it_is_old(graph, tmp_path):
    save_ranking(of_then(nested()), tmp_path / "old.json")

    asked = requested_by_ranking(tmp_path / "old.json", graph, SelectionRequest(top_k=1))

    (kept,) = asked.constraints
    assert kept.outputs[0] in graph.producers
    assert "another kind of digest" in asked.warnings[0]


def test_old_constraints_are_read_under_the_names_of_today(graph):
    inlined = load_graph(onnx.inliner.inline_local_functions(nested()))
    old = [constraint_of(layer, f"reason {layer.index}") for layer in inlined.layers]

    read = constraints_of_today(graph, OLD_DIGEST, old)

    assert [c.outputs for c in read] == [layer.outputs for layer in graph.layers]
    assert [c.reason for c in read] == [c.reason for c in old]


def test_names_that_nothing_explains_stay_as_they_are(graph):
    old = [constraint_of(layer) for layer in load_graph(small_cnn()).layers]

    assert constraints_of_today(graph, OLD_DIGEST, old) == tuple(old)


def test_a_file_of_today_is_not_reinterpreted(graph):
    now = rank_model(graph, [SAMPLE])
    stranger = replace(now, layers=(replace(now.layers[0], outputs=("m__1",)),))

    assert ranking_of_today(graph, stranger) is stranger
