"""Quantised models without the pairs of some layers: what was measured is what is saved."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec.emit.mixed_onnx.pruning import save_pruned_onnx
from polygraphy_layerprec.execution.emulation.quantized_runs import QuantizedExecutor, executor_for
from polygraphy_layerprec.execution.kernels.ort_tensors import value_of
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.plan.quantized_planning import planner_for
from polygraphy_layerprec.precision import QDQ
from tests.model_parts import build_model, node, normal, save_with_external_data, tensor
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


class Recorder(QuantizedExecutor):
    """Remembers what nodes make."""

    def __init__(self, graph, precision):
        super().__init__(graph, precision)
        self.made = {}

    def _planned_outputs(self, node, *args, **options):
        outputs = super()._planned_outputs(node, *args, **options)
        self.made |= {n: np.array(value_of(v)) for n, v in zip(node.outputs, outputs, strict=True)}
        return outputs


def by_nodes(path, values):
    """What each operator of a model makes of what others made when a set was measured, and what it
    made then."""
    model, found = onnx.load(path), {}
    values = {**{t.name: numpy_helper.to_array(t) for t in model.graph.initializer}, **values}
    for one in model.graph.node:
        inputs = {name: values[name] for name in one.input}
        types = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in inputs.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in one.output]
        alone = helper.make_model(
            helper.make_graph([one], "alone", types, outputs),
            opset_imports=model.opset_import,
            ir_version=model.ir_version,
        )
        for name, made in run_whole(alone, inputs).items():
            if name in values:
                found[name] = made, values[name]
            values.setdefault(name, made)
    return found


@pytest.mark.parametrize("case", ["convolutions", "convolutions, float constants", "products"])
def test_node_by_node_a_saved_model_computes_what_was_measured(case, tmp_path):
    # A whole run of a large model may differ all the same: sums of another order, on another side
    # of the border between two steps.
    graph, inputs = graph_of(case, tmp_path)
    source, target = str(tmp_path / "model.onnx"), str(tmp_path / "pruned.onnx")

    for kept in sets_of(graph):
        save_pruned_onnx(graph, source, target, kept.outputs)

        recorder = Recorder(graph, QDQ)
        recorder.run(inputs, planner_for(graph, QDQ).plan(kept))
        found = by_nodes(target, {**inputs, **recorder.made})
        assert found.keys() == recorder.made.keys()
        for name, (made, measured) in found.items():
            scale = np.abs(measured).max()
            np.testing.assert_allclose(made, measured, rtol=0, atol=1e-6 * scale, err_msg=name)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "floats"])
def test_of_a_large_quantised_table_the_rows_that_are_asked_for_are_measured(stored, tmp_path):
    table, ids = normal(1, 4096, 64), np.array([7, 4000, 7, 12], np.int64)
    floats = build_model(
        [node("Gather", ["table", "ids"], "rows", name="/rows"),
         node("MatMul", ["rows", "w"], "y", name="/out")],
        [tensor("ids", [4], TensorProto.INT64)], [tensor("y", [4, 8])],
        {"table": table, "w": normal(2, 64, 8)}, opset=21,
    )  # fmt: skip
    scale = np.float32(np.abs(table).max() / 127)
    model = quantised(floats, {"ids": ids}, ops={"MatMul"})
    back = node("DequantizeLinear", ["table_q", "table_scale"], "table_d", name="/table/DQ")
    constants = {"table_scale": scale}
    if stored:
        constants["table_q"] = np.round(table / scale).astype(np.int8)
        (old,) = (t for t in model.graph.initializer if t.name == "table")
        model.graph.initializer.remove(old)
    else:
        make = node("QuantizeLinear", ["table", "table_scale"], "table_q", name="/table/Q")
        make.attribute.append(helper.make_attribute("output_dtype", INT8))
        model.graph.node.insert(0, make)
    model.graph.node.insert(0 if stored else 1, back)
    for name, values in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    for one in model.graph.node:
        if one.name == "/rows":
            one.input[0] = "table_d"
    for name, saved in (("model.onnx", model), ("float.onnx", floats)):
        onnx.save(saved, tmp_path / name)  # rows are read from a file
    graph = pass_pairs_by(load_graph(tmp_path / "model.onnx"), load_graph(tmp_path / "float.onnx"))

    measured = executor_for(graph, QDQ).run({"ids": ids}, planner_for(graph, QDQ).plan())["y"]

    whole = run_whole(model, {"ids": ids})["y"]
    np.testing.assert_allclose(measured, whole, rtol=1e-5, atol=1e-5)


def test_a_pair_goes_even_where_something_reads_its_shape(tmp_path):
    model, floats = quantised(mlp(), mlp_inputs(), ops={"MatMul"}), mlp()
    for one, read in ((model, "r_DequantizeLinear_Output"), (floats, "r")):
        one.graph.node.append(node("Shape", [read], "extents", name="/Shape"))
        one.graph.output.append(tensor("extents", [2], TensorProto.INT64))
    onnx.save(model, tmp_path / "model.onnx")
    graph = pass_pairs_by(load_graph(tmp_path / "model.onnx"), load_graph(floats))
    source, target = str(tmp_path / "model.onnx"), str(tmp_path / "pruned.onnx")

    removed = {}
    for kept in sets_of(graph):
        summary = save_pruned_onnx(graph, source, target, kept.outputs)
        assert planner_for(graph, QDQ).plan(kept).removed_pair_count == summary.removed_pairs
        (shape,) = (n for n in onnx.load(target).graph.node if n.name == "/Shape")
        removed[summary.removed_pairs] = shape.input[0]

    made = "r_DequantizeLinear_Output"  # the product behind it has two pairs, those before three
    assert removed == {0: made, 2: "r", 3: made, 5: "r"}


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
