"""Gradients of elementary functions agree with finite differences."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.divergence.rules import Application, find_rule

from .finite_differences import check_rule

EVERYWHERE = (-3, 3)
DOMAINS = {
    "Sqrt": (0.1, 9),
    "Exp": EVERYWHERE,
    "Reciprocal": (0.2, 4),
    "Tan": (-1.2, 1.2),
    "Tanh": EVERYWHERE,
    "Sigmoid": EVERYWHERE,
    "Softplus": EVERYWHERE,
    "Softsign": EVERYWHERE,
    "Log": (0.1, 9),
    "Sin": EVERYWHERE,
    "Cos": EVERYWHERE,
    "Asin": (-0.9, 0.9),
    "Acos": (-0.9, 0.9),
    "Atan": EVERYWHERE,
    "Sinh": EVERYWHERE,
    "Cosh": EVERYWHERE,
    "Asinh": EVERYWHERE,
    "Acosh": (1.1, 5),
    "Atanh": (-0.9, 0.9),
}


@pytest.mark.parametrize("op_type", DOMAINS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_elementary_function_matches_differences(op_type, seed):
    values = np.random.default_rng(seed).uniform(*DOMAINS[op_type], (3, 5))

    check_rule(op_type, [values], opset=22, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_error_function_matches_differences(seed):
    values = np.random.default_rng(seed).uniform(*EVERYWHERE, (3, 5))

    # The reference evaluator rounds erf to float32.
    check_rule("Erf", [values], evaluate=lambda xs: [np.vectorize(erf)(xs[0])])


def test_softplus_keeps_the_relative_precision_of_a_small_slope():
    output = np.array([1e-12], np.float32)
    node = Application("Softplus", 22, {}, [None], [output], [(1,)], [(1,)], frozenset({0}))

    (gradient,) = find_rule("Softplus", "", 22).apply(node, [np.ones(1, np.float32)])

    assert gradient == pytest.approx(1e-12, rel=1e-6)
