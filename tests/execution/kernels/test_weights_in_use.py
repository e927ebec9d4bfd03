"""Weights that are kept between runs are those that are in the model, exact and rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from polygraphy_layerprec.execution.kernels.ort_tensors import value_of
from polygraphy_layerprec.execution.kernels.weights_in_use import WeightsInUse
from polygraphy_layerprec.model import ModelError, load_graph
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.rounding import round_to_precision

if TYPE_CHECKING:
    from pathlib import Path

    from polygraphy_layerprec.model import Graph

NBYTES = 1 << 17
COUNT = 3


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """Three nodes, each with a large weight in a file beside the model."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(NBYTES // 4).astype(np.float32) * 7e4 for _ in range(COUNT)]
    nodes = [helper.make_node("Identity", [f"w{i}"], [f"y{i}"]) for i in range(COUNT)]
    outputs = [onnx.ValueInfoProto(name=f"y{i}") for i in range(COUNT)]
    initializers = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    made = helper.make_graph(nodes, "weights", [], outputs, initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "weights.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    return load_graph(str(path))


def passes(graph: Graph, weights: WeightsInUse) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """What a pass over the graph finds of each weight: exact, in FP16, in BF16."""
    weights.start()
    found = []
    for index, node in enumerate(graph.nodes):
        name = f"w{index}"
        exact = value_of(weights.load(node)[name]).copy()
        low = value_of(weights.round(FP16, {name})[0][name]).copy()
        weights.load(node)
        found.append((exact, low, value_of(weights.round(BF16, {name})[0][name]).copy()))
    return found


@pytest.mark.parametrize("fitting", range(COUNT + 1))
def test_kept_or_read_again_they_are_those_of_the_model(graph: Graph, fitting: int):
    weights = WeightsInUse(graph, most_bytes=fitting * 2 * NBYTES)

    for _ in range(3):
        for index, (exact, half, brain) in enumerate(passes(graph, weights)):
            expected = graph.weights[f"w{index}"].read()
            np.testing.assert_array_equal(exact, expected)
            np.testing.assert_array_equal(half, round_to_precision(expected, FP16, saturate=True))
            np.testing.assert_array_equal(brain, round_to_precision(expected, BF16, saturate=True))


@pytest.mark.parametrize("fitting", range(COUNT + 1))
def test_as_many_as_fit_are_read_once(graph: Graph, fitting: int, tmp_path: Path):
    weights = WeightsInUse(graph, most_bytes=fitting * 2 * NBYTES)
    passes(graph, weights)
    (tmp_path / "weights.data").unlink()

    weights.start()
    for index, node in enumerate(graph.nodes):
        if index < fitting:
            assert weights.load(node)[f"w{index}"].shape() == [NBYTES // 4]
        else:
            with pytest.raises(ModelError):
                weights.load(node)


def test_rows_in_place_of_a_table_are_rounded_whatever_was_kept_of_it(graph: Graph):
    weights = WeightsInUse(graph, most_bytes=2 * NBYTES)
    passes(graph, weights)
    rows = np.array([1.0001, 70000.0], np.float32)

    weights.hold("w0", rows.copy())
    rounded, largest = weights.round(FP16, {"w0"})

    assert value_of(rounded["w0"]).tolist() == [1.0, 65504.0]
    assert largest == 70000.0
