"""Large weights, read and rounded one node ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from polygraphy_layerprec.execution.kernels.cast_rounding import CastRounder
from polygraphy_layerprec.execution.kernels.weights_ahead import WeightsAhead
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.precision import BF16, FP16, Precision
from polygraphy_layerprec.rounding import round_to_precision

if TYPE_CHECKING:
    from pathlib import Path

    from polygraphy_layerprec.model import Weight

LARGE = 1 << 15  # elements


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, Weight]:
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(LARGE).astype(np.float32) for name in "abc"}
    values["small"] = np.ones(4, np.float32)
    values["ids"] = np.arange(LARGE)
    values["a"][:2] = 1e6, -np.inf
    nodes = [helper.make_node("Identity", [name], [f"y_{name}"]) for name in values]
    outputs = [onnx.ValueInfoProto(name=f"y_{name}") for name in values]
    initializers = [numpy_helper.from_array(v, name) for name, v in values.items()]
    graph = helper.make_graph(nodes, "weights", [], outputs, initializers)
    path = tmp_path / "weights.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    return dict(load_graph(str(path)).weights)


@pytest.mark.parametrize(
    "order", ["abc", "cba", "abcabc", "ac", "aab", "bcab"], ids=lambda order: f"asked {order}"
)
def test_whatever_is_asked_for_next_is_what_it_is_in_the_model(
    weights: dict[str, Weight], order: str
):
    ahead = WeightsAhead()
    ahead.expect([(name, [weights[name]]) for name in "abc"])
    for name in order:
        read = ahead.take(name)
        assert read.exact.keys() == {name}
        np.testing.assert_array_equal(read.exact[name], weights[name].read())
        assert not read.rounded


def test_what_is_used_twice_is_read_for_each_use(weights: dict[str, Weight]):
    ahead = WeightsAhead()
    ahead.expect([("first", [weights["a"]]), ("second", [weights["b"], weights["a"]])])
    assert ahead.take("first").exact.keys() == {"a"}
    assert ahead.take("second").exact.keys() == {"a", "b"}


def test_small_weights_are_left_to_others(weights: dict[str, Weight]):
    ahead = WeightsAhead()
    ahead.expect([("node", [weights["a"], weights["small"]]), ("other", [])])
    assert ahead.take("node").exact.keys() == {"a"}
    assert not ahead.take("other").exact
    assert not ahead.take("unknown").exact


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda precision: precision.name)
def test_floats_are_rounded_ahead_as_they_are_converted(
    weights: dict[str, Weight], precision: Precision
):
    ahead = WeightsAhead()
    ahead.expect(
        [(name, [weights[name], weights["ids"]]) for name in "abc"], CastRounder(precision)
    )
    for name in "abc":
        read = ahead.take(name)
        exact = weights[name].read()
        rounded = round_to_precision(exact, precision, saturate=True)
        np.testing.assert_array_equal(read.exact[name], exact)
        np.testing.assert_array_equal(read.rounded[name], rounded)
        assert read.rounded.keys() == read.largest.keys() == {name}
        assert read.largest[name] == np.abs(exact[np.isfinite(exact)]).max()


def test_two_who_read_in_turn_find_what_is_in_the_model(weights: dict[str, Weight]):
    """As a forward pass and the sweep back do, the second of which may stop early."""
    ahead = WeightsAhead()
    for _ in range(3):
        for order, rounder in (("abc", CastRounder(FP16)), ("cb", None), ("c", None)):
            ahead.expect([(name, [weights[name]]) for name in "abc" if name in order], rounder)
            for name in order:
                read = ahead.take(name)
                np.testing.assert_array_equal(read.exact[name], weights[name].read())
                assert bool(read.rounded) == (rounder is not None)
                if name == "b" and rounder is None:
                    break  # the next one's are being read
