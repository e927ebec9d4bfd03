"""The parts of the benchmark of real models that need no download."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest

from benchmarks.real_models import REAL_MODELS
from benchmarks.real_models import main as run_benchmark
from benchmarks.real_runs import ModelRuns
from tests.models import sample_inputs, small_cnn

pytestmark = pytest.mark.onnxrt


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    model = small_cnn()
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "sample.npz", **sample_inputs(model))
    return ModelRuns(folder / "model.onnx", folder, timeout_seconds=120)


def test_every_step_has_an_outcome_in_figures(runs):
    assert runs.layer_count == 0
    alone, with_data = runs.rank_alone(), runs.rank_with_data()
    emulated, pairs = map(float, runs.compare_with_cast_pairs().text.split(" / "))

    assert not alone.problem
    assert " s, " in alone.text
    assert "forecast" in with_data.text
    assert runs.layer_count > 3
    assert emulated == pytest.approx(pairs, rel=0.2)
    assert runs.run_mixed().text == "runs"
    assert " to " in runs.verify().text
    assert float(runs.correlate_with_exact().text) > 0.5


def test_a_step_that_fails_says_so(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    np.savez(tmp_path / "sample.npz", x=np.zeros(1))
    runs = ModelRuns(tmp_path / "model.onnx", tmp_path, timeout_seconds=60)

    outcome = runs.rank_alone()

    assert outcome.text == "exit 1"
    assert "not an ONNX model" in outcome.problem
    assert runs.run_mixed().text == "not saved"


@pytest.mark.parametrize("model", REAL_MODELS, ids=lambda model: model.title)
def test_samples_are_the_same_each_time_and_finite(model):
    first, second = model.sample(), model.sample()

    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
        assert np.isfinite(array).all()
        assert array.shape[0] == 1
        assert np.ptp(array) > 0


def test_the_page_keeps_its_prose_when_the_table_is_measured_anew(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nProse.\n\nMeasured by `old`.\n\n| old |\n")
    monkeypatch.setattr(sys, "argv", ["real_models.py", "--models", "none", "--output", str(page)])
    monkeypatch.setattr("benchmarks.real_models._machine", lambda: "here")

    run_benchmark()

    written = page.read_text()
    assert written.startswith("# Title\n\nProse.\n\nMeasured by `benchmarks/real_models.py`")
    assert "old" not in written
