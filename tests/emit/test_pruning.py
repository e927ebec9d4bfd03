"""Quantised models without the pairs of some layers: what was measured is what is saved."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from polygraphy_layerprec.emit.mixed_onnx.pruning import save_pruned_onnx
from polygraphy_layerprec.execution.emulation.quantized_runs import executor_for
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.plan.quantized_planning import planner_for
from polygraphy_layerprec.precision import QDQ
from tests.model_parts import save_with_external_data
from tests.pair_models import cnn, cnn_inputs, in_fp16, mlp, mlp_inputs, quantised, run_whole

pytestmark = pytest.mark.onnxrt

INT8, FP8 = TensorProto.INT8, TensorProto.FLOAT8E4M3FN
CASES = {
    "convolutions": (cnn, cnn_inputs, {}),
    "convolutions, float constants": (cnn, cnn_inputs, {"stored": False}),
    "products": (mlp, mlp_inputs, {"ops": {"MatMul", "Add"}}),
    "products in FP8": (mlp, mlp_inputs, {"ops": {"MatMul"}, "kind": FP8, "granularity": "tensor"}),
    "products in blocks": (mlp, mlp_inputs, {"ops": {"MatMul"}, "granularity": "block"}),
}


def graph_of(case, tmp_path, *, with_reference=True):
    make, make_inputs, options = CASES[case]
    onnx.save(quantised(make(), make_inputs(), **options), tmp_path / "model.onnx")
    reference = load_graph(make()) if with_reference else None
    return pass_pairs_by(load_graph(tmp_path / "model.onnx"), reference), make_inputs(1)


def sets_of(graph):
    """Every set of layers."""
    for size in range(len(graph.decisions) + 1):
        for units in itertools.combinations(graph.decisions, size):
            yield KeptLayers.of_nodes(node for unit in units for node in unit)


@pytest.mark.parametrize("with_reference", [True, False], ids=["reference", "alone"])
@pytest.mark.parametrize("case", CASES)
def test_every_set_that_is_saved_gives_what_was_measured(case, with_reference, tmp_path):
    graph, inputs = graph_of(case, tmp_path, with_reference=with_reference)
    executor, planner = executor_for(graph, QDQ), planner_for(graph, QDQ)
    source, target = str(tmp_path / "model.onnx"), str(tmp_path / "pruned.onnx")

    for kept in sets_of(graph):
        summary = save_pruned_onnx(graph, source, target, kept.outputs)

        onnx.checker.check_model(target, full_check=True)
        plan = planner.plan(kept)
        measured = executor.run(inputs, plan)["y"]
        np.testing.assert_allclose(run_whole(target, inputs)["y"], measured, rtol=1e-5, atol=1e-6)
        assert plan.removed_pair_count == summary.removed_pairs


def test_constants_of_quantised_values_are_counted(tmp_path):
    graph, _ = graph_of("convolutions", tmp_path, with_reference=False)
    everything = KeptLayers.of_nodes(graph.decided_nodes)

    summary = save_pruned_onnx(
        graph, str(tmp_path / "model.onnx"), str(tmp_path / "pruned.onnx"), everything.outputs
    )

    assert (summary.restored_constants, summary.dequantized_constants) == (4, 4)


def test_without_pairs_the_saved_model_is_the_reference(tmp_path):
    graph, inputs = graph_of("convolutions", tmp_path)
    everything = KeptLayers.of_nodes(graph.decided_nodes)

    summary = save_pruned_onnx(
        graph, str(tmp_path / "model.onnx"), str(tmp_path / "pruned.onnx"), everything.outputs
    )

    saved = onnx.load(tmp_path / "pruned.onnx")
    assert not any("QuantizeLinear" in node.op_type for node in saved.graph.node)
    assert not any(t.name.endswith(("_scale", "_zero")) for t in saved.graph.initializer)
    assert (summary.left_pairs, summary.restored_constants) == (0, 4)
    assert summary.dequantized_constants == 0
    np.testing.assert_allclose(
        run_whole(saved, inputs)["y"], run_whole(cnn(), inputs)["y"], rtol=1e-5, atol=1e-6
    )


def test_one_layer_of_a_unit_takes_the_others_with_it(tmp_path):
    graph, _ = graph_of("convolutions", tmp_path)

    save_pruned_onnx(graph, str(tmp_path / "model.onnx"), str(tmp_path / "pruned.onnx"), ["sum"])

    saved = {node.name: node for node in onnx.load(tmp_path / "pruned.onnx").graph.node}
    assert list(saved["/body/Conv"].input)[:2] == ["r1", "w2"]
    assert list(saved["/body/Add"].input) == ["c2", "r1"]
    assert saved["/stem/Conv"].input[0] == "x_DequantizeLinear_Output"


def test_data_in_files_of_their_own_are_read_and_never_replaced(tmp_path):
    model = quantised(cnn(), cnn_inputs())
    save_with_external_data(model, tmp_path / "model.onnx")
    save_with_external_data(cnn(), tmp_path / "float.onnx")
    graph = pass_pairs_by(load_graph(tmp_path / "model.onnx"), load_graph(tmp_path / "float.onnx"))
    inputs, source = cnn_inputs(1), str(tmp_path / "model.onnx")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = KeptLayers.of_nodes(graph.decisions[1])

    save_pruned_onnx(graph, source, str(tmp_path / "pruned.onnx"), kept.outputs)

    measured = executor_for(graph, QDQ).run(inputs, planner_for(graph, QDQ).plan(kept))["y"]
    found = run_whole(str(tmp_path / "pruned.onnx"), inputs)["y"]
    np.testing.assert_allclose(found, measured, rtol=1e-5, atol=1e-6)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    with pytest.raises(ValueError, match="must not replace a file of the input"):
        save_pruned_onnx(graph, source, source, kept.outputs)


@pytest.mark.parametrize("case", ["convolutions", "products", "products in FP8"])
def test_what_builds_with_its_pairs_builds_without_some(case, tmp_path, tensorrt):
    graph, _ = graph_of(case, tmp_path)
    source, target = str(tmp_path / "model.onnx"), str(tmp_path / "pruned.onnx")
    assert tensorrt.build(tensorrt.parse(onnx.load(source))) is not None

    for kept in sets_of(graph):
        save_pruned_onnx(graph, source, target, kept.outputs)

        assert tensorrt.build(tensorrt.parse(onnx.load(target))) is not None


def test_a_model_in_fp16_keeps_its_type(tmp_path):
    onnx.save(in_fp16(quantised(mlp(), mlp_inputs(), ops={"MatMul"})), tmp_path / "model.onnx")
    graph = pass_pairs_by(load_graph(tmp_path / "model.onnx"), load_graph(mlp()))
    inputs, target = mlp_inputs(1), str(tmp_path / "pruned.onnx")

    for kept in sets_of(graph):
        save_pruned_onnx(graph, str(tmp_path / "model.onnx"), target, kept.outputs)

        measured = executor_for(graph, QDQ).run(inputs, planner_for(graph, QDQ).plan(kept))["y"]
        error = np.linalg.norm(run_whole(target, inputs)["y"] - measured)
        assert error < 0.02 * np.linalg.norm(measured)
