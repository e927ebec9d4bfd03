"""`verify --backend tensorrt` as a command: real builds, and a stand-in for the GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.backend.engines.tensorrt_module import count_gpus
from polygraphy_layerprec.emit.mixed_onnx import save_mixed_onnx
from tests.models import build_model, node, normal, tensor
from tests.processes import MODULE_DOOR, run_command

pytestmark = [
    pytest.mark.onnxrt,
    pytest.mark.trt,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None, reason="needs TensorRT-RTX"
    ),
]


def two_layers() -> onnx.ModelProto:
    """Returns two matrix products, whose weights TensorRT stores in their own order."""
    nodes = [
        node("MatMul", ["x", "w1"], "up", name="up"),
        node("Relu", ["up"], "active", name="relu"),
        node("MatMul", ["active", "w2"], "y", name="down"),
    ]
    weights = {"w1": normal(1, 32, 32), "w2": normal(2, 32, 32)}
    shape = ["batch", 32]
    return build_model(nodes, [tensor("x", shape)], [tensor("y", shape)], weights)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns the folder of a ranking on engines, and of what it keeps in FP32."""
    folder = tmp_path_factory.mktemp("engines")
    onnx.save(two_layers(), folder / "model.onnx")
    save_mixed_onnx(folder / "model.onnx", folder / "mixed.onnx", ["y"])
    for batch in (1, 4):
        np.savez(folder / f"inputs{batch}.npz", x=normal(3, batch, 32))
    ranked = run(
        folder, "rank", "--work-dir", "ranked", "--keep", "down", "--top-k", "1",
        "--save-script", "constraints.py", "--save-timing-cache", "timing.cache",
    )  # fmt: skip
    assert ranked.returncode == 0, ranked.stdout + ranked.stderr
    return folder


def run(folder: Path, verb: str, *arguments: str, script: tuple[str, ...] = ()):
    """Runs a verb on engines that are really built, and a stand-in for the GPU."""
    inputs = ("model.onnx", "--load-inputs", "inputs1.npz", "inputs4.npz")
    backend = () if "--build" in arguments else ("--trt",)
    (folder / "builds.log").unlink(missing_ok=True)
    command = ("-m", "tests.backend.engines.driver", *script, verb, *inputs, *backend, *arguments)
    done = run_command(
        [sys.executable, *command],
        folder,
        {
            "POLYGRAPHY_USE_TENSORRT_RTX": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path]),
            "LAYERPREC_TEST_BUILD_LOG": "builds.log",
        },
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def verify(folder: Path, *arguments: str):
    done = run(folder, "verify", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def builds(folder: Path) -> list[str]:
    """Returns the engines whose build was begun by the last command."""
    log = folder / "builds.log"
    return (
        [line.split(" engine")[0] for line in log.read_text().splitlines()] if log.exists() else []
    )


def kept_in_fp32(folder: Path, kind: str) -> set[str]:
    """Returns the weights that an engine holds in FP32; it holds all others in FP16."""
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in two_layers().graph.initializer}
    notes = [(path, json.loads(path.read_text())) for path in folder.glob("engines/*.json")]
    (note,) = [path for path, note in notes if note["identity"]["kind"] == kind]
    plan = note.with_suffix(".engine").read_bytes()
    held = {name for name, array in weights.items() if array.tobytes() in plan}
    assert {n for n, a in weights.items() if a.astype(np.float16).tobytes() in plan} == (
        {*weights} - held
    )
    return held


def test_each_engine_holds_its_weights_in_the_type_asked_for(folder):
    verify(folder, "--script", "constraints.py", "--work-dir", "script")

    assert kept_in_fp32(folder / "script", "reference") == {"w1", "w2"}
    assert kept_in_fp32(folder / "script", "lowered") == set()
    assert kept_in_fp32(folder / "script", "constrained") == {"w2"}


def test_a_mixed_model_is_built_as_it_is(folder):
    verify(folder, "--mixed-onnx", "mixed.onnx", "--work-dir", "mixed")

    assert kept_in_fp32(folder / "mixed", "constrained") == {"w2"}


def test_engines_of_a_ranking_are_verified_and_not_built_again(folder):
    shutil.copytree(folder / "ranked", folder / "shared")

    arguments = ("--script", "constraints.py", "--work-dir", "shared", "--save-report")

    first, built = verify(folder, *arguments, "first.md"), builds(folder)
    verify(folder, *arguments, "second.md")

    assert built == ["constrained"]
    assert builds(folder) == []
    assert (folder / "first.md").read_bytes() == (folder / "second.md").read_bytes()
    assert "on TensorRT engines" in first.stdout


def test_other_options_are_other_engines(folder):
    shutil.copytree(folder / "ranked", folder / "options")

    verify(
        folder, "--script", "constraints.py", "--work-dir", "options", "--pool-limit",
        "workspace:8M",
    )  # fmt: skip

    assert builds(folder) == ["reference", "lowered", "constrained"]


def test_a_build_that_is_not_run_is_kept_too(folder):
    arguments = ("--script", "constraints.py", "--build", "--work-dir", "built", "--save-report")

    first, built = verify(folder, *arguments, "built.md"), builds(folder)
    verify(folder, *arguments, "again.md")
    again = builds(folder)
    verify(folder, "--script", "constraints.py", "--work-dir", "built")

    assert built == ["constrained"]
    assert again == []
    assert (folder / "built.md").read_bytes() == (folder / "again.md").read_bytes()
    assert "Obtained: 1 of 1 layer asked for is in FP32" in " ".join(first.stdout.split())
    assert builds(folder) == ["reference", "lowered"]


def test_the_profiles_and_the_timing_cache_are_those_of_the_ranking(folder):
    done = run(
        folder, "verify", "--script", "constraints.py", "--trt-min-shapes", "x:[2,32]",
        "--trt-opt-shapes", "x:[2,32]", "--trt-max-shapes", "x:[4,32]",
    )  # fmt: skip
    verify(
        folder, "--script", "constraints.py", "--load-timing-cache", "timing.cache",
        "--save-timing-cache", "grown.cache",
    )  # fmt: skip

    assert done.returncode == 1
    assert "No optimization profile takes a sample" in done.stderr
    assert (folder / "grown.cache").stat().st_size > 0


def test_tf32_is_allowed_in_engines_that_are_built(folder):
    verify(folder, "--script", "constraints.py", "--tf32", "--work-dir", "tf32")

    notes = [json.loads(path.read_text()) for path in (folder / "tf32/engines").glob("*.json")]
    assert {n["identity"]["options"]["options"]["TrtConfigArgs.tf32"] for n in notes} == {"True"}


def test_a_run_that_is_killed_goes_on_where_it_stopped(folder):
    arguments = ("--script", "constraints.py", "--work-dir", "killed")
    killed = run(folder, "verify", *arguments, script=("--kill", "6", "3"))
    kept = {path: path.read_bytes() for path in (folder / "killed/engines").glob("*.engine")}

    verify(folder, *arguments)

    count = int(killed.stdout.split("killed: ")[1])
    assert count >= 2
    assert len(builds(folder)) == 3 - len(kept)
    assert all(path.read_bytes() == plan for path, plan in kept.items())


@pytest.mark.gpu
@pytest.mark.skipif(count_gpus() == 0, reason="needs a GPU")
def test_engines_run_and_are_compared(tmp_path):
    onnx.save(two_layers(), tmp_path / "model.onnx")
    save_mixed_onnx(tmp_path / "model.onnx", tmp_path / "mixed.onnx", ["y"])
    np.savez(tmp_path / "inputs.npz", x=normal(3, 1, 32))

    command = (
        "verify model.onnx --load-inputs inputs.npz --mixed-onnx mixed.onnx --backend tensorrt "
        "--tolerance 0.01"
    )
    done = run_command(
        [sys.executable, *MODULE_DOOR, *command.split()],
        tmp_path,
        {"POLYGRAPHY_USE_TENSORRT_RTX": "1"},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "on TensorRT engines" in done.stdout
    assert "PASSED: relative L2 error" in done.stdout
