"""A guard that low precision takes for 0 or 1 stays in FP32, with what needs it, and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.emit.mixed_onnx import lower_model
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.files.ranking_file import load_ranking, save_ranking
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import (
    measure_curve,
    measure_output_error,
    rank_model,
    select_constraints,
)
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.selection import SelectionRequest, constraints_of
from tests import guarded_models as models
from tests.planned_runs import run_whole
from tests.processes import run_layerprec

pytestmark = pytest.mark.onnxrt

GUARDS = [
    pytest.param(lambda: models.normalised_rows("Clip"), ["/guard", "/Div"], "1e-12", id="clip"),
    pytest.param(lambda: models.normalised_rows("Max"), ["/guard", "/Div"], "1e-08", id="max"),
    pytest.param(lambda: models.normalised_rows("Add"), ["/guard", "/Div"], "1e-09", id="add"),
    pytest.param(lambda: models.normalised_rows("Where"), ["/guard", "/Div"], "2e-09", id="where"),
    pytest.param(lambda: models.normalised_rows("Sqrt"), ["/guard", "/Sqrt"], "1e-08", id="rsqrt"),
    pytest.param(
        models.normalised_similarity, ["/norm/Clip", "/norm/Div"], "1e-12", id="similarity"
    ),
    pytest.param(models.shared_guard, ["/guard", "/Div"], "1e-12", id="shared"),
    pytest.param(models.log_of_probabilities, ["/guard", "/Log"], "1e-10", id="log"),
    pytest.param(models.entropy, ["/guard", "/Log"], "1e-09", id="entropy"),
    pytest.param(models.phase, ["/guard", "/Div"], "1e-09", id="phase"),
]
"""Models, the layers that must stay in FP32, and the value that is 0 in FP16, but not in BF16."""


def select(ranking, model, samples, **request):
    return select_constraints(ranking, SelectionRequest(**request), model=model, samples=samples)


def names(layers):
    return [layer.name for layer in layers]


def emulated_by_casts(model, sample, kept):
    """The outputs of the mixed model, whose casts really round, on another executor."""
    mixed, _ = lower_model(model, [name for layer in kept for name in layer.outputs])
    return run_whole(mixed, sample)


@pytest.mark.parametrize(("build", "guards", "value"), GUARDS)
def test_the_guard_and_what_needs_it_are_kept_and_no_layer_more(build, guards, value):
    model, sample = build()
    ranking = rank_model(model, [sample])

    chosen = select(ranking, model, [sample], tolerance=2e-3)

    assert ranking.output_error.measured == np.inf
    assert names(ranking.layers[:2]) == names(chosen.layers) == guards
    assert chosen.reached
    assert chosen.measured_error < 2e-3
    for lacking in ((), chosen.layers[:1], chosen.layers[1:]):
        kept = [name for layer in lacking for name in layer.outputs]
        assert measure_output_error(model, [sample], fp32_outputs=kept) == np.inf
    reason = constraints_of(chosen)[0].reason
    assert reason.startswith(f"guard: {value} is 0 in FP16, so '/")
    exact = run_whole(model, sample)
    for name, found in emulated_by_casts(model, sample, chosen.layers).items():
        assert np.isfinite(found).all()
        assert np.linalg.norm(found - exact[name]) < 2e-3 * np.linalg.norm(exact[name])


@pytest.mark.parametrize(("build", "guards", "value"), GUARDS)
def test_where_a_guard_is_not_lost_nothing_is_kept_for_it(build, guards, value):
    model, sample = build()
    del guards, value

    ranking = rank_model(model, [sample], precision=BF16)

    assert not any(layer.keeps_finite for layer in ranking.layers)
    assert not select(ranking, model, [sample], tolerance=4e-2).layers


@pytest.mark.parametrize(
    ("margin", "precision", "kept"),
    [
        (1e-3, FP16, set()),
        (1e-4, FP16, {"/guard", "/one_minus"}),
        (1e-6, FP16, {"/guard", "/one_minus", "/Div", "/Log"}),  # odds of 1e6 overflow as well
        (1e-3, BF16, {"/guard", "/one_minus"}),
        (1e-6, BF16, {"/guard", "/one_minus"}),
    ],
)
def test_a_bound_that_becomes_1_is_a_guard_too(margin, precision, kept):
    model, sample = models.logit(margin)
    ranking = rank_model(model, [sample], precision=precision)

    chosen = select(ranking, model, [sample], tolerance=2 ** -(precision.mantissa_bits - 2))

    assert set(names(chosen.layers)) == kept
    assert chosen.reached
    reasons = {layer.name: layer.reason for layer in chosen.layers}
    if kept:
        low = f"{1 - margin:g} is 1 in {precision.name.upper()}"
        assert reasons["/guard"] == f"guard: {low}, so '/Div' gives infinities"
        assert "reads '/guard': " in reasons["/one_minus"]
        assert f" is 0 in {precision.name.upper()}" in reasons["/one_minus"]


@pytest.mark.parametrize(
    ("least", "kept"),
    [
        (1e-3, set()),
        (1e-5, {"/Div", "/Log"}),  # 1e-5 is a number in FP16, the odds of 1e5 are not
        (1e-9, {"/Div", "/Log", "/above", "/below"}),
    ],
)
def test_the_inverse_sigmoid_keeps_what_overflows_and_what_vanishes(least, kept):
    model, sample = models.inverse_sigmoid(least)
    ranking = rank_model(model, [sample])

    chosen = select(ranking, model, [sample], tolerance=2e-3)

    assert set(names(chosen.layers)) == kept
    assert chosen.reached
    by_bf16 = rank_model(model, [sample], precision=BF16)
    assert not any(layer.keeps_finite for layer in by_bf16.layers)


def test_guards_that_a_nan_before_them_hides_are_found_as_well():
    model, sample = models.repeated_normalisation(5)

    ranking = rank_model(model, [sample])

    guards = [layer for layer in ranking.layers if layer.keeps_finite]
    assert names(guards) == [f"/{i}/{name}" for i in range(5) for name in ("guard", "Div")]
    assert {layer.reason for layer in guards[::2]} == {
        f"guard: 1e-12 is 0 in FP16, so '/{i}/Div' gives NaN" for i in range(5)
    }
    assert {layer.reason for layer in guards[1::2]} == {
        f"gives NaN where '/{i}/guard' is 0 instead of 1e-12" for i in range(5)
    }


@pytest.mark.parametrize(
    ("build", "reasons"),
    [
        (
            models.called_twice,
            {
                "first/guard": "guard: 1e-12 is 0 in FP16, so 'first/Div' gives NaN",
                "first/Div": "gives NaN where 'first/guard' is 0 instead of 1e-12",
                "second/guard": "guard: 1e-12 is 0 in FP16, so 'second/Div' gives NaN",
                "second/Div": "gives NaN where 'second/guard' is 0 instead of 1e-12",
            },
        ),
        (
            models.in_a_branch,
            {
                "/then/guard": "guard: 1e-12 is 0 in FP16, so '/then/Div' gives NaN",
                "/then/Div": "gives NaN where '/then/guard' is 0 instead of 1e-12",
            },
        ),
        (models.in_a_scan, {"/scan": "gives NaN in FP16"}),
    ],
)
def test_guards_in_functions_branches_and_bodies_are_found(build, reasons):
    model, sample = build()

    ranking = rank_model(model, [sample])

    assert {layer.name: layer.reason for layer in ranking.layers if layer.keeps_finite} == reasons
    assert select(ranking, model, [sample], tolerance=2e-3).measured_error < 2e-3


@pytest.mark.parametrize("options", [{"impact": "gain"}, {"impact": "exact"}, {"exact_count": 2}])
def test_guards_are_found_however_impacts_are(options):
    model, sample = models.normalised_rows("Clip")

    ranking = rank_model(model, [sample], **options)

    assert names(ranking.layers[:2]) == ["/guard", "/Div"]


@pytest.mark.parametrize("seed", range(16))
def test_of_random_guards_every_one_is_kept_that_is_needed_and_no_other(seed):
    model, sample = models.random_guards(seed)
    ranking = rank_model(model, [sample])
    required = [layer for layer in ranking.layers if layer.overflow or layer.keeps_finite]

    def error(layers):
        kept = [name for layer in layers for name in layer.outputs]
        return measure_output_error(model, [sample], fp32_outputs=kept)

    assert ranking.output_error.measured == np.inf
    assert np.isfinite(error(required))
    for layer in required:
        if layer.keeps_finite:
            assert error([other for other in required if other is not layer]) == np.inf
    assert select(ranking, model, [sample], tolerance=0.1).reached


def test_the_largest_difference_of_a_lost_output_is_infinite_until_the_guard_is_kept():
    model, sample = models.normalised_rows("Clip")
    measurement = SetMeasurement(load_graph(model), [sample], precision=FP16, outputs=("out",))

    lost = measurement.divergence(KeptLayers.of_outputs(["g"]))
    kept = measurement.divergence(KeptLayers.of_outputs(["g", "z"]))

    assert lost.max_abs_error == np.inf
    assert kept.max_abs_error < 1e-2


def test_few_sets_are_measured(monkeypatch):
    measured = []
    divergence = SetMeasurement.divergence

    def counted(self, kept, **options):
        measured.append(kept)
        return divergence(self, kept, **options)

    monkeypatch.setattr(SetMeasurement, "divergence", counted)
    model, sample = models.normalised_similarity()

    rank_model(model, [sample])
    assert len(measured) <= 8

    measured.clear()
    rank_model(model, [{"x": sample["x"] + 1}])  # no row is padding
    assert not measured


def test_a_guard_that_one_sample_of_several_meets_is_found():
    model, sample = models.normalised_rows("Clip")
    full = {"x": sample["x"] + 1}

    ranking = rank_model(model, [full, sample, full])

    assert names(ranking.layers[:2]) == ["/guard", "/Div"]
    assert ranking.layers[0].reason.startswith("guard: 1e-12 is 0 in FP16")


def test_guards_that_are_met_by_one_sample_each_are_told_of_with_their_values():
    model, zeros, ones = models.two_logarithms()

    ranking = rank_model(model, [{"p": ones, "q": zeros}, {"p": zeros, "q": ones}])

    reasons = {layer.name: layer.reason for layer in ranking.layers if layer.keeps_finite}
    assert reasons == {
        "/p/guard": "guard: 1e-10 is 0 in FP16, so '/p/Log' gives infinities",
        "/p/Log": "gives infinities where '/p/guard' is 0 instead of 1e-10",
        "/q/guard": "guard: 1e-10 is 0 in FP16, so '/q/Log' gives infinities",
        "/q/Log": "gives infinities where '/q/guard' is 0 instead of 1e-10",
    }


def test_a_guard_that_the_ranking_never_met_is_found_when_the_choice_is_measured():
    model, sample = models.normalised_rows("Clip")
    ranking = rank_model(model, [{"x": sample["x"] + 1}])
    assert not any(layer.keeps_finite for layer in ranking.layers)

    by_default = select(ranking, model, [sample])
    chosen = select(ranking, model, [sample], tolerance=2e-3)

    assert set(names(chosen.layers)) == {"/guard", "/Div"}
    assert {"/guard", "/Div"} <= set(names(by_default.layers))
    assert np.isfinite(by_default.measured_error)


def test_without_leave_to_keep_the_guard_no_tolerance_is_met():
    model, sample = models.normalised_rows("Clip")
    ranking = rank_model(model, [sample])

    chosen = select(ranking, model, [sample], tolerance=1e9, allow=["^/Div$", "head"])

    assert not chosen.reached
    assert chosen.measured_error == np.inf


def test_no_point_of_a_curve_takes_a_lost_output_for_a_small_error():
    model, sample = models.normalised_rows("Clip")
    ranking = rank_model(model, [sample])

    points = measure_curve(ranking, model=model, samples=[sample])

    errors = {point.layer_count: point.measured_error for point in points}
    assert [errors[0], errors[1]] == [np.inf, np.inf]
    assert all(np.isfinite(error) for count, error in errors.items() if count >= 2)


def test_what_is_infinite_in_fp32_needs_no_guard():
    model, sample = models.masked_row()

    ranking = rank_model(model, [sample])

    assert np.isfinite(ranking.output_error.measured)
    assert not any(layer.keeps_finite for layer in ranking.layers)


def test_a_saved_ranking_keeps_its_guards_without_the_model(tmp_path):
    model, sample = models.normalised_similarity()
    save_ranking(rank_model(model, [sample]), str(tmp_path / "ranking.json"))

    ranking = load_ranking(str(tmp_path / "ranking.json"))

    chosen = select_constraints(ranking, SelectionRequest(tolerance=2e-3))
    assert names(chosen.layers) == ["/norm/Clip", "/norm/Div"]
    assert chosen.reached


def test_the_commands_name_the_cause_and_where_nan_starts(tmp_path):
    model, sample = models.normalised_similarity()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **sample)
    given = ["model.onnx", "--load-inputs", "data.npz", "--tolerance", "2e-3"]

    ranked = run_layerprec(
        "rank", *given, "--show", "7", "--save-script", "keep.py", folder=tmp_path
    )

    assert ranked.returncode == 0
    text = " ".join(ranked.stdout.split())
    assert (
        "The cause is '/norm/Clip': guard: 1e-12 is 0 in FP16, so '/norm/Div' gives NaN. With "
        "these 2 layers together in FP32, as measured, every output is finite: '/norm/Clip', "
        "'/norm/Div'."
    ) in text
    assert "Chosen: 2 of 7 layers stay in FP32" in text
    verified = run_layerprec("verify", *given, "--script", "keep.py", folder=tmp_path)
    assert verified.returncode == 0
    refused = run_layerprec("rank", *given, "--allow", "softmax", folder=tmp_path)
    assert refused.returncode == 1
    by_default = run_layerprec(
        "rank", *given[:3], "--allow", "softmax", "--save-script", "none.py", folder=tmp_path
    )
    assert by_default.returncode == 1
    assert "no NaN or infinity where FP32 has none" in by_default.stdout + by_default.stderr


def test_without_the_model_a_lost_output_that_nothing_mends_meets_no_tolerance(tmp_path):
    model, sample = models.normalised_similarity()
    ranking = rank_model(model, [sample])
    unknown = tuple(replace(layer, keeps_finite=False) for layer in ranking.layers)
    save_ranking(replace(ranking, layers=unknown), str(tmp_path / "old.json"))

    refused = run_layerprec("constrain", "old.json", "--tolerance", "0.5", folder=tmp_path)

    assert refused.returncode == 1
    assert "Have it measured: give the model and its inputs." in refused.stdout
