"""The main job in real processes: rank, save, build an engine."""

from __future__ import annotations

import importlib.util
import shlex
import sys

import numpy as np
import onnx
import pytest

from polygraphy_layerprec import load_ranking, rank_model
from tests.environments import ROOT
from tests.models import small_transformer
from tests.processes import POLYGRAPHY_DOOR, run_command, run_layerprec

pytestmark = pytest.mark.onnxrt


@pytest.fixture
def folder(tmp_path):
    """Returns a folder with a small transformer and two samples of different shapes."""
    onnx.save(small_transformer(), tmp_path / "model.onnx")
    for name, length in (("short", 3), ("long", 7)):
        ids = np.arange(2 * length, dtype=np.int64).reshape(2, length)
        np.savez(tmp_path / f"{name}.npz", ids=ids, mask=np.ones((2, length), np.int64))
    return tmp_path


def test_the_same_command_writes_the_same_bytes(folder):
    for name in ("first", "second"):
        outputs = ["--save-ranking", f"{name}.json", "--save-script", f"{name}.py"]
        done = run_layerprec(
            "rank", "model.onnx", "--load-inputs", "short.npz", "long.npz", *outputs, folder=folder
        )
        assert done.returncode == 0, done.stdout + done.stderr

    for suffix in (".json", ".py"):
        first, second = (folder / f"{name}{suffix}" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_the_command_line_and_python_say_the_same(folder):
    run_layerprec(
        "rank",
        "model.onnx",
        "--load-inputs",
        "short.npz",
        "--save-ranking",
        "r.json",
        folder=folder,
    )

    with np.load(folder / "short.npz") as arrays:
        ranking = rank_model(folder / "model.onnx", [dict(arrays)])

    saved = load_ranking(folder / "r.json")
    assert [layer.name for layer in saved.layers] == [layer.name for layer in ranking.layers]
    assert saved.conditions == ranking.conditions
    assert saved.output_error.measured == pytest.approx(ranking.output_error.measured, rel=0.2)


@pytest.mark.parametrize("flag", ["-q", "--silent", "-qqqq"])
def test_quiet_runs_say_little_and_no_run_in_a_pipe_shows_a_bar(folder, flag):
    loud = run_layerprec("rank", "model.onnx", "--load-inputs", "short.npz", folder=folder)
    quiet = run_layerprec("rank", "model.onnx", "--load-inputs", "short.npz", flag, folder=folder)

    assert loud.stderr == quiet.stderr == ""
    assert "Chosen: " in loud.stdout
    assert "Chosen: " not in quiet.stdout


@pytest.mark.trt
@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed"
)
@pytest.mark.parametrize("flags", ["", "--top-k 3", "--tolerance 1e-3", "--precision bf16"])
def test_the_command_that_is_printed_builds_an_engine(folder, flags):
    options = ["--load-inputs", "short.npz", "long.npz", "--save-script", "c.py", *flags.split()]
    ranked = run_layerprec("rank", "model.onnx", *options, folder=folder)
    assert ranked.returncode == 0, ranked.stdout + ranked.stderr

    (line,) = [
        line for line in ranked.stdout.splitlines() if "POLYGRAPHY_USE_TENSORRT_RTX=1" in line
    ]
    _, _, *words = shlex.split(line)
    python = [sys.executable, *POLYGRAPHY_DOOR[:2]]
    built = run_command([*python, *words], folder, {"POLYGRAPHY_USE_TENSORRT_RTX": "1"})

    assert built.returncode == 0, built.stdout + built.stderr
    assert (folder / "model.engine").stat().st_size > 0


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Returns a folder with the model and the inputs of `make demo`."""
    folder = tmp_path_factory.mktemp("demo")
    script = ROOT / "examples" / "make_demo_model.py"
    done = run_command([sys.executable, script, folder], folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_hazards_of_the_demo_are_found(demo):
    done = run_layerprec(
        "rank",
        *("demo.onnx", "--load-inputs", "demo_inputs.npz", "--save-ranking", "ranking.json"),
        folder=demo,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    layers = load_ranking(demo / "ranking.json").layers
    overflowing = {layer.name for layer in layers if layer.overflow}
    assert "/blocks.0/attention/norm/Pow" in overflowing
    assert layers[len(overflowing)].name.startswith("/blocks.1/shift")
