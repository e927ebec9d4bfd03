"""Types and shapes of every value agree with what ONNX-Runtime computes."""

from __future__ import annotations

import inspect

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.element_types import NOT_A_TENSOR, UNKNOWN_TYPE
from tests import hazard_models, models, structure_models, subgraph_models
from tests.eager_models import eager_model, run_whole, session_of, tensor_names
from tests.emit.onnx_zoo import ZOO, feeds
from tests.models import build_model, node, normal, sample_inputs, tensor

pytestmark = pytest.mark.onnxrt

RANDOM = {"random draws", "random_numbers"}
HALVES = {"half part", "float16_part"}
REFUSED = {"odd_names"}
"""Two nodes have one name."""
WITHOUT_KERNEL = {"custom_domain"}
MODULES = (models, structure_models, subgraph_models, hazard_models)
BUILDERS = {
    name: build
    for module in MODULES
    for name in module.__all__
    if inspect.isfunction(build := getattr(module, name))
    and inspect.signature(build).return_annotation == "onnx.ModelProto"
    and all(p.default is not p.empty for p in inspect.signature(build).parameters.values())
} | ZOO


def described(declared, value):
    """Element type and shape of an output of ONNX-Runtime; no shape where it is no tensor."""
    kind, _, element = declared.type.removesuffix(")").partition("(")
    if kind != "tensor":
        return NOT_A_TENSOR, None
    return TensorProto.DataType.Value(element.upper()), tuple(value.shape())


def allows(shape, found):
    """Whether a shape that was inferred is that of a value, as far as it says anything."""
    return shape is None or (
        len(shape) == len(found)
        and all(not isinstance(a, int) or a == b for a, b in zip(shape, found, strict=True))
    )


def assert_types_agree(model, samples):
    """Checks every value of the flat graph against what ONNX-Runtime computes."""
    graph = load_graph(model)
    session = session_of(eager_model(graph))
    names = tensor_names(graph)
    fed = {name: ort.OrtValue.ortvalue_from_numpy(v) for name, v in samples.items()}
    found = session.run_with_ort_values(names, fed)
    for name, declared, value in zip(names, session.get_outputs(), found, strict=True):
        element_type, shape = described(declared, value)
        assert graph.types[name].element_type == element_type, name
        assert shape is None or allows(graph.types[name].shape, shape), name


@pytest.mark.parametrize("case", sorted(BUILDERS.keys() - WITHOUT_KERNEL))
def test_every_value_has_the_type_that_onnxruntime_computes(case):
    model = BUILDERS[case]()

    assert_types_agree(model, feeds(model) if case in ZOO else sample_inputs(model))


@pytest.mark.parametrize("case", sorted(BUILDERS.keys() - WITHOUT_KERNEL - RANDOM - REFUSED))
def test_the_flat_graph_computes_what_the_model_computes(case):
    model = BUILDERS[case]()
    samples = feeds(model) if case in ZOO else sample_inputs(model)

    flat = run_whole(eager_model(load_graph(model)), samples)

    for name, expected in run_whole(model, samples).items():
        if isinstance(expected, (list, type(None))):
            assert type(flat[name]) is type(expected)
        else:
            # FP16 is computed in FP32 between casts, whose places depend on what is an output.
            rtol = 2.0**-10 if case in HALVES else 0.0
            np.testing.assert_allclose(flat[name], expected, rtol=rtol)


def conditional(then_nodes, else_nodes, *, declared=True):
    """An `If` whose branches give `t` and `e`, between a Tanh and an Exp."""
    branches = {
        f"{side}_branch": helper.make_graph(
            nodes,
            side,
            [],
            [tensor(name, None) if declared else onnx.ValueInfoProto(name=name)],
        )
        for side, name, nodes in (("then", "t", then_nodes), ("else", "e", else_nodes))
    }
    nodes = [
        node("Tanh", ["x"], "h"),
        node("If", ["go"], "chosen", name="if", **branches),
        node("Exp", ["chosen"], "y"),
    ]
    inputs = [tensor("x", [2, 4]), tensor("go", [], TensorProto.BOOL)]
    return build_model(nodes, inputs, [tensor("y", None)], {"w": normal(0, 3, 4)})


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("go", [True, False])
def test_branches_may_give_other_shapes_each(go, declared):
    model = conditional(
        [node("Neg", ["h"], "t")], [node("Concat", ["h", "w"], "e", axis=0)], declared=declared
    )

    assert_types_agree(model, {"x": normal(1, 2, 4), "go": np.array(go)})
    graph = load_graph(model)
    assert graph.types["t"].shape == (2, 4)
    assert graph.types["e"].shape == (5, 4)
    assert graph.is_fp32("y")


def test_branches_that_agree_tell_the_shape():
    model = conditional([node("Neg", ["h"], "t")], [node("Abs", ["h"], "e")])

    assert load_graph(model).types["y"].shape == (2, 4)


@pytest.mark.parametrize("by_graph", [[2, 4], None, "nothing"])
@pytest.mark.parametrize("by_branch", [[2, 4], None, "nothing"])
def test_a_tensor_is_of_the_type_that_its_graph_or_a_branch_declares(by_graph, by_branch):
    """Nobody else can tell what an operator of a vendor gives."""
    model = conditional([], [node("Abs", ["x"], "e")])
    model.graph.node[0].CopyFrom(helper.make_node("Magic", ["x"], ["h"], domain="vendor"))
    model.opset_import.add(domain="vendor", version=1)
    handed_on = model.graph.node[1].attribute[1].g.output[0]
    for declared, shape in ((model.graph.value_info.add(), by_graph), (handed_on, by_branch)):
        declared.CopyFrom(onnx.ValueInfoProto(name="h"))
        if shape != "nothing":
            declared.CopyFrom(tensor("h", shape))

    found = load_graph(model).types["h"]

    if by_graph == by_branch == "nothing":
        assert not found.is_known
    else:
        said = by_branch if by_graph == "nothing" else by_graph
        assert found == (TensorProto.FLOAT, None if said is None else tuple(said))


def test_what_onnxruntime_adds_is_typed_by_it_and_so_is_what_follows():
    gelu = helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft")
    nodes = [gelu, node("Transpose", ["g"], "t"), node("Shape", ["t"], "s")]
    outputs = [tensor("t", None), tensor("s", None, TensorProto.INT64)]
    model = build_model(nodes, [tensor("x", [2, 4])], outputs, domains=["com.microsoft"])
    model.graph.ClearField("output")
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in "ts")

    types = load_graph(model).types

    assert types["g"] == (TensorProto.FLOAT, (2, 4))
    assert types["t"] == (TensorProto.FLOAT, (4, 2))
    assert types["s"].element_type == TensorProto.INT64


def test_what_nobody_knows_is_of_unknown_type():
    magic = helper.make_node("Magic", ["x"], ["m"], domain="vendor")
    nodes = [magic, node("Identity", ["m"], "i"), node("Mul", ["m", "x"], "y")]
    outputs = [onnx.ValueInfoProto(name="i"), onnx.ValueInfoProto(name="y")]
    model = build_model(nodes, [tensor("x", [2, 4])], outputs, domains=["vendor"])

    graph = load_graph(model)

    assert graph.element_type("m") == graph.element_type("i") == UNKNOWN_TYPE
    assert graph.is_fp32("y")  # Mul has one type for all


def test_a_result_of_one_possible_type_has_it_where_inference_fails(monkeypatch):
    nodes = [
        node("Shape", ["x"], "s"),
        node("Greater", ["x", "x"], "g"),
        node("ArgMax", ["x"], "a", axis=-1),
        node("Cast", ["s"], "y", to=TensorProto.FLOAT),
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in "sgay"]
    model = build_model(nodes, [tensor("x", [2, 4])], outputs)
    asked = []

    def refuse(*_arguments, **_options):
        raise RuntimeError

    monkeypatch.setattr("onnx.shape_inference.infer_shapes", refuse)
    monkeypatch.setattr(
        "polygraphy_layerprec.model.value_types.output_types",
        lambda proto, *_, **__: asked.append(proto.op_type) or {},
    )
    graph = load_graph(model)

    assert graph.element_type("s") == graph.element_type("a") == TensorProto.INT64
    assert graph.element_type("g") == TensorProto.BOOL
    assert asked == ["Cast"]
