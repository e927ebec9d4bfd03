"""Divergences of tensors that something else computed: closed forms, merging, what is no tensor."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from polygraphy_layerprec.divergence.metrics import measure_divergence
from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
from polygraphy_layerprec.execution.comparison.tensor_comparison import TensorComparison
from polygraphy_layerprec.precision import BF16, FP16

PAIRS = st.lists(
    hnp.array_shapes(max_dims=2, max_side=4).flatmap(
        lambda shape: st.tuples(
            *[hnp.arrays(np.float32, shape, elements=st.floats(width=32))] * 2,
        )
    ),
    min_size=1,
    max_size=4,
)


def floats(*values, dtype=np.float32):
    return np.array(values, dtype)


def compared(*pairs, precision=FP16):
    comparison = TensorComparison(precision)
    for reference, candidate in pairs:
        comparison.add("y", reference, candidate)
    return comparison


def test_the_error_is_relative_to_the_norm_of_the_reference():
    divergence = compared((floats(3, 4), floats(3, 4.5)))["y"]

    assert divergence.cumulative_error == pytest.approx(0.1)
    assert divergence.max_abs_error == pytest.approx(0.5)


def test_samples_add_up_as_powers_in_the_sums_and_as_errors_at_an_output():
    comparison = compared((floats(1), floats(2)), (floats(3), floats(3)))

    assert comparison.sample_count == 2
    assert comparison["y"].cumulative_error == pytest.approx(np.sqrt(1 / 10))
    assert comparison["y"].to_output_divergence("y").error == pytest.approx(np.sqrt(1 / 2))


@given(PAIRS)
def test_sums_are_those_of_the_measure_and_outputs_those_of_the_model(pairs):
    comparison = compared(*pairs)

    sums = [
        measure_divergence(a.copy(), b.copy(), precision=FP16, round_candidate=False)
        for a, b in pairs
    ]
    outputs = OutputDivergences(["y"], FP16)
    for reference, candidate in pairs:
        outputs.add({"y": reference}, {"y": candidate})
    (expected,) = outputs.records()
    found = comparison["y"].to_output_divergence("y")
    assert comparison["y"].sums == sum(sums[1:], sums[0])
    assert found.error == pytest.approx(expected.error)
    assert found.max_abs_error == expected.max_abs_error
    assert found.nonfinite_count == expected.nonfinite_count
    assert found.mismatch_fraction == pytest.approx(expected.mismatch_fraction)


@given(PAIRS)
def test_arrays_stay_as_they_were(pairs):
    copies = [(a.copy(), b.copy()) for a, b in pairs]

    compared(*pairs)

    for pair, copy in zip(pairs, copies, strict=True):
        np.testing.assert_array_equal(pair, copy)


@given(PAIRS)
def test_a_comparison_goes_on_from_json(pairs):
    split = len(pairs) // 2
    stored = json.dumps(compared(*pairs[:split]).to_json_value(), allow_nan=False)

    resumed = TensorComparison.from_json_value(json.loads(stored), FP16)
    for reference, candidate in pairs[split:]:
        resumed.add("y", reference, candidate)

    whole = compared(*pairs)
    assert resumed["y"] == whole["y"]
    assert resumed.to_json_value() == whole.to_json_value()


def test_comparisons_of_other_samples_and_tensors_merge():
    first, second = compared((floats(1), floats(2))), compared((floats(3), floats(3)))
    second.add("z", floats(1), floats(1))

    first.merge(second)

    assert first.names == ("y", "z")
    assert first["y"] == compared((floats(1), floats(2)), (floats(3), floats(3)))["y"]
    assert first["z"].cumulative_error == 0.0


def test_another_precision_does_not_merge():
    with pytest.raises(ValueError, match="bf16"):
        compared(precision=FP16).merge(compared(precision=BF16))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"precision": "fp16", "tensors": {"y": {"sums": {"no": 1}}}},
        {"precision": "fp16", "tensors": []},
        [],
    ],
)
def test_what_is_no_saved_comparison_is_refused(value):
    with pytest.raises(ValueError, match="no saved comparison"):
        TensorComparison.from_json_value(value, FP16)


def test_a_comparison_saved_in_another_precision_is_refused():
    with pytest.raises(ValueError, match="in 'bf16', not in 'fp16'"):
        TensorComparison.from_json_value(compared(precision=BF16).to_json_value(), FP16)


def test_new_infinities_and_nan_are_counted_and_never_become_a_silent_number():
    divergence = compared((floats(3, 4, np.inf), floats(np.inf, np.nan, np.inf)))["y"]

    assert divergence.nonfinite_count == 2
    assert divergence.sums.candidate_nonfinite_count == 2
    assert divergence.sums.reference_nonfinite_count == 1
    assert divergence.cumulative_error > 0.0


def test_a_reference_of_zeros_makes_any_error_a_total_loss():
    assert compared((floats(0, 0), floats(0, 1e-3)))["y"].cumulative_error == 1.0


def test_a_mask_that_became_infinite_says_the_same_as_before():
    divergence = compared((floats(-3e38, 1), floats(-np.inf, 1)))["y"]

    assert divergence.cumulative_error == 0.0
    assert divergence.sums.candidate_nonfinite_count == 1


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (floats(1, 2), floats(1, 2.5, dtype=np.float16)),
        (floats(1, 2, dtype=np.float16), floats(1, 2.5, dtype=np.float16)),
        (floats(1, 2, dtype=np.float64), floats(1, 2.5)),
        (floats(1, 2), floats(1, 2.5, dtype=np.float64)),
        (floats(1, 2, dtype=">f4"), floats(1, 2.5)),
        (floats(1, 2, dtype=ml_dtypes.bfloat16), floats(1, 2.5, dtype=ml_dtypes.bfloat16)),
        (floats(1, 2, dtype=np.longdouble), floats(1, 2.5)),
        (np.float32([[0, 1], [0, 2]])[:, 1], floats(1, 2.5)),
    ],
)
def test_any_floating_point_types_compare(reference, candidate):
    divergence = compared((reference, candidate))["y"]

    assert divergence.cumulative_error == pytest.approx(0.5 / np.sqrt(5))


def test_numbers_near_the_end_of_fp64_give_a_finite_error():
    divergence = compared((floats(1e308, dtype=np.float64), floats(-1e308, dtype=np.float64)))["y"]

    assert divergence.to_output_divergence("y").error == pytest.approx(2.0)
    json.dumps(compared().to_json_value(), allow_nan=False)


def test_integers_are_told_by_their_mismatches():
    divergence = compared((np.arange(4), np.array([0, 1, 2, 9], np.int32)))["y"]

    assert divergence.cumulative_error is None
    assert not divergence.is_measured
    assert divergence.to_output_divergence("y").error is None
    assert divergence.to_output_divergence("y").mismatch_fraction == 0.25


@pytest.mark.parametrize("count", [1, 2])
def test_integers_are_known_as_such_however_few(count):
    assert compared((np.arange(count), np.arange(count)))["y"].is_of_integers
    assert not compared((floats(*range(count)), floats(*range(count))))["y"].is_of_integers


def test_other_shapes_are_counted_and_leave_no_error():
    comparison = compared((floats(1), floats(2)), (floats(1, 2), floats(1)))

    assert comparison["y"].reshaped_count == 1
    assert comparison["y"].cumulative_error is None
    assert comparison["y"].to_output_divergence("y").error is None
    assert comparison["y"].to_output_divergence("y").mismatch_fraction == 1.0


def test_a_scalar_is_not_a_vector():
    assert compared((np.float32(2), np.float32(3)))["y"].cumulative_error == 0.5
    assert compared((np.float32(2), floats(2)))["y"].reshaped_count == 1


def test_an_empty_tensor_is_not_measured():
    divergence = compared((floats(), floats()))["y"]

    assert not divergence.is_measured
    assert divergence.cumulative_error is None


@pytest.mark.parametrize(
    "absent",
    [
        None,
        [floats(1)],
        "text",
        np.array(["text"]),
        np.array([None]),
        np.array([1j]),
        np.zeros(2, "V4"),
        np.zeros(2, [("a", "f4")]),
    ],
)
def test_what_is_no_tensor_of_numbers_is_counted_as_absent(absent):
    comparison = compared((floats(1), absent), (absent, floats(1)), (floats(2), floats(3)))

    assert comparison["y"].absent_count == 2
    assert comparison["y"].cumulative_error == 0.5
    assert comparison.sample_count == 3


def test_what_only_one_side_has_is_absent():
    comparison = TensorComparison(FP16)

    comparison.add_sample({"a": floats(1), "b": floats(1)}, {"b": floats(1), "c": floats(1)})

    assert comparison.names == ("a", "b", "c")
    assert [comparison[name].absent_count for name in "abc"] == [1, 0, 1]
    assert "a" in comparison
    assert "d" not in comparison


def test_what_is_stored_does_not_grow_with_the_samples():
    one = compared((floats(1), floats(2)))
    many = compared(*[(floats(1), floats(2))] * 500)

    sizes = [len(json.dumps(comparison.to_json_value())) for comparison in (one, many)]

    assert sizes[1] < 1.2 * sizes[0]


@pytest.mark.parametrize("candidate", [1e140, 1e308, np.inf, np.nan])
@pytest.mark.parametrize("reference", [1e-140, 1e-20])
def test_the_smallest_against_the_largest_numbers_stay_finite(reference, candidate):
    comparison = TensorComparison(BF16)

    for _ in range(2):
        comparison.add("y", np.float64([reference]), np.float64([candidate]))

    text = json.dumps(comparison.to_json_value(), allow_nan=False)
    output = comparison["y"].to_output_divergence("y")
    assert TensorComparison.from_json_value(json.loads(text), BF16)["y"] == comparison["y"]
    assert np.isfinite(output.error) == np.isfinite(candidate)
    assert output.error > 0
