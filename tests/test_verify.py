"""Verification by emulation, against errors in closed form."""

from __future__ import annotations

import weakref

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.matching.requested_precisions import all_lowered
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.records import Constraint, RequestedPrecisions
from polygraphy_layerprec.verify import run_plainly, verify_model
from tests.models import build_model, node, random_numbers, sample_inputs, scalar, tensor

pytestmark = pytest.mark.onnxrt

TIE = 1 + 2.0**-11
"""Halfway between two numbers of FP16, rounded to 1, the even one."""

LOSS = 2.0**-11 / TIE
"""Relative error when `TIE` becomes 1."""


def two_factors(second: float = 1.0) -> onnx.ModelProto:
    """Returns `y = (x * TIE) * second`, of two layers."""
    nodes = [
        node("Mul", ["x", "tie"], "scaled", name="first"),
        node("Mul", ["scaled", "factor"], "y", name="second"),
    ]
    weights = {"tie": scalar(TIE), "factor": scalar(second)}
    return build_model(nodes, [tensor("x", [2])], [tensor("y", [2])], weights)


def keep(*outputs: str) -> RequestedPrecisions:
    constraints = tuple(Constraint("", "Mul", (), (name,), "a test") for name in outputs)
    return RequestedPrecisions("a test", "fp16", constraints, ())


def feed(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array(values, np.float32)}


@pytest.fixture
def verify(tmp_path):
    def run(model, asked, samples=None, **options):
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return verify_model(path, [feed(1, 2)] if samples is None else samples, asked, **options)

    return run


def test_a_kept_layer_recovers_the_whole_error(verify):
    found = verify(two_factors(), keep("scaled", "y"))

    assert found.lowered_error == pytest.approx(LOSS, rel=1e-6)
    assert found.constrained_error == 0.0
    assert found.fp32_error == 0.0
    assert found.recovered == 1.0
    assert found.outputs[0].recovered == 1.0
    assert (found.kept_count, found.layer_count) == (2, 2)


def test_layers_are_counted_as_a_ranking_counts_them(verify):
    nodes = [
        node("Mul", ["x", "factor"], "scaled", name="layer"),
        node("Relu", ["scaled"], "positive", name="moves values"),
        node("Shape", ["positive"], "shape", name="integers"),
        node("Mul", ["shape", "shape"], "area", name="integer arithmetic"),
        node("ArgMax", ["positive"], "best", name="gives an integer"),
        node("Cast", ["positive"], "half", name="to half", to=TensorProto.FLOAT16),
        node("Mul", ["half", "half"], "square", name="in half already"),
        node("Cast", ["square"], "y", name="to float", to=TensorProto.FLOAT),
    ]
    outputs = [tensor("y", [2]), tensor("area", [1], TensorProto.INT64)]
    outputs.append(tensor("best", [1], TensorProto.INT64))
    model = build_model(nodes, [tensor("x", [2])], outputs, {"factor": scalar(TIE)})

    found = verify(model, keep("scaled"))

    assert found.layer_count == len(rank_model(model, [feed(1, 2)]).layers) == 1


def test_a_layer_that_is_not_to_blame_recovers_nothing(verify):
    found = verify(two_factors(), keep("y"))

    assert found.constrained_error == pytest.approx(LOSS, rel=1e-6)
    assert found.recovered == pytest.approx(0.0)


def test_without_constraints_every_layer_is_lowered(verify):
    found = verify(two_factors(), all_lowered("fp16"))

    assert found.constrained_error == found.lowered_error == pytest.approx(LOSS, rel=1e-6)
    assert found.source == ""


def test_bf16_rounds_more_coarsely(verify):
    model = two_factors(1 + 2.0**-8)  # a tie of BF16

    found = verify(model, all_lowered("bf16"))

    exact = TIE * (1 + 2.0**-8)
    assert found.lowered_error == pytest.approx((exact - 1) / exact, rel=1e-6)


@pytest.mark.parametrize(("tolerance", "passed"), [(1.01 * LOSS, True), (0.99 * LOSS, False)])
def test_the_tolerance_decides(verify, tolerance, passed):
    found = verify(two_factors(), keep("y"), tolerance=tolerance)

    assert found.passed is passed
    assert bool(found.failures) is not passed


def test_the_default_criterion_decides_without_a_tolerance(verify):
    found = verify(two_factors(), keep("y"))

    assert found.passed
    assert found.sentence.startswith("FP16 is fine, no layer needs to stay in FP32, the 1 of 2")
    coarse = verify(two_factors(300.0), all_lowered("fp16"), [feed(300, 1)])
    assert not coarse.passed
    assert coarse.sentence == "FP16 breaks the outputs: 1 output element becomes NaN or infinite."


def test_errors_add_up_over_samples_as_squares(verify):
    samples = [feed(1, 2), feed(0, 0)]  # zeros have no error

    found = verify(two_factors(), keep("y"), samples)

    assert found.sample_count == 2
    assert found.constrained_error == pytest.approx(LOSS / np.sqrt(2), rel=1e-6)


def test_new_infinities_fail_whatever_the_tolerance(verify):
    model = two_factors(300.0)

    found = verify(model, all_lowered("fp16"), [feed(300, 1)], tolerance=1e300)

    assert found.outputs[0].constrained.nonfinite_count == 1
    assert found.passed is False
    assert "NaN or infinite" in found.failures[0]
    assert found.lowered_error == found.constrained_error == np.inf
    assert found.recovered == 0.0


def test_errors_beyond_the_range_of_fp16_are_not_clipped_away(verify):
    found = verify(two_factors(300.0), keep("y"), [feed(300, 300)])

    assert found.constrained_error == pytest.approx(LOSS, rel=1e-6)


def label_model() -> onnx.ModelProto:
    """Returns a model whose label is decided by the last bit that FP16 loses."""
    nodes = [
        node("Mul", ["x", "ties"], "scores", name="scores"),
        node("ArgMax", ["scores"], "label", name="label", axis=0, keepdims=0),
    ]
    weights = {"ties": np.array([1, TIE], np.float32)}
    outputs = [tensor("label", [], TensorProto.INT64)]
    return build_model(nodes, [tensor("x", [2])], outputs, weights)


def test_integer_outputs_are_judged_by_what_is_unequal(verify):
    samples = [feed(1, 1), feed(2, 1)]  # the second label is safe

    found = verify(label_model(), all_lowered("fp16"), samples, tolerance=0.4)

    assert found.constrained_error is None
    assert found.outputs[0].constrained.mismatch_fraction == 0.5
    assert found.passed is False
    assert verify(label_model(), all_lowered("fp16"), samples, tolerance=0.6).passed is True
    assert verify(label_model(), keep("scores"), samples, tolerance=0.4).passed is True


def test_fp32_in_a_plain_session_agrees_with_node_by_node(verify):
    model = two_factors()

    assert verify(model, keep()).outputs[0].fp32.max_abs_error == 0.0


def test_a_backend_that_cannot_run_fp32_is_told_and_nothing_else_is_lost(verify):
    calls = []

    def fail(sample):
        calls.append(sample)
        raise ExecutionError("no kernel")

    found = verify(two_factors(), keep("y"), [feed(1, 2), feed(1, 2)], run_fp32=fail)

    assert len(calls) == 1
    assert found.fp32_error is None
    assert found.lowered_error > 0
    assert found.warnings == ("FP32 on ONNX-Runtime was not measured: no kernel",)


def test_a_plain_session_takes_external_data_from_another_folder(tmp_path):
    model = two_factors()
    weights = tmp_path / "weights"
    weights.mkdir()
    onnx.save(
        model, weights / "m.onnx", save_as_external_data=True, location="data", size_threshold=0
    )
    (weights / "m.onnx").rename(tmp_path / "m.onnx")

    run = run_plainly(tmp_path / "m.onnx", external_data_folder=str(weights))

    assert run(feed(1, 2))["y"].tolist() == [TIE, 2 * TIE]


def test_a_model_that_draws_random_numbers_is_told(verify):
    model = random_numbers()

    found = verify(model, all_lowered("fp16"), [sample_inputs(model)])

    assert any("draws random numbers" in warning for warning in found.warnings)


def test_an_output_that_cannot_be_computed_never_passes(verify):
    nodes = [
        node("Mul", ["x", "tie"], "y", name="good"),
        node("Reshape", ["x", "shape"], "z", name="bad"),
    ]
    weights = {"tie": scalar(TIE), "shape": np.array([3], np.int64)}
    outputs = [tensor("y", [2]), tensor("z", [3])]
    model = build_model(nodes, [tensor("x", [2])], outputs, weights)

    found = verify(model, keep("y"), tolerance=1.0)
    of_good = verify(model, keep("y"), tolerance=1.0, outputs=["y"])

    assert found.passed is False
    assert "'z' was not compared" in found.failures[0]
    assert of_good.passed is True


def test_made_up_inputs_are_told(verify):
    found = verify(two_factors(), keep("y"), generated_inputs=True)

    assert found.inputs == "generated"
    assert "made up" in found.warnings[0]


def test_a_constraint_that_matches_nothing_is_an_error_with_the_nearest_names(verify):
    with pytest.raises(ExecutionError, match=r"'scalded'; nearest: 'scaled'"):
        verify(two_factors(), keep("y", "scalded"))


def test_an_unknown_output_is_an_error(verify):
    with pytest.raises(ExecutionError, match="no output named 'nope'"):
        verify(two_factors(), keep("y"), outputs=["nope"])


def test_no_sample_is_an_error(verify):
    with pytest.raises(ExecutionError, match="no sample"):
        verify(two_factors(), keep("y"), [])


def test_a_graph_without_a_runner_leaves_fp32_out():
    found = verify_model(load_graph(two_factors()), [feed(1, 2)], keep("y"))

    assert found.outputs[0].fp32 is None
    assert found.lowered_error == pytest.approx(LOSS, rel=1e-6)


def test_progress_is_told_for_each_sample(verify):
    steps = []

    verify(two_factors(), keep("y"), [feed(1, 2)] * 3, progress=lambda *step: steps.append(step))

    assert [done for done, _, _ in steps] == [1, 2, 3]


def test_no_sample_outlives_its_comparison_whatever_draws_random_numbers(verify):
    model = random_numbers()
    kept, alive = [], []

    def samples():
        for _ in range(12):
            sample = sample_inputs(model)
            kept.append(weakref.ref(sample["x"]))
            alive.append(sum(reference() is not None for reference in kept))
            yield sample

    verify(model, all_lowered("fp16"), samples())

    assert max(alive) <= 3
