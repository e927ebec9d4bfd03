"""Sums of terms, at risk where hardware accumulates in FP16."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.kernels.node_session import tensor_of
from polygraphy_layerprec.execution.probes.accumulation import _most_terms
from polygraphy_layerprec.model import load_graph
from tests.models import build_model, node, tensor
from tests.planned_runs import emulated_executor


def terms_of(operator, x, *weights, **attributes):
    names = [f"w{index}" for index in range(len(weights))]
    made = node(operator, ["x", *names], "y", name="n", **attributes)
    shapes = [tensor("x", x.shape)], [tensor("y", None)]
    model = build_model([made], *shapes, dict(zip(names, weights, strict=True)))
    found = []
    executor = emulated_executor(model)
    executor.compare({"x": x}, lambda e: found.append(e.largest_sum_of_terms))
    return found[0]


def full(value, *shape):
    return np.full(shape, value, np.float32)


@pytest.mark.parametrize(
    ("operator", "operands", "attributes", "terms"),
    [
        ("MatMul", (full(-30, 2, 100), full(30, 100, 3)), {}, 90_000),
        ("Gemm", (full(30, 100, 2), full(-30, 100, 3)), {"transA": 1}, 90_000),
        ("Conv", (full(100, 1, 4, 5, 5), full(-40, 2, 4, 3, 3)), {}, 4 * 9 * 4000),
        ("ConvTranspose", (full(100, 1, 40, 2, 2), full(-40, 40, 2, 1, 1)), {}, 40 * 4000),
        ("Einsum", (full(-30, 2, 100), full(30, 100, 3)), {"equation": "ij,jk"}, 90_000),
        ("ReduceSum", (full(-700, 3, 100),), {"keepdims": 0}, 210_000),
        ("ReduceMean", (full(-700, 3, 100),), {"axes": [1]}, 70_000),
        ("GlobalAveragePool", (full(-700, 1, 3, 10, 10),), {}, 70_000),
        ("AveragePool", (full(-9000, 1, 3, 9, 9),), {"kernel_shape": [3, 3]}, 81_000),
    ],
)
def test_the_magnitudes_of_the_terms_add_up(operator, operands, attributes, terms):
    assert terms_of(operator, *operands, **attributes) == pytest.approx(terms, rel=1e-4)


@pytest.mark.parametrize(
    ("operator", "operands"),
    [
        ("MatMul", (full(1, 2, 100), full(1, 100, 3))),
        ("ReduceSum", (full(1, 3, 100),)),
        ("Exp", (full(11, 100),)),
    ],
)
def test_what_is_surely_in_range_is_not_computed(operator, operands):
    assert terms_of(operator, *operands) == 0.0


@pytest.mark.parametrize(
    ("operator", "shapes", "terms"),
    [
        ("Conv", [(1, 4, 9, 9), (8, 4, 3, 3)], 8 * 9),
        ("ConvTranspose", [(1, 4, 9, 9), (4, 8, 2, 1)], 8 * 2),
        ("Conv", [(1, 4, 9, 9), (8, 4, 1, 1)], 8),
        ("MatMul", [(2, 100), (100, 3)], 100),
        ("ReduceSum", [(3, 100)], 300),
    ],
)
def test_there_are_no_more_terms_than_the_operands_allow(operator, shapes, terms):
    names = [f"x{place}" for place in range(len(shapes))]
    fed = [tensor(name, shape) for name, shape in zip(names, shapes, strict=True)]
    graph = load_graph(build_model([node(operator, names, "y")], fed, [tensor("y", None)]))

    operands = [tensor_of(full(1, *shape)) for shape in shapes]

    assert _most_terms(graph.nodes[0], operands) == terms
