"""`rank --backend tensorrt` as a command: real builds, and a stand-in for the GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.backend.engines.tensorrt_module import count_gpus
from polygraphy_layerprec.files.ranking_file import load_ranking
from polygraphy_layerprec.pipeline import rank_model
from tests.models import chain, sample_inputs, small_cnn
from tests.processes import run_command

pytestmark = [
    pytest.mark.onnxrt,
    pytest.mark.trt,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None, reason="needs TensorRT-RTX"
    ),
]

KILLS = 20


def run(folder: Path, *arguments: str, script: tuple[str, ...] = (), **environment: str):
    """Runs the driver in `folder`."""
    done = run_command(
        [sys.executable, "-m", "tests.backend.engines.driver", *script, "rank", *arguments],
        folder,
        {
            "POLYGRAPHY_USE_TENSORRT_RTX": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path]),
            **environment,
        },
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def cnn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cnn")
    onnx.save(small_cnn(), folder / "model.onnx")
    rng = np.random.default_rng(0)
    for batch in (1, 3, 6):
        image = rng.random((batch, 3, 16, 16), np.float32)
        np.savez(folder / f"batch{batch}.npz", image=image)
    return folder


def rank_cnn(folder: Path, *arguments: str, **environment: str):
    words = ("--trt", "--save-ranking", "ranking.json", *arguments)
    inputs = ("model.onnx", "--load-inputs", "batch1.npz", "batch3.npz")
    return run(folder, *inputs, *words, **environment)


def built(folder: Path) -> list[dict]:
    """Returns what the engines in a work folder are."""
    notes = (folder / "engines").glob("*.json")
    return [json.loads(path.read_text())["identity"] for path in notes]


@pytest.fixture(scope="module")
def ranked(cnn):
    """Returns the folder of a ranking in chunks, with two impacts measured."""
    done = rank_cnn(
        cnn, "--max-memory", "40K", "--exact", "2", "--work-dir", "work",
        "--save-timing-cache", "timing.cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return cnn


def test_engines_that_round_like_the_emulation_give_its_ranking(ranked):
    found = load_ranking(ranked / "ranking.json")
    samples = [dict(np.load(ranked / f"batch{batch}.npz")) for batch in (1, 3)]
    expected = {layer.name: layer for layer in rank_model(ranked / "model.onnx", samples).layers}

    assert found.conditions.backend == "tensorrt"
    assert dict(found.conditions.versions)["tensorrt_rtx"]
    assert {layer.name for layer in found.layers} == expected.keys()
    for layer in found.layers:
        cumulative = expected[layer.name].cumulative_error
        assert layer.cumulative_error == pytest.approx(cumulative, rel=1e-4)
    assert sum(layer.impact_method == "exact" for layer in found.layers) == 2


def test_every_chunk_is_a_pair_of_engines(ranked):
    engines = built(ranked / "work")
    kinds = Counter(engine["kind"] for engine in engines)
    marked = [tuple(engine["marked"]) for engine in engines if engine["kind"] == "lowered"]

    assert kinds["reference"] == kinds["lowered"] == len(marked) > 2
    assert kinds["one layer"] == 2
    assert () in marked
    assert sorted(name for names in marked for name in names) == ["a2", "c1", "c2", "g2"]


def test_engines_hold_their_weights_in_the_types_asked_for(ranked):
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in small_cnn().graph.initializer}
    in_order = ("b1", "b2", "w3", "b3")  # others are stored in another order
    lowered_of = {"logits": {"w3", "b3"}, "c1": {"b1"}, "c2": {"b2"}}
    for note in (ranked / "work/engines").glob("*.json"):
        engine = json.loads(note.read_text())["identity"]
        plan = note.with_suffix(".engine").read_bytes()
        expected = {
            "reference": set(),
            "lowered": set(in_order),
            "one layer": lowered_of.get(engine["layer"], set()),
        }[engine["kind"]]

        assert {n for n in in_order if weights[n].astype(np.float16).tobytes() in plan} == expected
        assert {n for n in in_order if weights[n].tobytes() in plan} == {*in_order} - expected


def test_one_timing_cache_serves_all_builds_and_is_saved(ranked):
    assert (ranked / "timing.cache").read_bytes() == (ranked / "work/timing.cache").read_bytes()
    assert (ranked / "timing.cache").stat().st_size > 0


def test_shapes_of_the_samples_become_a_profile(ranked):
    options = built(ranked / "work")[0]["options"]["options"]

    assert (
        "(1, 3, 16, 16), (3, 3, 16, 16), (3, 3, 16, 16)" in options["TrtConfigArgs.profile_dicts"]
    )


def test_a_second_run_builds_nothing_and_gives_the_same_bytes(ranked):
    before = (ranked / "ranking.json").read_bytes()

    done = run(
        ranked, "model.onnx", "--load-inputs", "batch1.npz", "batch3.npz", "--trt",
        "--max-memory", "40K", "--exact", "2", "--work-dir", "work", "--save-ranking",
        "again.json", LAYERPREC_TEST_BUILD_LOG="builds.log",
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert (ranked / "again.json").read_bytes() == before
    assert not (ranked / "builds.log").exists()


def test_several_profiles_are_built_and_must_take_the_samples(cnn):
    profiles = []
    for low, high in ((1, 2), (3, 4)):
        for which, batch in (("min", low), ("opt", low), ("max", high)):
            profiles += [f"--trt-{which}-shapes", f"image:[{batch},3,16,16]"]

    done = rank_cnn(cnn, *profiles, "--work-dir", "two", "--outputs-from", "op:Add")
    refused = run(cnn, "model.onnx", "--trt", "--load-inputs", "batch6.npz", *profiles)

    assert done.returncode == 0, done.stdout + done.stderr
    options = built(cnn / "two")[0]["options"]["options"]["TrtConfigArgs.profile_dicts"]
    assert options.count("'image'") == 2
    assert refused.returncode == 1
    assert "No optimization profile takes a sample" in refused.stderr


def test_options_of_tensorrt_reach_the_builder(cnn):
    (cnn / "config.py").write_text(
        "import tensorrt_rtx as trt\n"
        "def postprocess_config(builder, network, config):\n"
        "    flag = config.get_flag(trt.BuilderFlag.TF32)\n"
        "    workspace = config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)\n"
        "    open('seen.txt', 'a').write(f'{flag} {workspace} {network.num_outputs}\\n')\n"
    )
    (cnn / "network.py").write_text(
        "def postprocess(network):\n    open('scripts.txt', 'a').write('called\\n')\n"
    )
    options = (
        "--pool-limit", "workspace:8M", "--trt-cpps", "config.py", "--trt-npps", "network.py",
        "--outputs-from", "op:Add",
    )  # fmt: skip

    done = rank_cnn(cnn, *options)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (cnn / "seen.txt").read_text().splitlines().count(f"True {8 * 2**20} 2") == 2
    assert (cnn / "scripts.txt").read_text().count("called") >= 4


def test_debug_tensors_are_built_without_marks(cnn):
    done = rank_cnn(cnn, "--mark-unfused-tensors-as-debug-tensors", "--work-dir", "debug")

    assert done.returncode == 0, done.stdout + done.stderr
    engines = built(cnn / "debug")
    assert [engine["marked"] for engine in engines] == [[]] * 4
    assert sum(engine["debug"] for engine in engines) == 2


def test_a_script_that_renames_outputs_is_an_error_that_says_what_to_do(cnn):
    (cnn / "rename.py").write_text(
        "def postprocess(network):\n    network.get_output(0).name = 'renamed'\n"
    )

    done = rank_cnn(cnn, "--trt-npps", "rename.py")

    assert done.returncode == 1
    assert "has no output 'logits'" in done.stderr
    assert "--trt-npps" in done.stderr


def test_a_failed_build_is_an_error_and_keeps_what_was_finished(cnn):
    (cnn / "break.py").write_text(
        "def postprocess(network):\n"
        "    layers = [network.get_layer(i) for i in range(network.num_layers)]\n"
        "    (add,) = [la for la in layers if la.name == '/Add']\n"
        "    add.set_input(1, network.get_input(0))\n"
    )

    done = rank_cnn(cnn, "--trt-npps", "break.py", "--work-dir", "kept")

    assert done.returncode == 1
    assert "cannot" in done.stderr
    assert "What was finished is kept in 'kept'" in done.stderr


@pytest.mark.skipif(count_gpus() > 0, reason="shows what happens without a GPU")
def test_an_engine_that_cannot_be_loaded_says_why_and_is_kept(cnn):
    done = rank_cnn(cnn, "--work-dir", "unloaded", LAYERPREC_TEST_REAL_RUNTIME="1")

    assert done.returncode == 1
    assert "cannot load the reference engine" in done.stderr
    assert "driver is too old for this TensorRT" in done.stderr
    assert "What was finished is kept in 'unloaded'" in done.stderr
    assert [engine["kind"] for engine in built(cnn / "unloaded")] == ["reference"]


def test_a_run_that_is_killed_goes_on_where_it_stopped(tmp_path):
    onnx.save(chain(8), tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **sample_inputs(chain(8)))
    arguments = (
        "model.onnx", "--trt", "--load-inputs", "inputs.npz", "--max-memory", "100",
        "--exact", "2", "--save-ranking",
    )  # fmt: skip
    undisturbed = run(tmp_path, *arguments, "undisturbed.json", "--work-dir", "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr

    resumed = (*arguments, "resumed.json", "--work-dir", "resumed")
    log = {"LAYERPREC_TEST_BUILD_LOG": "log"}
    killed = run(tmp_path, *resumed, script=("--kill", str(KILLS), "3"), **log)
    kept = {path: path.read_bytes() for path in (tmp_path / "resumed/engines").glob("*.engine")}
    finished = run(tmp_path, *resumed, **log)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (tmp_path / "resumed.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()
    begun = (tmp_path / "log").read_text().splitlines()
    engines = len(built(tmp_path / "resumed"))
    assert engines == len(built(tmp_path / "undisturbed")) == len(set(begun))
    count = int(killed.stdout.split("killed: ")[1])
    assert count >= 3  # fast machines finish many runs first
    assert len(kept) >= 3  # the runs got somewhere
    # A kill loses at most the build in flight.
    assert len(begun) <= engines + count
    assert all(path.read_bytes() == plan for path, plan in kept.items())
    assert not list((tmp_path / "resumed").rglob("*.partial"))
