"""Divergences measured elsewhere, put into an emulated ranking."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polygraphy_layerprec.execution.comparison.tensor_comparison import TensorComparison
from polygraphy_layerprec.files.record_codec import to_json_value
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.ranking.measured_divergence import with_measured_divergences
from polygraphy_layerprec.records import NonFiniteOrigin, OutputDivergence, OutputError
from tests.rankings import make_layer, make_ranking

MAGNITUDE = 12.25
"""The largest magnitude in the tests' layers."""


def layer(rank, **changes):
    """Returns layer `a`, `b`, ... which reads the tensor of the one before."""
    name = "_abcdef"[rank]
    before = "x" if rank == 1 else f"t{'_abcdef'[rank - 1]}"
    return make_layer(
        rank, f"/{name}", **{"inputs": (before,), "outputs": (f"t{name}",), **changes}
    )


def ranking_of(*layers, **changes):
    outputs = OutputError(
        measured=0.5,
        forecast=0.25,
        outputs=(
            OutputDivergence("tc", 0.5, 1.0, 0, 1.0),
            OutputDivergence("label", None, None, 0, 0.5),
        ),
    )
    layers = layers or (layer(1), layer(2), layer(3))
    return make_ranking(*layers, **{"output_error": outputs, **changes})


def comparison_of(samples=2, /, **tensors):
    """Returns tensors of the magnitude of the tests' layers, each with what is off."""
    comparison = TensorComparison(FP16)
    for name, values in tensors.items():
        for _ in range(samples):
            candidate = np.asarray(values, np.float32)
            reference = np.full(candidate.shape, MAGNITUDE, np.float32)
            comparison.add(name, reference, candidate)
    return comparison


def beyond_the_range(name, candidate):
    """Returns one tensor with a value that FP16 does not have."""
    comparison = TensorComparison(FP16)
    comparison.add(name, np.float32([9e4, 1]), np.float32([candidate, 1]))
    return comparison


def exact(count=4):
    return np.full(count, MAGNITUDE)


def measured(ranking, comparison, **options):
    return with_measured_divergences(ranking, comparison, backend="tensorrt", **options)


def by_name(ranking):
    return {layer.name: layer for layer in ranking.layers}


def test_layers_take_the_measured_figures_and_keep_the_emulated_impacts():
    emulated = ranking_of()

    found = measured(emulated, comparison_of(ta=1.5 * exact(), tb=exact(), tc=exact()))

    first, before = by_name(found)["/a"], by_name(emulated)["/a"]
    assert first.cumulative_error == pytest.approx(0.5)
    assert first.element_count == 8
    assert first.max_abs == MAGNITUDE
    assert first.underflow_count == 0
    assert first.candidate_nonfinite_count == 0
    assert (first.impact, first.share, first.introduced_error) == (
        before.impact,
        before.share,
        before.introduced_error,
    )
    assert by_name(found)["/b"].cumulative_error == 0.0


def test_the_record_says_where_the_divergences_come_from():
    found = measured(
        ranking_of(), comparison_of(3, ta=exact()), versions=[("tensorrt", "10.1"), ("numpy", "9")]
    )

    assert found.conditions.backend == "tensorrt"
    assert found.conditions.versions == (
        ("numpy", "9"),
        ("onnxruntime", "1.20.0"),
        ("tensorrt", "10.1"),
    )
    assert found.conditions.sample_count == 3
    to_json_value(found)  # every figure is finite


def test_the_output_error_is_the_measured_one():
    comparison = comparison_of(tc=1.5 * exact())
    comparison.add("label", np.arange(4), np.array([0, 1, 2, 9]))

    error = measured(ranking_of(), comparison).output_error

    assert error.measured == pytest.approx(0.5)
    assert error.forecast == 0.25
    assert error.outputs[0].error == pytest.approx(0.5)
    assert error.outputs[0].max_abs_error == pytest.approx(0.5 * MAGNITUDE)
    assert error.outputs[1].error is None
    assert error.outputs[1].mismatch_fraction == 0.25


def test_only_outputs_that_count_are_in_the_error():
    emulated = ranking_of()
    outputs = (OutputDivergence("ta", 0.5, 1.0, 0, 1.0), OutputDivergence("tc", 0.5, 1.0, 0, 1.0))
    emulated = replace(
        emulated,
        output_error=replace(emulated.output_error, outputs=outputs),
        conditions=replace(emulated.conditions, outputs=("tc",)),
    )

    error = measured(emulated, comparison_of(ta=2 * exact(), tc=1.5 * exact())).output_error

    assert error.measured == pytest.approx(0.5)
    assert [output.error for output in error.outputs] == [None, pytest.approx(0.5)]


def test_an_output_that_does_not_count_is_not_missed():
    emulated = ranking_of()
    emulated = replace(emulated, conditions=replace(emulated.conditions, outputs=("tc",)))

    found = measured(emulated, comparison_of(ta=1.5 * exact(), tb=exact(), tc=exact()))

    assert found.warnings == ()


def test_an_output_error_that_was_not_measured_stays_and_is_told():
    found = measured(ranking_of(), comparison_of(ta=exact()))

    assert found.output_error == ranking_of().output_error
    assert any("No output of the model was measured" in text for text in found.warnings)


def test_an_output_that_was_not_measured_is_told():
    found = measured(ranking_of(), comparison_of(tc=exact()))

    assert found.output_error.measured == 0.0
    assert any("1 of 2 outputs were not measured" in w and "'label'" in w for w in found.warnings)


def test_an_output_of_another_shape_leaves_no_error_and_is_told():
    comparison = TensorComparison(FP16)
    comparison.add("tc", np.float32([1, 2]), np.float32([1]))

    found = measured(ranking_of(), comparison)

    assert found.output_error.outputs[0].error is None
    assert found.output_error.measured == 0.5
    assert any("outputs have another shape" in text for text in found.warnings)
    assert any("layers have another shape" in text for text in found.warnings)
    assert by_name(found)["/c"].cumulative_error is None


def test_a_layer_without_a_tensor_has_no_cumulative_error_and_is_named():
    found = measured(ranking_of(), comparison_of(ta=exact(), tc=exact()))

    assert by_name(found)["/b"].cumulative_error is None
    assert any(
        "1 of 3 layers have no tensor that was measured" in w and "'/b'" in w
        for w in found.warnings
    )


def test_where_everything_was_measured_nothing_is_told():
    comparison = comparison_of(ta=1.5 * exact(), tb=exact(), tc=exact())
    for _ in range(2):
        comparison.add("label", np.arange(4), np.arange(4))

    found = measured(ranking_of(), comparison, warnings=["further"])

    assert found.warnings == ("further",)


def test_tensors_of_no_layer_and_of_one_side_are_told():
    comparison = comparison_of(ta=exact(), strange=exact(), constant=exact())
    comparison.add("tb", exact(), None)

    found = measured(ranking_of(), comparison, model_tensors={"constant"})

    assert any("1 of 4 tensors match no layer" in w and "'strange'" in w for w in found.warnings)
    assert any("not on both sides" in w and "'tb'" in w for w in found.warnings)


def test_results_of_another_model_are_refused():
    with pytest.raises(ValueError, match="another model") as caught:
        measured(ranking_of(), comparison_of(other=exact()))

    assert "'other'" in str(caught.value)
    assert "'ta'" in str(caught.value)


def test_a_value_lost_where_the_reference_is_finite_is_an_overflow_and_comes_first():
    found = measured(
        ranking_of(),
        comparison_of(ta=exact(), tb=[MAGNITUDE, np.inf, MAGNITUDE], tc=np.full(3, np.nan)),
    )

    first = found.layers[0]
    assert (first.name, first.rank, first.overflow, first.kind) == ("/b", 1, True, "overflow")
    assert first.candidate_nonfinite_count == 2
    assert "2 of 6 values are not finite in the candidate" in first.reason
    # What arrives lost is the doing of the layer before.
    assert not by_name(found)["/c"].overflow
    assert found.nonfinite_origins == (
        NonFiniteOrigin("/b", "Add", "inf", in_reference=False, path=("/b",)),
    )
    assert [layer.rank for layer in found.layers] == [1, 2, 3]


def test_an_emulated_overflow_that_the_candidate_shows_stays():
    overflowing = layer(2, overflow=True, overflow_count=3, kind="overflow", reason="as emulated")
    origin = NonFiniteOrigin("/b", "Add", "inf", in_reference=False, path=("/b", "/c"))
    emulated = ranking_of(overflowing, layer(1), nonfinite_origins=(origin,))

    found = measured(emulated, comparison_of(tb=[np.inf, MAGNITUDE]))

    assert found.layers[0].name == "/b"
    assert (found.layers[0].overflow, found.layers[0].reason) == (True, "as emulated")
    assert found.nonfinite_origins == (origin,)


def test_an_emulated_overflow_that_stays_finite_in_the_candidate_is_none():
    overflowing = layer(2, overflow=True, overflow_count=3, kind="overflow", reason="as emulated")
    origin = NonFiniteOrigin("/b", "Add", "inf", in_reference=False, path=("/b", "/c"))
    emulated = ranking_of(overflowing, layer(1), nonfinite_origins=(origin,))

    found = measured(emulated, beyond_the_range("tb", 9e4))

    assert [layer.name for layer in found.layers] == ["/a", "/b"]
    assert (found.layers[1].overflow, found.layers[1].kind) == (False, "benign overflow")
    assert "stays finite in the candidate" in found.layers[1].reason
    assert found.nonfinite_origins == ()


@pytest.mark.parametrize(("arrives", "overflows"), [(np.inf, True), (9e4, False)])
def test_an_overflow_of_an_input_is_judged_by_what_arrives(arrives, overflows):
    dividing = layer(2, overflow=True, kind="overflow", reason="as emulated")
    comparison = beyond_the_range("ta", arrives)
    comparison.merge(comparison_of(1, tb=exact()))

    found = measured(ranking_of(layer(1), dividing), comparison)

    assert by_name(found)["/b"].overflow == overflows


def test_an_overflow_that_was_not_measured_where_it_is_stays():
    dividing = layer(2, overflow=True, kind="overflow", reason="as emulated")

    found = measured(ranking_of(layer(1), dividing), comparison_of(tb=exact()))

    assert found.layers[0].overflow
    assert found.layers[0].reason == "as emulated"


@pytest.mark.parametrize("emulated_count", [0, 3])
def test_an_overflow_that_the_emulation_knows_to_be_benign_stays_so(emulated_count):
    mask = layer(
        1, overflow_count=3, candidate_nonfinite_count=emulated_count, kind="benign overflow"
    )

    found = measured(ranking_of(mask), comparison_of(ta=[-np.inf, MAGNITUDE]))

    assert not found.layers[0].overflow
    assert found.layers[0].kind == "benign overflow"


def test_what_the_emulation_saw_arrive_is_not_blamed_on_the_layer():
    emulated = ranking_of(layer(1), layer(2, inputs=("moved",), candidate_nonfinite_count=1))

    found = measured(emulated, comparison_of(tb=[np.inf, MAGNITUDE]))

    assert not by_name(found)["/b"].overflow


def test_an_unmeasured_overflow_stays():
    overflowing = layer(2, overflow=True, overflow_count=3, kind="overflow")

    found = measured(ranking_of(overflowing, layer(1)), comparison_of(ta=exact()))

    assert found.layers[0].name == "/b"
    assert found.layers[0].overflow


def test_all_outputs_of_a_layer_count_together():
    emulated = ranking_of(layer(1, outputs=("", "ta", "tz")))

    found = measured(emulated, comparison_of(ta=exact(2), tz=2 * exact(2)))

    assert found.layers[0].cumulative_error == pytest.approx(np.sqrt(0.5))
    assert found.layers[0].element_count == 8


def test_other_inputs_are_noticed_by_their_number_and_magnitudes():
    emulated = ranking_of(layer(1, max_abs=2 * MAGNITUDE), layer(2, max_abs=2 * MAGNITUDE))

    found = measured(emulated, comparison_of(1, ta=exact(), tb=exact()))

    assert any("of 1 sample, the impacts of 2" in text for text in found.warnings)
    assert any("other inputs than the divergences" in text for text in found.warnings)


@pytest.mark.parametrize(("error", "told"), [(0.1, True), (0.0, False), (None, False)])
def test_a_candidate_without_any_difference_is_told_where_the_emulation_has_one(error, told):
    emulated = ranking_of(layer(1, cumulative_error=error), layer(2, cumulative_error=0.0))

    found = measured(emulated, comparison_of(ta=exact(), tb=exact(), tc=2 * exact()))

    assert any("seems to be in FP32 as well" in text for text in found.warnings) == told


def test_one_difference_is_enough_for_a_candidate():
    found = measured(ranking_of(), comparison_of(ta=exact(), tb=1.5 * exact(), tc=exact()))

    assert not any("seems to be in FP32" in text for text in found.warnings)


def test_made_up_inputs_are_not_compared_by_magnitude():
    emulated = ranking_of(layer(1, max_abs=2 * MAGNITUDE))
    emulated = replace(emulated, conditions=replace(emulated.conditions, inputs="generated"))

    found = measured(emulated, comparison_of(ta=exact()))

    assert not any("other inputs" in text for text in found.warnings)
