"""What is looked at before the next node runs is what the sums say later."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from polygraphy_layerprec.divergence.compact_errors import ErrorMemory, errors_of
from polygraphy_layerprec.execution.emulation.layer_outputs import LayerOutputs, OutputFacts
from polygraphy_layerprec.execution.kernels.cast_rounding import CastRounder
from polygraphy_layerprec.execution.kernels.node_session import tensor_of, value_of
from polygraphy_layerprec.plan.widths import Width
from polygraphy_layerprec.precision import BF16, FP16, Precision
from polygraphy_layerprec.rounding import round_to_precision

FLOATS = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, 65504.0, 65519.0, 65520.0, 1e-8, 3.3e38, np.inf, -np.inf, np.nan]),
)
ARRAYS = npst.arrays(np.float32, st.integers(1, 40), elements=FLOATS)


def outputs_of(precision: Precision, exact, introduced, candidate) -> LayerOutputs:
    return LayerOutputs(
        ["y"],
        [Width.LOW],
        CastRounder(precision),
        [tensor_of(exact)],
        None if introduced is None else [tensor_of(introduced)],
        [tensor_of(candidate.copy())],
    )


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda precision: precision.name)
@pytest.mark.parametrize("repeats", [1, 2000], ids=["small", "large enough for casts"])
@given(exact=ARRAYS, data=st.data())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_facts_say_what_the_sums_say(precision: Precision, repeats: int, exact, data):
    candidate = data.draw(npst.arrays(np.float32, exact.size, elements=FLOATS))
    introduced = data.draw(
        st.none() | npst.arrays(np.float32, exact.size, elements=FLOATS), label="introduced"
    )
    exact, candidate = np.tile(exact, repeats), np.tile(candidate, repeats)
    introduced = None if introduced is None else np.tile(introduced, repeats)

    outputs = outputs_of(precision, exact, introduced, candidate)
    facts = outputs.facts()
    sums, _ = outputs.measure(None)

    assert facts == OutputFacts.of(sums)
    overflows = facts.max_abs >= precision.overflow_threshold
    assert overflows == (sums.overflow_count > 0)
    rounded = round_to_precision(candidate, precision)
    np.testing.assert_array_equal(value_of(outputs.candidates[0]), rounded)


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1, 1000, 1 << 16, (1 << 16) + 7]))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_sums_agree_with_float64(seed: int, size: int):
    rng = np.random.default_rng(seed)
    exact = (rng.standard_normal(size) * 10.0 ** rng.integers(-2, 3)).astype(np.float32)
    introduced = exact * np.float32(1.0003)
    candidate = exact * np.float32(1.001)

    sums, kept = outputs_of(FP16, exact, introduced, candidate).measure(ErrorMemory(0))

    wide = exact.astype(np.float64)
    error = introduced.astype(np.float16).astype(np.float64) - wide
    moved = candidate.astype(np.float16).astype(np.float64) - wide
    assert sums.introduced_power == pytest.approx(float(error @ error), rel=1e-4)
    assert sums.cumulative_power == pytest.approx(float(moved @ moved), rel=1e-4)
    assert sums.reference_power == pytest.approx(float(wide @ wide), rel=1e-5)
    found = errors_of(kept["y"])
    least = np.abs(error).max() * 2.0**-31
    np.testing.assert_allclose(found, error, rtol=2**-7 if size < 1 << 14 else 2**-3, atol=least)
