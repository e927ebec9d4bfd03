"""What users reported is right: each model stands for a kind, each figure for what is true."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.version_converter
import pytest
from polygraphy.logger import G_LOGGER

from benchmarks.cast_pairs import with_cast_pairs
from polygraphy_layerprec.backend.engines.proof import asked_layers
from polygraphy_layerprec.emit.mixed_onnx import lower_model, save_mixed_onnx
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.matching.requested_precisions import all_lowered, requested_by_mixed_onnx
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import measure_output_error, rank_model
from polygraphy_layerprec.plan import KeptLayers, Planner, Target
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.verify import verify_model
from tests import reported_models as models
from tests.models import build_model, node, tensor
from tests.planned_runs import run_lowered, run_reference, run_whole
from tests.processes import run_layerprec

pytestmark = pytest.mark.onnxrt


@pytest.fixture(autouse=True)
def quiet_polygraphy():
    severity = G_LOGGER.module_severity
    yield
    G_LOGGER.module_severity = severity


def answers(model, sample):
    """The error with every layer lowered: ranked, measured, measured again, verified."""
    graph = load_graph(model)
    measurement = SetMeasurement(graph, [sample], precision=FP16, outputs=graph.outputs)
    nothing = KeptLayers.of_outputs(())
    verified = verify_model(graph, [sample], all_lowered("fp16"))
    return [
        rank_model(model, [sample]).output_error.measured,
        measure_output_error(model, [sample]),
        measurement.divergence(nothing).error,
        measurement.divergence(nothing).error,
        verified.lowered_error,
    ]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (models.compared_with_a_weight, 0.0),
        (models.infinite_output, np.inf),
        (models.hardmax_between_kept, pytest.approx(np.sqrt(2), rel=1e-3)),
        (models.layers_in_branches, pytest.approx(5e-4, rel=0.5)),
        (models.folded_normalization, pytest.approx(9.5e-4, rel=0.5)),
        (models.double_tail, pytest.approx(6e-4, rel=0.7)),
        (models.twice_called, pytest.approx(4e-4, rel=0.7)),
    ],
)
def test_all_ways_give_the_same_and_the_right_error(build, expected):
    model, sample = build()

    found = answers(model, sample)

    assert found == [found[0]] * len(found)
    assert found[0] == expected


def plain_lstm(weights, x, rounded):
    """The output of `long_recurrence`, one step after the other, with each result `rounded`."""

    def sigmoid(values):
        return rounded(1 / (1 + np.exp(-values)))

    w, r, b, head = (rounded(weights[name]) for name in ("w", "r", "b", "head"))
    size = len(head)
    hidden = cell = np.zeros(size, np.float32)
    for step in rounded(x)[:, 0]:
        taken = rounded(w[0] @ step + b[0, : 4 * size])
        gates = rounded(taken + rounded(r[0] @ hidden + b[0, 4 * size :]))
        i, o, f, c = gates.reshape(4, size)
        cell = rounded(rounded(sigmoid(f) * cell) + rounded(sigmoid(i) * rounded(np.tanh(c))))
        hidden = rounded(sigmoid(o) * rounded(np.tanh(cell)))
    return rounded(hidden @ head)


def test_a_long_recurrence_is_rounded_at_every_step():
    model, sample = models.long_recurrence()
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    exact = plain_lstm(weights, sample["x"], np.float32)
    low = plain_lstm(weights, sample["x"], lambda y: y.astype(np.float16).astype(np.float32))

    found = answers(model, sample)

    assert found == [found[0]] * len(found)
    expected = np.linalg.norm(low - exact) / np.linalg.norm(exact)
    assert found[0] == pytest.approx(expected, rel=0.3)


def test_a_mixed_model_decides_as_the_emulation_does():
    model, sample = models.hardmax_between_kept()
    kept = ["a", "y"]

    mixed, _ = lower_model(model, kept)

    emulated = run_lowered(model, sample, kept, target=Target.ONNX)
    assert np.array_equal(run_whole(mixed, sample)["y"], emulated["y"])


@pytest.mark.parametrize("kept", [(), ("a",), ("a", "b", "y")])
def test_nodes_that_are_named_like_tensors_can_be_saved(kept, tmp_path):
    model, sample = models.named_like_tensors()
    onnx.save(model, tmp_path / "model.onnx")

    save_mixed_onnx(str(tmp_path / "model.onnx"), str(tmp_path / "mixed.onnx"), kept)

    mixed = onnx.load(tmp_path / "mixed.onnx")
    onnx.checker.check_model(mixed, full_check=True)
    (expected,) = run_whole(model, sample).values()
    (found,) = run_whole(mixed, sample).values()
    np.testing.assert_allclose(found, expected, rtol=2e-2)


@pytest.mark.parametrize("fast", [True, False])
def test_layers_in_branches_are_layers(fast):
    model, sample = models.layers_in_branches()
    sample["fast"] = np.array(fast, bool)
    taken, other = ("then", "else") if fast else ("else", "then")

    ranking = rank_model(model, [sample])

    ranked = {layer.name for layer in ranking.layers}
    assert {f"/{taken}/fc1", f"/{taken}/act", f"/{taken}/fc2", "/sigmoid"} == ranked
    left = {layer.name: layer for layer in ranking.unmeasured}
    assert left.keys() == {f"/{other}/fc1", f"/{other}/act", f"/{other}/fc2"}
    assert not any(layer.failed for layer in left.values())
    every = [f"{taken}_a", f"{taken}_b", f"{taken}_y", "y"]
    assert measure_output_error(model, [sample], fp32_outputs=every) == 0.0
    mixed, _ = lower_model(model, every[:2])
    emulated = run_lowered(model, sample, every[:2], target=Target.ONNX)
    np.testing.assert_allclose(run_whole(mixed, sample)["y"], emulated["y"], rtol=2**-8)


def test_a_normalization_is_folded_in_the_mixed_model_too():
    model, sample = models.folded_normalization()

    mixed, _ = lower_model(model, ())

    (exact,) = run_whole(model, sample).values()
    (found,) = run_whole(mixed, sample).values()
    assert np.linalg.norm(found - exact) / np.linalg.norm(exact) == pytest.approx(9.5e-4, rel=0.5)


def test_a_normalization_is_folded_by_pairs_of_casts_too():
    model, sample = models.folded_normalization()

    (exact,) = run_whole(model, sample).values()
    (found,) = run_whole(with_cast_pairs(model), sample).values()

    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert measure_output_error(model, [sample]) == pytest.approx(error, rel=1e-4)


def test_double_is_one_decision_and_said():
    model, sample = models.double_tail()
    left = {
        target: {
            node.name: node.reason for node in Planner(load_graph(model), FP16, target).plan().left
        }
        for target in Target
    }

    ranking = rank_model(model, [sample])

    assert left[Target.STRONG] == left[Target.WEAK] == left[Target.ONNX]
    assert left[Target.STRONG]["/softmax"] == "it computes in DOUBLE"
    assert "/softmax" not in {layer.name for layer in ranking.layers}
    assert any("In DOUBLE" in told and "'/softmax' the first" in told for told in ranking.warnings)


@pytest.mark.parametrize("op_type", ["HardSwish", "Mish"])
def test_what_tensorrt_refuses_in_bf16_stays_in_fp32_and_is_named(op_type):
    model, _ = models.activation(op_type)

    mixed, summary = lower_model(model, (), precision=BF16)

    assert [(left.name, left.op) for left in summary.left_in_fp32] == [("/act", op_type)]
    assert summary.left_in_fp32[0].reason == "TensorRT's parser refuses it in BF16"
    inferred = onnx.shape_inference.infer_shapes(mixed)
    types = {value.name: value for value in inferred.graph.value_info}
    (act,) = (node for node in mixed.graph.node if node.op_type == op_type)
    assert types[act.input[0]].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.trt
@pytest.mark.parametrize("op_type", ["HardSwish", "Mish"])
def test_what_tensorrt_refuses_in_bf16_is_parsed_as_it_is_saved(op_type):
    trt = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX's parser")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    model, _ = models.activation(op_type)
    mixed, _ = lower_model(model, (), precision=BF16)
    network = trt.Builder(logger).create_network(0)

    assert trt.OnnxParser(network, logger).parse(mixed.SerializeToString())


def test_an_opset_without_bf16_is_raised_and_verified_as_it_is_saved(tmp_path):
    model, sample = models.old_opset()
    onnx.save(model, tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx")

    saved = str(tmp_path / "mixed.onnx")
    summary = save_mixed_onnx(str(tmp_path / "model.onnx"), saved, ["p"], precision=BF16)

    assert (summary.raised_opset, summary.left_in_fp32) == ((17, 22), ())
    mixed = onnx.load(saved)
    onnx.checker.check_model(mixed, full_check=True)
    assert {n.name: n.op_type for n in model.graph.node}.items() <= {
        n.name: n.op_type for n in mixed.graph.node
    }.items()
    asked = requested_by_mixed_onnx(saved, graph)
    verified = verify_model(graph, [sample], asked)
    newer = onnx.version_converter.convert_version(model, 22)
    error = measure_output_error(
        newer, [sample], fp32_outputs=["p"], precision=BF16, target=Target.ONNX
    )
    assert [each.outputs for each in asked.constraints] == [("p",)]
    assert verified.constrained_error == error > 1e-4


def test_an_opset_before_fp16_is_raised_and_the_saved_model_errs_as_emulated():
    model, sample = models.old_opset()
    model.opset_import[0].version = 6
    model.graph.node.pop()  # Mul of opset 6 broadcasts on request only
    model.graph.output[0].name = "p"

    mixed, summary = lower_model(model, ())

    assert (summary.raised_opset, summary.lowered) == ((6, 12), 3)
    onnx.checker.check_model(mixed, full_check=True)
    emulated = measure_output_error(model, [sample], target=Target.ONNX)
    reference, found = (run_reference(each, sample)["p"] for each in (model, mixed))
    error = np.linalg.norm(found - reference) / np.linalg.norm(reference)
    assert error == pytest.approx(emulated, rel=1e-3)
    assert emulated > 1e-5


def test_what_an_old_opset_has_no_bf16_for_is_named_where_it_cannot_be_raised():
    model, _ = models.old_opset()
    body = build_model([node("Identity", ["y"], "y_2")], [], [tensor("y_2", [1, 4, 1, 1])]).graph
    model.graph.node.append(node("If", ["yes"], "z", then_branch=body, else_branch=body))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, bool), "yes"))
    model.graph.output.append(tensor("z", [1, 4, 1, 1]))

    _, summary = lower_model(model, (), precision=BF16)

    assert summary.raised_opset is None
    assert {left.name: left.reason for left in summary.left_in_fp32} == {
        "/conv": "Conv-11 does not take tensor(bfloat16)",
        "/pool": "GlobalAveragePool-1 does not take tensor(bfloat16)",
    }


def test_each_call_of_a_function_is_found_in_the_network(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX's builder")
    model, sample = models.twice_called()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **sample)
    rank = ["rank", "model.onnx", "--load-inputs", "inputs.npz", "--save-script", "c.py"]

    run_layerprec(*rank, "--top-k", "5", folder=tmp_path)
    verified = run_layerprec(
        *("verify", "model.onnx", "--load-inputs", "inputs.npz", "--script", "c.py", "--build"),
        folder=tmp_path,
        environment={"POLYGRAPHY_USE_TENSORRT_RTX": "1"},
    )

    assert "5 of 5 constraints matched" in verified.stdout + verified.stderr


@pytest.mark.parametrize("op_type", ["HardSwish", "Mish"])
def test_verification_names_what_its_target_leaves_in_fp32(op_type, tmp_path):
    model, sample = models.activation(op_type)
    onnx.save(model, tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx")
    saved = str(tmp_path / "mixed.onnx")
    save_mixed_onnx(str(tmp_path / "model.onnx"), saved, (), precision=BF16)

    of_model = verify_model(graph, [sample], requested_by_mixed_onnx(saved, graph))
    of_network = verify_model(graph, [sample], all_lowered("bf16"))

    assert {each.op: each.reason for each in of_model.left_in_fp32} == {
        op_type: "TensorRT's parser refuses it in BF16"
    }
    assert of_network.left_in_fp32 == ()


def test_a_kept_loop_is_not_failed_for_what_is_fused_to_its_borders(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX's builder")
    model, sample = models.loop_around_a_product()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **sample)
    given = ["model.onnx", "--load-inputs", "inputs.npz"]
    run_layerprec(
        "rank", *given, "--top-k", "0", "--keep", "/loop", "--save-script", "c.py", folder=tmp_path
    )

    verified = run_layerprec(
        *("verify", *given, "--script", "c.py", "--build"),
        folder=tmp_path,
        environment={"POLYGRAPHY_USE_TENSORRT_RTX": "1"},
    )

    assert verified.returncode == 0, verified.stdout
    assert "0 of 1 layer asked for is in FP32, 1 inside fused" in " ".join(verified.stdout.split())


def test_nothing_is_asked_of_what_a_saved_model_leaves_in_fp32():
    model, _ = models.loop_around_a_product()
    graph = load_graph(model)
    saved = Planner(graph, FP16, Target.ONNX).plan()

    asked = [layer.node.op for layer in asked_layers(graph, (), saved)]

    assert asked == ["MatMul", "Tanh"]
