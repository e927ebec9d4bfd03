"""Gradients of matrix products agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from .finite_differences import check_rule

matrix_products = mutually_broadcastable_shapes(
    signature=np.matmul.signature, max_dims=2, max_side=4
)


@settings(max_examples=60)
@given(drawn=matrix_products, seed=st.integers(0, 2**32 - 1))
def test_matrix_product_matches_differences(drawn, seed):
    generator = np.random.default_rng(seed)

    check_rule("MatMul", [generator.standard_normal(s) for s in drawn.input_shapes], opset=13)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias_shape", [None, (), (1,), (5,), (3, 1), (3, 5)])
def test_general_product_matches_differences(trans_a, trans_b, bias_shape):
    generator = np.random.default_rng(0)
    first = generator.standard_normal((4, 3) if trans_a else (3, 4))
    second = generator.standard_normal((5, 4) if trans_b else (4, 5))
    bias = [] if bias_shape is None else [generator.standard_normal(bias_shape)]
    attributes = {"transA": trans_a, "transB": trans_b, "alpha": 0.7, "beta": -1.5}

    check_rule("Gemm", [first, second, *bias], attributes, opset=13)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bhqd, bhkd -> bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
        ("...ij,jk", [(2, 3, 4), (4, 2)]),
        ("ij->j", [(2, 3)]),
        ("ij->", [(2, 3)]),
        ("ij", [(2, 3)]),
        ("ji", [(2, 3)]),
        ("ii->i", [(3, 3)]),
        ("ii", [(3, 3)]),
        ("iij,jk->ik", [(3, 3, 2), (2, 4)]),
        ("ij,kl->il", [(2, 3), (4, 2)]),
        ("i,i,i->i", [(3,), (3,), (3,)]),
        ("i,j->ij", [(3,), (2,)]),
        ("...,...->...", [(2, 1), (3,)]),
        ("Ab,bC->AC", [(2, 3), (3, 4)]),
    ],
)
def test_einsum_matches_differences(equation, shapes):
    generator = np.random.default_rng(1)

    check_rule(
        "Einsum",
        [generator.standard_normal(shape) for shape in shapes],
        {"equation": equation},
        evaluate=lambda xs: [np.asarray(np.einsum(equation, *xs))],
    )
