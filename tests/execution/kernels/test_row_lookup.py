"""Rows of a large table are read alone, and give what the whole table gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.execution.kernels.node_session import tensor_of, value_of
from polygraphy_layerprec.execution.kernels.row_lookup import narrow_lookup
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import measure_output_error, rank_model
from polygraphy_layerprec.precision import BF16, FP16
from tests.models import build_model, node, normal, tensor
from tests.planned_runs import run_reference

ROWS, COLUMNS = 5000, 64
TABLE = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "model.onnx"
    model = build_model(
        [node("Gather", ["table", "ids"], "y", axis=0)],
        [tensor("ids", [4], onnx.TensorProto.INT64)],
        [tensor("y", [4, COLUMNS])],
        {"table": TABLE},
    )
    onnx.save(model, path)
    return load_graph(str(path))


def narrowed(graph, ids):
    ids = tensor_of(np.asarray(ids, np.int64))
    return narrow_lookup(graph, graph.nodes[0], {"ids": ids}.get)


@pytest.mark.parametrize("ids", [[3, 0, 3, 4999], [0, 0, 0, 0], [[7, 1], [1, 4998]]])
def test_the_rows_that_are_used_are_those_of_the_table(graph, ids):
    rows, places = narrowed(graph, ids)

    assert np.array_equal(rows[value_of(places)], TABLE[np.asarray(ids)])
    assert rows.shape[0] == len(np.unique(ids))


@pytest.mark.parametrize("ids", [[-1, 0, 1, 2], [0, -5000, 1, 2], [0, 1, 2, 5000]])
def test_indices_from_the_end_or_beyond_it_are_the_nodes_own_business(graph, ids):
    assert narrowed(graph, ids) is None


def test_an_index_from_the_end_finds_the_last_row(graph):
    made = run_reference(graph, {"ids": np.array([-1, 0, -5000, 4999])})

    assert np.array_equal(made["y"], TABLE[[-1, 0, 0, -1]])


def test_a_table_that_is_needed_for_the_most_part_is_read_whole(graph):
    assert narrowed(graph, np.arange(ROWS // 2)) is not None
    assert narrowed(graph, np.arange(ROWS // 2 + 1)) is None


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda precision: precision.name)
def test_rows_are_rounded_as_the_whole_table_is(precision, tmp_path):
    table = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    nodes = [
        node("Gather", ["table", "ids"], "rows", axis=0),
        node("MatMul", ["rows", "weights"], "y"),
    ]
    model = build_model(
        nodes,
        [tensor("ids", [4], onnx.TensorProto.INT64)],
        [tensor("y", [4, 8])],
        {"table": table, "weights": normal(1, COLUMNS, 8)},
    )
    onnx.save(model, tmp_path / "model.onnx")
    path, samples = tmp_path / "model.onnx", [{"ids": np.array([3, 0, 3, 4999])}]

    ranking = rank_model(path, samples, precision=precision)

    expected = measure_output_error(path, samples, precision=precision)
    assert ranking.output_error.measured == pytest.approx(expected, rel=1e-6)


def test_a_small_table_is_read_as_a_whole():
    model = build_model(
        [node("Gather", ["table", "ids"], "y", axis=0)],
        [tensor("ids", [4], onnx.TensorProto.INT64)],
        [tensor("y", [4, COLUMNS])],
        {"table": TABLE[:500]},
    )

    assert narrowed(load_graph(model), [3, 0, 3, 499]) is None
