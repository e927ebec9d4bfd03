"""`rank --load-outputs`: results of real runs, and mistakes of the user."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from polygraphy.comparator import IterationResult, RunResults
from polygraphy.json import save_json
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.files.ranking_file import load_ranking
from polygraphy_layerprec.tools.main import main
from tests.models import chain, small_cnn
from tests.processes import POLYGRAPHY_DOOR, run_command, run_layerprec

pytestmark = pytest.mark.onnxrt

SAMPLES = [
    {"x": np.linspace(0.1, scale, 8, dtype=np.float32).reshape(2, 4)} for scale in (1.0, 3.0)
]


@pytest.fixture(autouse=True)
def quiet_polygraphy():
    severity = G_LOGGER.module_severity
    yield
    G_LOGGER.module_severity = severity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds a model, its inputs, and what `polygraphy run` saved of it in both layouts."""
    folder = tmp_path_factory.mktemp("saved")
    onnx.save(chain(6), folder / "model.onnx")
    onnx.save(small_cnn(), folder / "other.onnx")
    save_json(SAMPLES, str(folder / "inputs.json"))
    for path in ("fp32.json", "fp32"):
        command = ["run", "model.onnx", "--onnxrt", "--load-inputs", "inputs.json"]
        command += ["--onnx-outputs", "mark", "all", "--save-outputs", path]
        done = run_command([sys.executable, *POLYGRAPHY_DOOR[:-1], *command], folder)
        assert done.returncode == 0, done.stderr
    rounded = RunResults.load(str(folder / "fp32.json"))
    (runner, iterations) = rounded.lst[0]
    lowered = [
        IterationResult({name: y.astype(np.float16) for name, y in iteration.items()})
        for iteration in iterations
    ]
    results = RunResults()
    results.append(("fp16", lowered))
    results.save(str(folder / "fp16.json"))
    results.lst.insert(0, (runner, iterations))
    results.save(str(folder / "both.json"))
    return folder


@pytest.fixture
def rank(folder, monkeypatch, capsys):
    """Runs `rank`, and returns the exit code and what was said."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments, model="model.onnx"):
        words = ["rank", model, "--show", "20", *arguments]  # with all warnings whole
        monkeypatch.setattr(sys, "argv", ["polygraphy", "layerprec", *words])
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


@pytest.mark.parametrize(
    "paths", [("fp32.json", "fp16.json"), ("fp32", "fp16.json"), ("both.json",)]
)
def test_divergences_are_those_of_the_results_in_every_layout(rank, folder, paths):
    status, said = rank(
        "--load-inputs", "inputs.json", "--save-ranking", "r.json", "--load-outputs", *paths
    )

    ranking = load_ranking(folder / "r.json")
    expected = expected_errors(folder)
    assert status == 0
    assert "6 layers in FP16, worst first; 2 samples" in said
    assert ranking.conditions.backend == "saved-outputs"
    assert {layer.outputs[0]: layer.cumulative_error for layer in ranking.layers} == expected
    assert ranking.output_error.measured <= 2.0**-11
    assert [text for text in ranking.warnings if "Divergences are those of saved" in text]
    assert not [text for text in ranking.warnings if "match no layer" in text or "layers" in text]


def expected_errors(folder):
    """Returns the relative error of what FP16 stores of each tensor, over both iterations."""
    (_, iterations) = RunResults.load(str(folder / "fp32.json")).lst[0]
    errors = {}
    for name in iterations[0]:
        exact = np.concatenate([iteration[name].ravel() for iteration in iterations])
        error = exact.astype(np.float16).astype(np.float64) - exact
        power = np.sum(exact.astype(np.float64) ** 2)
        errors[name] = pytest.approx(np.sqrt(np.sum(error**2) / power), rel=1e-5)
    return errors


def test_impacts_stay_the_emulated_ones(rank, folder):
    rank("--load-inputs", "inputs.json", "--save-ranking", "plain.json")
    rank("--load-inputs", "inputs.json", "--save-ranking", "r.json", "--load-outputs", "both.json")

    plain, measured = load_ranking(folder / "plain.json"), load_ranking(folder / "r.json")
    assert [layer.name for layer in measured.layers] == [layer.name for layer in plain.layers]
    for layer, before in zip(measured.layers, plain.layers, strict=True):
        kept = replace(layer, cumulative_error=before.cumulative_error)
        assert kept == before


def test_made_up_inputs_are_told(rank):
    status, said = rank("--load-outputs", "both.json")

    assert status == 0
    assert "They come from made-up inputs, the divergences do not" in said


def test_other_inputs_are_told(rank, folder):
    save_json([{"x": 9 * SAMPLES[0]["x"]}], str(folder / "others.json"))

    _, said = rank("--load-inputs", "others.json", "--load-outputs", "both.json")

    assert "The divergences are of 2 samples, the impacts of 1." in said
    assert "impacts come from other inputs" in said


def test_what_was_not_saved_is_named(rank, folder):
    for name in ("fp32", "fp16"):
        results = RunResults.load(str(folder / f"{name}.json"))
        for iteration in results.lst[0][1]:
            del iteration.dct["t1"]
            iteration["strange"] = np.ones(2, np.float32)
        results.save(str(folder / f"part_{name}.json"))

    _, said = rank(
        "--load-inputs", "inputs.json", "--load-outputs", "part_fp32.json", "part_fp16.json"
    )

    assert "1 of 6 layers have no tensor that was measured" in said
    assert "1 of 6 tensors match no layer of the model: 'strange'" in said


def test_a_candidate_that_is_the_reference_is_told(rank):
    status, said = rank("--load-inputs", "inputs.json", "--load-outputs", "fp32.json", "fp32")

    assert status == 0
    assert "the candidate seems to be in FP32 as well" in " ".join(said.split())


def test_layers_can_be_chosen_from_what_was_measured(rank, folder):
    status, said = rank(
        "--load-inputs", "inputs.json", "--load-outputs", "both.json", "--top-k", "2",
        "--save-script", "constraints.py",
    )  # fmt: skip

    assert status == 0
    assert "2 of 6 layers stay in FP32" in said
    assert (folder / "constraints.py").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--load-outputs", "missing.json"], "No such results: 'missing.json'"),
        (["--load-outputs", "fp32.json", "fp16.json", "fp32"], "got 3 paths"),
        (["--load-outputs", "fp32.json"], "There is not exactly one runner to choose"),
        (["--load-outputs", "inputs.json"], "read as `list`"),
        (["--load-outputs", "model.onnx"], "holds no results"),
        (["--load-outputs", "both.json", "--candidate-runner", "trt"], "asks for 'trt'"),
        (["--reference-runner", "onnxrt"], "Add `--load-outputs fp32.json fp16.json`"),
        (["--load-outputs", "both.json", "--backend", "tensorrt"], "Leave one of them out"),
    ],
)
def test_mistakes_are_told(rank, arguments, message):
    status, said = rank("--load-inputs", "inputs.json", *arguments)

    assert status == 1
    assert message in said


def test_results_of_another_model_are_refused_before_anything_is_emulated(rank, monkeypatch):
    monkeypatch.setattr("polygraphy_layerprec.pipeline.rank", None)

    status, said = rank("--load-outputs", "both.json", model="other.onnx")

    assert status == 1
    assert "they come from another model" in said
    assert "'t0'" in said


def test_a_mistake_in_a_real_process_shows_no_traceback(folder):
    done = run_layerprec("rank", "model.onnx", "--load-outputs", "inputs.json", folder=folder)

    assert done.returncode == 1
    assert "holds no results of runners" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
