"""Outputs of candidates that are not there in every sample."""

from __future__ import annotations

import numpy as np

from polygraphy_layerprec.execution.comparison.output_comparison import OutputComparison

ONES = np.ones(2, np.float32)


def test_an_output_that_is_missing_once_is_not_told_by_the_other_samples():
    comparison = OutputComparison(["a", "b"])
    comparison.add("lowered", {"a": ONES, "b": ONES}, {"a": 2 * ONES, "b": ONES}, {})
    comparison.add("lowered", {"a": ONES, "b": ONES}, {"a": 2 * ONES}, {})

    assert list(comparison.missing) == ["b"]
    assert {name: r.error for name, r in comparison.records("lowered").items()} == {"a": 1.0}
    assert comparison.records("constrained") == {}
