"""The digest: of structure and of the ends of weights, and of nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from polygraphy_layerprec.model import identify, load_graph
from polygraphy_layerprec.records.model_identity import are_comparable
from tests.models import (
    build_model,
    if_with_capture,
    local_function,
    loop_with_capture,
    node,
    normal,
    save_with_external_data,
    small_cnn,
    tensor,
)


def digest(model, **options) -> str:
    return identify(load_graph(model, **options)).digest


def golden_model(*, slope=0.25, opset=17, shape=(2, 4), element_type=TensorProto.FLOAT):
    """One node of each kind that the digest treats by itself."""
    body = helper.make_graph(
        [
            node(
                "Constant", [], "c", value=numpy_helper.from_array(np.arange(4, dtype=np.float32))
            ),
            node("Mul", ["state", "c"], "s"),
            node("Identity", ["on"], "off"),
        ],
        "body",
        [
            tensor("i", [], TensorProto.INT64),
            tensor("on", [], TensorProto.BOOL),
            tensor("state", shape, element_type),
        ],
        [tensor("off", [], TensorProto.BOOL), tensor("s", shape, element_type)],
    )
    branches = {
        f"{side}_branch": helper.make_graph(
            [node(op, ["looped"], side)], side, [], [tensor(side, shape, element_type)]
        )
        for side, op in (("then", "Abs"), ("else", "Neg"))
    }
    nodes = [
        node("LeakyRelu", ["x"], "h", name="leaky", alpha=slope),
        node("Gather", ["table", "ids"], "row", name="gather", axis=0),
        node("Add", ["h", "row"], "sum", name="add"),
        node("Loop", ["n", "", "sum"], "looped", name="loop", body=body),
        node("If", ["go"], "y", name="if", **branches),
    ]
    weights = {
        "table": np.arange(5000, dtype=np.float32).reshape(1250, 4),
        "ids": np.array([0, 7], np.int64),
        "n": np.array(2, np.int64),
    }
    inputs = [tensor("x", shape, element_type), tensor("go", [], TensorProto.BOOL)]
    outputs = [tensor("y", shape, element_type)]
    return build_model(nodes, inputs, outputs, weights, opset=opset)


GOLDEN = "2:c1ea4f4ae35bdccaf9fc46a1016d38b713f2dbca8e67e406c22c1b15d46c1111"
"""Changes only with the version before the colon: files that were saved hold such digests."""


def test_the_digest_is_the_same_in_every_version():
    assert digest(golden_model()) == GOLDEN


def test_the_digest_is_the_same_in_every_process():
    code = (
        "from tests.model.test_digest import digest, texts;"
        "from tests.models import loop_with_capture;"
        "print(digest(texts(b'one', b'two')), digest(loop_with_capture()))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.split() == [digest(texts(b"one", b"two")), digest(loop_with_capture())]


def test_only_digests_of_one_version_can_be_compared():
    assert are_comparable("2:ab", "2:cd")
    assert are_comparable("ab", "cd")  # before there were versions
    assert not are_comparable("ab", "2:ab")
    assert not are_comparable("2:ab", "3:ab")


def test_how_python_shows_our_classes_is_no_part_of_it(monkeypatch):
    from polygraphy_layerprec.model import element_types, expansion, graph, roles, weights

    def refuse(_self):
        raise AssertionError

    for shown in (
        *(expansion.Guard, expansion.PlacedNode, graph.Node, graph.Graph, graph.GraphInput),
        *(roles.Role, weights.Weight, element_types.ValueType),
    ):
        monkeypatch.setattr(shown, "__repr__", refuse)
        monkeypatch.setattr(shown, "__str__", refuse, raising=False)

    assert digest(golden_model()) == GOLDEN


@pytest.mark.parametrize(
    "build", [golden_model, small_cnn, loop_with_capture, local_function, if_with_capture]
)
def test_where_weights_lie_is_no_part_of_it(build, tmp_path):
    model = build()
    onnx.save(model, tmp_path / "inside.onnx")
    save_with_external_data(model, tmp_path / "outside.onnx")
    (tmp_path / "moved").mkdir()
    save_with_external_data(model, tmp_path / "moved" / "renamed.onnx")
    parted = tmp_path / "parted"
    parted.mkdir()
    for data in (tmp_path / "moved").glob("*.data"):
        data.rename(parted / data.name)

    found = {
        digest(model),
        digest(tmp_path / "inside.onnx"),
        digest(tmp_path / "outside.onnx"),
        digest(tmp_path / "moved" / "renamed.onnx", external_data_folder=str(parted)),
    }

    assert len(found) == 1


def test_how_numbers_are_stored_is_no_part_of_it():
    typed, raw = golden_model(), golden_model()
    table = typed.graph.initializer[0]
    values = numpy_helper.to_array(table)
    table.ClearField("raw_data")
    table.float_data.extend(values.reshape(-1).tolist())

    assert digest(typed) == digest(raw)


def test_what_is_for_readers_is_no_part_of_it():
    model = golden_model()
    model.doc_string = model.graph.doc_string = model.producer_name = "other"
    model.graph.name = "other"
    for made in model.graph.node:
        made.name, made.doc_string = "", "other"
        for attribute in made.attribute:
            attribute.doc_string = "other"
    model.graph.value_info.append(tensor("h", [2, 4]))

    assert digest(model) == digest(golden_model())


def texts(*strings):
    """A model with a weight of texts."""
    nodes = [node("Equal", ["x", "w"], "y")]
    inputs = [tensor("x", [2], TensorProto.STRING)]
    model = build_model(nodes, inputs, [tensor("y", [2], TensorProto.BOOL)], opset=19)
    model.graph.initializer.append(
        TensorProto(name="w", data_type=TensorProto.STRING, dims=[2], string_data=strings)
    )
    return model


def test_texts_are_compared_by_what_they_say():
    assert digest(texts(b"one", b"two")) == digest(texts(b"one", b"two"))
    assert digest(texts(b"one", b"two")) != digest(texts(b"one", b"six"))


def changed(change: Callable[[ModelProto], object]) -> ModelProto:
    model = golden_model()
    change(model)
    return model


def with_table(position: int, value: float) -> Callable[[ModelProto], object]:
    def change(model: ModelProto) -> None:
        table = model.graph.initializer[0]
        values = numpy_helper.to_array(table).copy()
        values.reshape(-1)[position] = value
        table.CopyFrom(numpy_helper.from_array(values, table.name))

    return change


def with_body_constant(model: ModelProto) -> None:
    constant = model.graph.node[3].attribute[0].g.node[0].attribute[0].t
    constant.CopyFrom(numpy_helper.from_array(np.ones(4, np.float32)))


def with_body_operator(model: ModelProto) -> None:
    model.graph.node[3].attribute[0].g.node[1].op_type = "Add"


def with_branch_operator(model: ModelProto) -> None:
    model.graph.node[4].attribute[0].g.node[0].op_type = "Exp"


def with_branches_exchanged(model: ModelProto) -> None:
    for attribute, name in zip(
        model.graph.node[4].attribute, ("then_branch", "else_branch"), strict=True
    ):
        attribute.name = name


def with_tensor_renamed(model: ModelProto) -> None:
    model.graph.node[0].output[0] = model.graph.node[2].input[0] = "renamed"


def with_weight_type(model: ModelProto) -> None:
    ids = np.array([0, 7], np.int32)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(ids, "ids"))


CHANGES = {
    "an attribute": golden_model(slope=0.5),
    "the opset": golden_model(opset=16),
    "a shape": golden_model(shape=("n", 4)),
    "the type of inputs": golden_model(element_type=TensorProto.DOUBLE),
    "the first number of a weight": changed(with_table(0, -1)),
    "the last number of a weight": changed(with_table(-1, -1)),
    "the type of a weight": changed(with_weight_type),
    "a constant in a body": changed(with_body_constant),
    "an operator in a body": changed(with_body_operator),
    "an operator in a branch": changed(with_branch_operator),
    "which branch is which": changed(with_branches_exchanged),
    "the name of a tensor": changed(with_tensor_renamed),
    "another output": changed(lambda m: m.graph.output.append(tensor("h", [2, 4]))),
    "one node more": changed(lambda m: m.graph.node.add(op_type="Abs", input="h", output="z")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_model_computes_is_part_of_it(change):
    assert digest(CHANGES[change]) != digest(golden_model())


def test_every_change_has_a_digest_of_its_own():
    assert len({digest(model) for model in CHANGES.values()}) == len(CHANGES)


def test_a_weight_counts_by_its_ends_alone():
    """Reading all of every weight would cost as much as a ranking."""
    assert digest(changed(with_table(2500, -1))) == digest(golden_model())


def test_an_overridable_weight_and_one_that_is_none_are_told_apart():
    nodes = [node("Mul", ["x", "w"], "y")]
    weights = {"w": normal(0, 4)}
    plain = build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], weights)
    declared = build_model(
        nodes, [tensor("x", [2, 4]), tensor("w", [4])], [tensor("y", [2, 4])], weights
    )

    assert digest(plain) == digest(declared)  # nobody overrides it here
