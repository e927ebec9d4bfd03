"""A ranking says the same again, however its work falls to threads."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec import rank_model
from tests.models import build_model, node, normal, tensor

pytestmark = pytest.mark.onnxrt

SIZE = 64  # so that sweeps go side by side
LARGE = 1 << 15


def single_row_model():
    """Returns a model whose output has one row: four sweeps, of large tensors."""
    nodes = [
        node("Conv", ["x", "k"], "a", name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], "b", name="relu"),
        node("Add", ["b", "x8"], "c", name="add"),
        node("GlobalAveragePool", ["c"], "d", name="pool"),
        node("Flatten", ["d"], "e", name="flat"),
        node("Gemm", ["e", "w"], "y", name="head"),
    ]
    weights = {
        "k": normal(0, 8, 8, 3, 3, scale=0.2),
        "w": normal(1, 8, 10, scale=0.3),
        "x8": normal(2, 1, 8, SIZE, SIZE),
    }
    shape = [1, 8, SIZE, SIZE]
    assert np.prod(shape) >= LARGE
    return build_model(nodes, [tensor("x", shape)], [tensor("y", [1, 10])], weights)


def figures(model, threads: int, budget: int | None = None):
    samples = [{"x": normal(seed, 1, 8, SIZE, SIZE)} for seed in (3, 4)]
    ranking = rank_model(model, samples, threads=threads, max_memory_bytes=budget)
    return {layer.name: (layer.impact, layer.share, layer.readers) for layer in ranking.layers}


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8])
def test_equal_threads_give_equal_numbers(threads: int):
    model = single_row_model()
    first = figures(model, threads)
    for _ in range(3):
        assert figures(model, threads) == first


@pytest.mark.parametrize("budget", [None, 1 << 10], ids=["in memory", "on disk"])
def test_other_threads_change_no_more_than_the_rounding_of_sums(budget: int | None):
    model = single_row_model()
    one, four = (figures(model, threads, budget) for threads in (1, 4))
    assert one.keys() == four.keys()
    for name, (impact, _, _) in one.items():
        assert four[name][0] == pytest.approx(impact, rel=1e-5)
