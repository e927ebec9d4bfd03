"""How far local functions are expanded, and which are told apart."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.model import ModelError, load_graph
from tests.function_models import TANH, call, function, model_of
from tests.models import node


@pytest.mark.parametrize("length", [1, 2, 5])
def test_functions_that_call_each_other_in_a_circle_are_told(length):
    functions = [
        function(f"F{i}", ["a"], ["b"], [call(f"F{(i + 1) % length}", ["a"], "b")])
        for i in range(length)
    ]

    with pytest.raises(ModelError, match="in a circle: F0 -> "):
        load_graph(model_of([call("F0", ["x"], "y")], functions))


def tower(levels, base=2):
    """Functions of which each calls the one below `base` times."""
    functions = [TANH]
    for level in range(levels):
        below = "Tanh2" if level == 0 else f"L{level - 1}"
        names = ["a", *(f"t{i}" for i in range(base - 1)), "b"]
        calls = [call(below, [names[i]], names[i + 1], name=f"c{i}") for i in range(base)]
        functions.append(function(f"L{level}", ["a"], ["b"], calls))
    return model_of([call(f"L{levels - 1}", ["x"], "y", name="top")], functions)


def test_a_tower_of_functions_within_bounds_is_expanded():
    graph = load_graph(tower(10))

    assert len(graph.nodes) == len({n.name for n in graph.nodes}) == 1024
    assert len(graph.nodes[0].path) == 11


@pytest.mark.parametrize(
    ("levels", "told"), [(20, "1,048,576 nodes"), (40, "1.1 x 10^12|more than 10\\^12")]
)
def test_a_tower_of_functions_beyond_bounds_is_refused_unexpanded(levels, told, monkeypatch):
    monkeypatch.setattr("polygraphy_layerprec.model.expansion._Expander.run", None)

    with pytest.raises(ModelError, match=f"expand to ({told})"):
        load_graph(tower(levels))


def test_a_function_that_is_never_called_costs_nothing():
    model = tower(40)
    model.graph.node[0].op_type = "L2"

    assert len(load_graph(model).nodes) == 8


def test_functions_are_told_apart_by_overload():
    models = model_of([call("Tanh2", ["x"], "h"), call("Tanh2", ["h"], "y")], [TANH])
    if not hasattr(models.graph.node[0], "overload"):
        pytest.skip("this onnx knows no overloads")
    models.functions.append(function("Tanh2", ["a"], ["b"], [node("Exp", ["a"], "b")]))
    models.functions[1].overload = "other"
    models.graph.node[1].overload = "other"

    assert [n.op_type for n in load_graph(models).nodes] == ["Tanh", "Exp"]
