"""Elements of decisions that low precision changes, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.kernels.node_session import tensor_of
from polygraphy_layerprec.execution.probes.decisions import count_flipped
from polygraphy_layerprec.model import load_graph
from tests.models import build_model, node, tensor

INTEGERS = np.array([0, 1, 2, 3])


def flipped(reference, candidate, op_type="ArgMax"):
    model = build_model([node(op_type, ["x"], "y")], [tensor("x", [4])], [tensor("y", None)])
    return count_flipped(load_graph(model).nodes[0], [tensor_of(reference)], [tensor_of(candidate)])


@pytest.mark.parametrize(
    ("candidate", "count"),
    [
        pytest.param(INTEGERS, 0, id="same"),
        pytest.param(np.array([0, 1, 9, 9]), 2, id="two differ"),
        pytest.param(INTEGERS[:2], 4, id="another shape is a difference in all"),
    ],
)
def test_integers_that_differ_are_counted(candidate, count):
    assert flipped(INTEGERS, candidate) == count


def test_nothing_that_became_something_is_one_difference():
    assert flipped(INTEGERS[:0], INTEGERS) == 1


def test_floats_count_only_where_they_are_whole_numbers():
    reference, candidate = np.array([1.0, 2.0], np.float32), np.array([1.0, 3.0], np.float32)

    assert flipped(reference, candidate, "Floor") == 1
    assert flipped(reference, candidate, "Exp") == 0
