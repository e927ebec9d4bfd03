"""What scripts, rankings and mixed-precision models say about layers in FP32."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.emit.mixed_onnx import lower_model, save_mixed_onnx
from polygraphy_layerprec.emit.mixed_onnx.reading import read_mixed_onnx
from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.files.ranking_file import load_ranking, save_ranking
from polygraphy_layerprec.matching.requested_precisions import (
    requested_by_mixed_onnx,
    requested_by_ranking,
    requested_by_script,
)
from polygraphy_layerprec.model import ModelError, identify, load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.pipeline import rank_model, select_constraints
from polygraphy_layerprec.plan import Planner, Target
from polygraphy_layerprec.precision import BF16, FP16, QDQ
from polygraphy_layerprec.records import Constraint
from polygraphy_layerprec.selection import SelectionRequest
from tests.emit.test_runtime_hazards import transposed_product
from tests.models import (
    build_model,
    if_with_capture,
    local_function,
    loop_with_capture,
    node,
    odd_names,
    scalar,
    small_cnn,
    small_transformer,
    tensor,
)
from tests.pair_models import mlp, mlp_inputs, quantised

pytestmark = pytest.mark.onnxrt

IMAGE = {"image": np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)}
CONV = Constraint("/conv2/Conv", "Conv", ("r1", "w2", "b2"), ("c2",), "a test")


@pytest.fixture
def graph(tmp_path):
    onnx.save(small_cnn(), tmp_path / "cnn.onnx")
    return load_graph(tmp_path / "cnn.onnx")


@pytest.fixture
def ranking_path(graph, tmp_path):
    ranking = rank_model(graph, [IMAGE])
    save_ranking(ranking, tmp_path / "ranking.json")
    return tmp_path / "ranking.json"


def save_script(path, **options):
    text = render_network_script(
        [CONV], model_name="cnn.onnx", **{"precision": FP16, "model_digest": "", **options}
    )
    path.write_text(text, encoding="utf-8")
    return path


def test_a_script_of_the_model_says_what_it_keeps(graph, tmp_path):
    path = save_script(tmp_path / "c.py", model_digest=identify(graph).digest)

    asked = requested_by_script(path, graph)

    assert asked.constraints == (CONV,)
    assert asked.precision == "fp16"
    assert asked.warnings == ()


def test_a_script_of_another_model_is_refused(graph, tmp_path):
    path = save_script(tmp_path / "c.py", model_digest="2:" + "ab" * 32)

    with pytest.raises(ValueError, match=r"another model: 'cnn.onnx', digest 2:abababababab"):
        requested_by_script(path, graph)


def test_a_script_of_an_earlier_version_is_matched_by_tensors(graph, tmp_path):
    path = save_script(tmp_path / "c.py", model_digest="ab" * 32)

    asked = requested_by_script(path, graph)

    assert asked.constraints == (CONV,)
    (warning,) = asked.warnings
    assert "another kind of digest" in warning
    assert "'cnn.onnx'" in warning


def test_a_script_without_a_digest_is_told(graph, tmp_path):
    asked = requested_by_script(save_script(tmp_path / "c.py"), graph)

    assert "does not say which model" in asked.warnings[0]


def test_a_script_that_somebody_changed_is_told(graph, tmp_path):
    path = save_script(tmp_path / "c.py", model_digest=identify(graph).digest)
    path.write_text(path.read_text() + "\nprint('more')\n")

    assert "was changed" in requested_by_script(path, graph).warnings[0]


def test_low_inputs_and_outputs_are_told(graph, tmp_path):
    path = save_script(
        tmp_path / "c.py",
        model_digest=identify(graph).digest,
        precision=BF16,
        io_precision="low",
    )

    asked = requested_by_script(path, graph)

    assert asked.precision == "bf16"
    assert "in BF16; these are left in FP32" in asked.warnings[0]


def test_a_ranking_proposes_its_worst_layers(graph, ranking_path):
    asked = requested_by_ranking(ranking_path, graph, SelectionRequest(top_k=2))

    assert len(asked.constraints) == 2
    assert all(constraint.reason for constraint in asked.constraints)


def test_the_set_that_was_measured_for_a_tolerance_goes_before_the_forecast(graph, ranking_path):
    ranking = load_ranking(ranking_path)
    request = SelectionRequest(tolerance=1e-5)
    measured = select_constraints(ranking, request, model=graph, samples=[IMAGE]).decision
    nothing = replace(measured, chosen=1)
    save_ranking(replace(ranking, decision=nothing), ranking_path)

    same, other = (
        requested_by_ranking(ranking_path, graph, SelectionRequest(tolerance=tolerance))
        for tolerance in (1e-5, 1.1e-5)
    )

    assert not same.constraints
    assert other.constraints


def test_a_ranking_of_another_model_is_refused(ranking_path):
    with pytest.raises(ValueError, match="is about another model"):
        requested_by_ranking(ranking_path, load_graph(small_transformer()), SelectionRequest())


def test_a_ranking_of_pairs_says_nothing_of_a_model_as_it_is(tmp_path):
    quantized = load_graph(quantised(mlp(), mlp_inputs(), ops={"MatMul"}))
    pairs = pass_pairs_by(quantized, load_graph(mlp()))
    save_ranking(rank_model(pairs, [mlp_inputs()], precision=QDQ), tmp_path / "pairs.json")

    with pytest.raises(ValueError, match="about the pairs of a quantised model"):
        requested_by_ranking(tmp_path / "pairs.json", quantized, SelectionRequest())


def with_digest(path, digest):
    content = json.loads(path.read_text())
    content["model"]["digest"] = digest
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("digest", ["ab" * 32, "1:" + "ab" * 32])
def test_a_ranking_with_a_digest_of_another_version_is_matched_by_tensors(
    graph, ranking_path, digest
):
    expected = requested_by_ranking(ranking_path, graph, SelectionRequest(top_k=2))
    with_digest(ranking_path, digest)

    asked = requested_by_ranking(ranking_path, graph, SelectionRequest(top_k=2))

    assert asked.constraints == expected.constraints
    assert len(asked.warnings) == len(expected.warnings) + 1
    assert "another kind of digest" in asked.warnings[0]


def test_a_ranking_of_an_earlier_version_is_refused_if_a_tensor_is_missing(graph, ranking_path):
    with_digest(ranking_path, "ab" * 32)
    content = json.loads(ranking_path.read_text())
    content["layers"][-1]["outputs"] = ["gone"]
    ranking_path.write_text(json.dumps(content))

    with pytest.raises(ValueError, match="It makes no tensor 'gone'"):
        requested_by_ranking(ranking_path, graph, SelectionRequest(top_k=1))


def test_a_ranking_with_another_digest_of_this_version_is_refused(graph, ranking_path):
    with_digest(ranking_path, identify(graph).digest[:-1] + "x")

    with pytest.raises(ValueError, match=r"is about another model: 'cnn.onnx', digest 2:"):
        requested_by_ranking(ranking_path, graph, SelectionRequest(top_k=2))


def layers_of(model) -> list[str]:
    return [layer.outputs[0] for layer in load_graph(model).layers]


@settings(max_examples=15)
@given(data=st.data(), precision=st.sampled_from([FP16, BF16]))
@pytest.mark.parametrize("make", [small_cnn, small_transformer])
def test_a_mixed_model_says_what_was_kept(make, data, precision, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    model = make()
    kept = data.draw(st.sets(st.sampled_from(layers_of(model))))
    onnx.save(model, folder / "model.onnx")
    save_mixed_onnx(folder / "model.onnx", folder / "mixed.onnx", kept, precision=precision)
    graph = load_graph(folder / "model.onnx")

    asked = requested_by_mixed_onnx(folder / "mixed.onnx", graph)

    # What a saved model leaves in FP32 anyway was not requested.
    planner = Planner(graph, precision, Target.ONNX, schema_opset=asked.opset)
    left = {left_out.outputs[0] for left_out in planner.plan().left}
    found = {constraint.outputs[0] for constraint in asked.constraints}
    if set(layers_of(model)) <= kept | left:  # then it does not even say which precision
        assert kept <= found <= kept | left
    else:
        assert found == kept - left
        assert asked.precision == precision.name
        assert asked.opset == (22 if precision is BF16 and make is small_cnn else graph.opset())


def test_layers_with_the_same_name_or_a_hostile_one_are_told_apart(tmp_path):
    onnx.save(odd_names(), tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx")
    kept = layers_of(odd_names())[1::2]
    save_mixed_onnx(tmp_path / "model.onnx", tmp_path / "mixed.onnx", kept)

    mixed = read_mixed_onnx(tmp_path / "mixed.onnx", graph)  # ONNX-Runtime refuses such names

    assert [constraint.outputs[0] for constraint in mixed.kept] == kept
    assert mixed.missing == ()


@pytest.mark.parametrize("kept", [["a"], ["b"]])
def test_two_layers_alike_are_told_apart_by_their_tensors(tmp_path, kept):
    nodes = [
        node("Exp", ["x"], "a", name="twin"),
        node("Exp", ["a"], "b", name="twin"),
    ]
    model = build_model(nodes, [tensor("x", [2])], [tensor("b", [2])])
    onnx.save(model, tmp_path / "model.onnx")
    save_mixed_onnx(tmp_path / "model.onnx", tmp_path / "mixed.onnx", kept)

    mixed = read_mixed_onnx(tmp_path / "mixed.onnx", load_graph(model))

    assert [constraint.outputs[0] for constraint in mixed.kept] == kept


def test_what_a_layer_makes_decides_before_what_it_reads(tmp_path):
    nodes = [
        node("DequantizeLinear", ["q", "scale"], "x", name="dequantize"),
        node("Exp", ["x"], "y", name="exp"),
    ]
    inputs, outputs = [tensor("q", [2], TensorProto.INT8)], [tensor("y", [2])]
    model = build_model(nodes, inputs, outputs, {"scale": scalar(0.1)}, opset=23)
    mixed = onnx.ModelProto()
    mixed.CopyFrom(model)
    half = helper.make_attribute("output_dtype", TensorProto.FLOAT16)
    mixed.graph.node[0].attribute.append(half)  # reads a scale in FP32, makes FP16
    mixed.graph.node[1].output[0] = "y16"
    mixed.graph.node.append(node("Cast", ["y16"], "y", to=TensorProto.FLOAT))
    onnx.save(mixed, tmp_path / "mixed.onnx")

    found = read_mixed_onnx(tmp_path / "mixed.onnx", load_graph(model))

    assert found.kept == ()
    assert found.lowered_count == 2


def test_a_model_in_bf16_that_lacks_kernels_on_the_cpu_is_told(graph, tmp_path):
    save_mixed_onnx(tmp_path / "cnn.onnx", tmp_path / "mixed.onnx", ["c1"], precision=BF16)

    asked = requested_by_mixed_onnx(tmp_path / "mixed.onnx", graph)

    assert asked.precision == "bf16"
    assert "does not run on the CPU" in asked.warnings[0]


@pytest.mark.parametrize("make", [if_with_capture, loop_with_capture, local_function])
def test_every_layer_is_found_in_a_mixed_model_with_bodies(make, tmp_path):
    onnx.save(make(), tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx")
    summary = save_mixed_onnx(tmp_path / "model.onnx", tmp_path / "mixed.onnx", ())

    asked = requested_by_mixed_onnx(tmp_path / "mixed.onnx", graph)

    left = {name for left_out in summary.left_in_fp32 for name in left_out.outputs}
    assert {constraint.outputs[0] for constraint in asked.constraints} <= left


def test_layers_without_names_are_found_through_the_casts_behind_them(tmp_path):
    model = small_cnn()
    for unnamed in model.graph.node:
        unnamed.name = ""
    onnx.save(model, tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx")
    save_mixed_onnx(tmp_path / "model.onnx", tmp_path / "mixed.onnx", ["c1"])

    asked = requested_by_mixed_onnx(tmp_path / "mixed.onnx", graph)

    assert [constraint.outputs for constraint in asked.constraints] == [("c1",)]


def test_a_mixed_form_of_another_model_is_refused(graph, tmp_path):
    onnx.save(small_transformer(), tmp_path / "other.onnx")

    with pytest.raises(ValueError, match=r"is not a mixed-precision form of 'cnn.onnx'.*\n.*Conv"):
        requested_by_mixed_onnx(tmp_path / "other.onnx", graph)


def test_a_mixed_model_that_does_not_load_is_refused(graph, tmp_path):
    save_mixed_onnx(tmp_path / "cnn.onnx", tmp_path / "mixed.onnx", ())
    model = onnx.load(tmp_path / "mixed.onnx")
    relu = next(n for n in model.graph.node if n.op_type == "Relu")
    relu.attribute.add(name="unknown", type=onnx.AttributeProto.INT, i=1)
    onnx.save(model, tmp_path / "mixed.onnx")

    with pytest.raises(ValueError, match="does not load"):
        requested_by_mixed_onnx(tmp_path / "mixed.onnx", graph)


def test_a_mixed_model_all_in_fp32_is_told(graph, tmp_path):
    asked = requested_by_mixed_onnx(tmp_path / "cnn.onnx", graph)

    assert len(asked.constraints) == 5
    assert "No layer" in asked.warnings[0]


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda precision: precision.name)
def test_a_mixed_model_that_keeps_all_layers_says_in_what_precision_none_is(
    graph, tmp_path, precision
):
    kept = [name for node in graph.layers for name in node.outputs if name]
    mixed, _ = lower_model(graph.proto, kept, precision=precision)
    onnx.save(mixed, tmp_path / "mixed.onnx")

    assert requested_by_mixed_onnx(tmp_path / "mixed.onnx", graph).precision == precision.name


def test_a_mixed_model_that_would_take_the_process_along_is_not_loaded(tmp_path):
    model = transposed_product((1, 0, 2))
    onnx.save(model, tmp_path / "model.onnx")
    mixed = onnx.ModelProto()
    mixed.CopyFrom(model)  # as other tools convert it: all of it
    for value in (*mixed.graph.input, *mixed.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    weight = numpy_helper.to_array(mixed.graph.initializer[0]).astype(np.float16)
    mixed.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    onnx.save(mixed, tmp_path / "mixed.onnx")

    asked = requested_by_mixed_onnx(tmp_path / "mixed.onnx", load_graph(tmp_path / "model.onnx"))

    assert asked.constraints == ()
    assert "ONNX-Runtime crashes on" in asked.warnings[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"no model", "not an ONNX model"), (b"\x08\x08", "not an ONNX model")],
)
def test_a_file_that_is_no_mixed_model_is_refused(graph, tmp_path, content, message):
    path = tmp_path / "mixed.onnx"
    path.write_bytes(content)

    with pytest.raises(ModelError, match=message):
        requested_by_mixed_onnx(path, graph)
