"""Operations of a node, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.execution.comparison.flops import count_flops
from polygraphy_layerprec.pipeline import rank_model
from tests.models import build_model, node, tensor

EXTENTS = st.integers(1, 9)


@given(
    rows=EXTENTS, shared=EXTENTS, columns=EXTENTS, turned=st.tuples(st.booleans(), st.booleans())
)
def test_a_gemm_counts_the_same_however_its_operands_lie(rows, shared, columns, turned):
    first = (shared, rows) if turned[0] else (rows, shared)
    second = (columns, shared) if turned[1] else (shared, columns)

    found = count_flops("Gemm", [first, second, (columns,)], [(rows, columns)])

    assert found == 2 * rows * shared * columns


@pytest.mark.parametrize(
    ("op_type", "inputs", "outputs", "expected"),
    [
        ("MatMul", [(3, 4, 5), (5, 7)], [(3, 4, 7)], 2 * 3 * 4 * 5 * 7),
        ("Conv", [(1, 8, 16, 16), (4, 8, 3, 3)], [(1, 4, 14, 14)], 2 * 4 * 14 * 14 * 8 * 9),
        ("Conv", [(1, 8, 16, 16), (8, 1, 3, 3)], [(1, 8, 14, 14)], 2 * 8 * 14 * 14 * 9),
        ("ConvTranspose", [(1, 8, 5, 5), (8, 4, 2, 2)], [(1, 4, 10, 10)], 2 * 8 * 25 * 4 * 4),
        ("Add", [(3, 4), (4,)], [(3, 4)], 12),
        ("ReduceSum", [(3, 4), None], [(3,)], 12),
        ("Split", [(6,)], [(2,), (4,)], 6),
        ("Shape", [None], [None], 0),
    ],
)
def test_operations_are_those_counted_by_hand(op_type, inputs, outputs, expected):
    assert count_flops(op_type, inputs, outputs) == expected


@pytest.mark.onnxrt
def test_the_number_of_samples_does_not_change_the_operations_of_a_layer():
    model = build_model(
        [node("MatMul", ["x", "w"], "y")],
        [tensor("x", [2, 4])],
        [tensor("y", [2, 3])],
        {"w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)},
    )
    samples = [{"x": np.full((2, 4), 0.3 + i, np.float32)} for i in range(3)]

    counted = [rank_model(model, samples[:n]).layers[0].flops for n in (1, 2, 3)]

    assert counted == [2 * 2 * 4 * 3] * 3
