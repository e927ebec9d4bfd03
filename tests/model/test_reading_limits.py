"""Reading takes time in proportion to the model, and ends where a model nests without end."""

from __future__ import annotations

import cProfile
import pstats
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.reading import FORMS, make_model
from polygraphy_layerprec.model import ModelError, identify, load_graph, memory_limit, value_types
from polygraphy_layerprec.model.element_types import UNKNOWN_TYPE
from polygraphy_layerprec.model.expansion import _Expander
from tests.models import build_model, node, tensor
from tests.processes import run_command

X, Y = [tensor("x", [2, 4])], [tensor("y", [2, 4])]
DOMAIN = "test.functions"


def calls_to_read(model, folder) -> int:
    """Number of Python calls that reading and identifying takes."""
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    write_weights(model, folder)
    profile = cProfile.Profile()
    profile.enable()
    graph = load_graph(folder / "m.onnx")
    identify(graph)
    profile.disable()
    assert len(graph.nodes) >= len(model.graph.node)
    return pstats.Stats(profile).total_calls


def write_weights(model, folder):
    with open(folder / "weights.data", "wb") as data:
        data.truncate(len(model.graph.initializer) * 128 * 128 * 4)


@pytest.mark.parametrize("form", FORMS)
def test_reading_twice_the_nodes_takes_twice_the_calls(form, tmp_path):
    calls_to_read(make_model(form, 100), tmp_path)  # fills caches of schemas

    once, twice = (calls_to_read(make_model(form, count), tmp_path) for count in (1000, 2000))

    assert 1.8 * once < twice <= 2.2 * once


@pytest.mark.parametrize("form", FORMS)
def test_the_models_that_are_timed_have_the_nodes_they_say(form, tmp_path):
    model = make_model(form, 1000)
    write_weights(model, tmp_path)

    graph = load_graph(model, external_data_folder=str(tmp_path))

    assert 980 <= sum(n.op_type != "If" for n in graph.nodes) <= 1000
    assert sum(n.op_type == "MatMul" for n in graph.nodes) == 10
    assert all(weight.path for weight in graph.weights.values())


def test_inference_is_not_shown_branches(monkeypatch, tmp_path):
    """It copies all types that are known so far for every body."""
    model = make_model("branches", 100)
    write_weights(model, tmp_path)
    shown = []
    infer = onnx.shape_inference.infer_shapes
    monkeypatch.setattr(
        "onnx.shape_inference.infer_shapes", lambda m, **o: shown.append(m) or infer(m, **o)
    )

    load_graph(model, external_data_folder=str(tmp_path))

    assert shown
    assert not [n for m in shown for n in m.graph.node if any(a.HasField("g") for a in n.attribute)]


def test_a_branch_within_a_function_names_its_own_tensors_alone(monkeypatch):
    """Copying the names around it, for each, would take time by the square of a function's size."""
    named = []
    name_locals = _Expander._locals
    monkeypatch.setattr(
        _Expander,
        "_locals",
        lambda *arguments: named.append(name_locals(*arguments)) or named[-1],
    )
    size = 100
    nodes = []
    for i in range(size):
        graphs = {
            f"{side}_branch": onnx.GraphProto(
                name=side,
                node=[node("Tanh", ["a"], f"{side}{i}")],
                output=[onnx.ValueInfoProto(name=f"{side}{i}")],
            )
            for side in ("then", "else")
        }
        nodes.append(node("If", ["go"], f"t{i}", **graphs))
    nodes.append(node("Sum", [f"t{i}" for i in range(size)], "b"))
    wide = helper.make_function(
        DOMAIN, "Wide", ["a", "go"], ["b"], nodes, [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("Wide", ["x", "go"], ["y"], domain=DOMAIN)
    inputs = [*X, tensor("go", [], TensorProto.BOOL)]

    graph = load_graph(build_model([call], inputs, Y, functions=[wide], domains=[DOMAIN]))

    assert len(graph.nodes) == 3 * size + 1
    assert sum(map(len, named)) == 2 * size


def calls_of_one_name(count):
    function = helper.make_function(
        DOMAIN, "F", ["a"], ["b"], [node("Tanh", ["a"], "t"), node("Neg", ["t"], "b")], []
    )
    names = ["x", *(f"v{i}" for i in range(1, count)), "y"]
    calls = [
        helper.make_node("F", [names[i]], [names[i + 1]], name="call", domain=DOMAIN)
        for i in range(count)
    ]
    return build_model(calls, X, Y, functions=[function], domains=[DOMAIN])


def nodes_without_outputs(count):
    nodes = [helper.make_node("Print", ["x"], [], domain=DOMAIN) for _ in range(count)]
    return build_model([*nodes, node("Tanh", ["x"], "y")], X, Y, domains=[DOMAIN])


@pytest.mark.parametrize("make", [calls_of_one_name, nodes_without_outputs])
def test_many_that_want_one_name_get_theirs_at_once(make, monkeypatch):
    """To try all numbers from the first one on, for each, would take time by their square."""
    looks = []

    class Counted(set):
        def __contains__(self, item):
            looks.append(item)
            return super().__contains__(item)

    monkeypatch.setattr("polygraphy_layerprec.model.names.set", Counted, raising=False)

    graph = load_graph(make(500))

    assert len({n.name for n in graph.nodes}) == len(graph.nodes) >= 500
    assert len(looks) < 5000


def nested_ifs(levels):
    """Branches within branches; built from the outside, since protobuf copies no such depth."""
    model = build_model([], [*X, tensor("go", [], TensorProto.BOOL)], Y)
    graph, output = model.graph, "y"
    for level in range(levels):
        made = graph.node.add(op_type="If", input=["go"], output=[output])
        other = made.attribute.add(name="else_branch", type=onnx.AttributeProto.GRAPH).g
        other.output.add(name="x")
        graph = made.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
        output = f"t{level}"
        graph.output.add(name=output)
    graph.node.add(op_type="Tanh", input=["x"], output=[output])
    return model


def nested_loops(levels):
    inputs = [*X, tensor("go", [], TensorProto.BOOL), tensor("n", [], TensorProto.INT64)]
    model = build_model([], inputs, Y)
    graph, output = model.graph, "y"
    for level in range(levels):
        made = graph.node.add(op_type="Loop", input=["n", "go", "x"], output=[output])
        graph = made.attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g
        output = f"t{level}"
        for name in "igs":
            graph.input.add(name=f"{name}{level}")
        graph.output.add(name=f"g{level}")
        graph.output.add(name=output)
    graph.node.add(op_type="Tanh", input=["x"], output=[output])
    return model


def nested_calls(levels):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    functions = [
        helper.make_function(DOMAIN, "F0", ["a"], ["b"], [node("Tanh", ["a"], "b")], opsets)
    ]
    for level in range(1, levels):
        inner = helper.make_node(f"F{level - 1}", ["a"], ["b"], domain=DOMAIN)
        functions.append(helper.make_function(DOMAIN, f"F{level}", ["a"], ["b"], [inner], opsets))
    call = helper.make_node(f"F{levels - 1}", ["x"], ["y"], domain=DOMAIN)
    return build_model([call], X, Y, functions=functions, domains=[DOMAIN])


NESTED = {"branches": nested_ifs, "loops": nested_loops, "calls": nested_calls}


@pytest.mark.parametrize("kind", NESTED)
def test_thirty_levels_are_read(kind):
    graph = load_graph(NESTED[kind](30))

    assert sum(n.op_type == "Tanh" for n in graph.nodes) == (kind != "loops")
    assert "y" in graph.producers


def test_names_of_calls_that_grow_without_bounds_are_told():
    """The name of a call stands before those of all nodes below it."""
    model = nested_calls(90)
    for call in (*model.graph.node, *(f.node[0] for f in model.functions)):
        call.name = "c" * 100_000

    with pytest.raises(ModelError, match="names of more than 268,435,456 characters"):
        load_graph(model)


@pytest.mark.parametrize("kind", NESTED)
def test_five_hundred_levels_are_told(kind):
    with pytest.raises(ModelError, match="in more than 100 levels"):
        load_graph(NESTED[kind](500))


def test_five_hundred_levels_of_calls_in_a_file_are_told(tmp_path):
    onnx.save(nested_calls(500), tmp_path / "m.onnx")

    with pytest.raises(ModelError, match=r"nests .* in more (than 100 )?levels"):
        load_graph(tmp_path / "m.onnx")


def field(number, payload):
    """A field of bytes in protobuf's wire format."""
    size, encoded = len(payload), bytearray()
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2]) + bytes(encoded) + bytes([size]) + payload


@pytest.mark.parametrize("levels", [34, 50, 500])
@pytest.mark.parametrize("length", [1, 10_000])
def test_more_levels_of_bodies_in_a_file_than_protobuf_takes_are_told(length, levels, tmp_path):
    """Which protobuf itself can neither write nor read."""
    graph = field(2, b"g" * length)
    for _ in range(levels):
        graph = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, graph)))
    model = build_model([node("Tanh", ["x"], "y")], X, Y)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString() + field(7, graph))

    with pytest.raises(ModelError, match=r"nests .* in more (than 100 )?levels"):
        load_graph(tmp_path / "m.onnx")


def vector_of_a_trillion():
    """A sum of two vectors that a user would feed."""
    nodes = [node("Add", ["x", "z"], "y", name="add")]
    return nodes, [tensor("x", [2**40]), tensor("z", [2**40])], {}


def doubled_again_and_again():
    """A shape that is joined to itself forty times."""
    nodes = [node("Concat", [f"s{i}"] * 2, f"s{i + 1}", name=f"c{i}", axis=0) for i in range(40)]
    nodes.append(node("Reshape", ["x", "s40"], "y", name="reshape"))
    return nodes, X, {"s0": np.array([1, 2], np.int64)}


def extent_that_is_a_product():
    """A vector whose extent is a number that stands nowhere in the file."""
    nodes = [
        node("Mul", ["s", "s"], "extent", name="square"),
        node("ConstantOfShape", ["extent"], "filled", name="fill"),
        node("Add", ["filled", "filled"], "sum", name="sum"),
        node("Add", ["x", "sum"], "y", name="add"),
    ]
    return nodes, X, {"s": np.array([2**20], np.int64)}


READ_WITHIN_LIMITS = """
import resource, sys
from polygraphy_layerprec.model import load_graph, value_types
value_types._LARGEST_GROWTH_BYTES = 1 << 26
before = resource.getrlimit(resource.RLIMIT_DATA)
graph = load_graph(sys.argv[1])
assert resource.getrlimit(resource.RLIMIT_DATA) == before
print(*(graph.element_type(name) for name in sys.argv[2:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the limit of Linux")
@pytest.mark.parametrize(
    "make", [vector_of_a_trillion, doubled_again_and_again, extent_that_is_a_product]
)
def test_inference_does_not_take_all_memory_for_values_of_shapes(make, tmp_path):
    """In a process of its own: what other tests left behind grows as well."""
    nodes, inputs, initializers = make()
    onnx.save(build_model(nodes, inputs, [tensor("y", None)], initializers), tmp_path / "m.onnx")
    names = "y", nodes[0].output[0]

    done = run_command(
        [sys.executable, "-c", READ_WITHIN_LIMITS, "m.onnx", *names],
        tmp_path,
        {"PYTHONPATH": str(Path(__file__).parents[2])},
    )

    assert done.returncode == 0, done.stderr
    last, first = map(int, done.stdout.split())
    assert last == TensorProto.FLOAT
    assert first != UNKNOWN_TYPE


def test_inference_that_has_no_memory_at_all_leaves_the_types_to_the_schemas(monkeypatch):
    def run_out(*_, **__):
        raise MemoryError

    monkeypatch.setattr(value_types.shape_inference, "infer_shapes", run_out)

    graph = load_graph(build_model([node("Exp", ["x"], "y", name="exp")], X, Y))

    assert graph.is_fp32("y")


def test_where_growth_cannot_be_told_it_is_not_limited(monkeypatch):
    monkeypatch.setattr(memory_limit, "_STATUS", "/there/is/none")

    with memory_limit.limited_growth(0):
        assert bytearray(1 << 24)
