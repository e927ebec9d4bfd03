"""The benchmark of engine builds: what it compares, and what it makes of the measurements."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polygraphy.config
import pytest

from benchmarks import engine_build
from benchmarks.build_recipes import Recipe, recipes_for
from benchmarks.engine_build import Builds
from benchmarks.given_models import GivenModel
from benchmarks.isolated import Measurement
from benchmarks.peer_environment import PeerEnvironment
from benchmarks.transformer import EncoderShape, encoder_inputs, write_encoder
from tests.environments import ROOT
from tests.processes import LONGEST_SECONDS

TINY_ENCODER = EncoderShape(1, 32, 4, 64, 50, seq=8)
MIB = 1 << 20


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A tiny encoder with its input."""
    folder = tmp_path_factory.mktemp("given")
    model = GivenModel("digits", "tiny encoder", folder / "tiny.onnx", folder / "tiny.npz")
    write_encoder(model.model, TINY_ENCODER, external=False)
    np.savez(model.inputs, **encoder_inputs(TINY_ENCODER, 0))
    return model


@pytest.mark.onnxrt
def test_script_and_mixed_onnx_keep_the_same_layers_in_fp32(given, tmp_path):
    recipes = recipes_for(given, None, tmp_path)

    scripts = [recipe for recipe in recipes if recipe.script]
    mixed = [recipe for recipe in recipes if recipe.task]
    kept = [recipe.arguments["fp32_outputs"] for recipe in mixed]
    assert len(recipes) == 1 + len(scripts) + len(mixed) == 7
    assert [outputs_of(Path(recipe.script)) for recipe in scripts] == kept
    assert [recipe.title.split(", ")[1] for recipe in scripts] == [
        recipe.title.split(", ")[1] for recipe in mixed
    ]
    assert kept[0] == []
    assert 0 < len(kept[1]) < len(kept[2])


@pytest.mark.onnxrt
def test_peers_run_in_their_own_environment_and_are_told_our_set_by_name(given, tmp_path):
    own = recipes_for(given, None, tmp_path)
    environment = PeerEnvironment(Path("their-python"))

    peers = recipes_for(given, environment, tmp_path)[len(own) :]

    (told,) = [recipe for recipe in peers if "kept" in recipe.arguments]
    script = Path(own[3].script).read_text(encoding="utf-8")
    assert len(peers) == 5
    assert {(recipe.python, recipe.is_own) for recipe in peers} == {("their-python", False)}
    assert all(f"'name': {name!r}" in script for name in told.arguments["kept"])
    assert len(told.arguments["kept"]) == script.count("'name': ")


def test_ways_are_gone_through_forwards_then_backwards(given, tmp_path, monkeypatch):
    built = []

    def record(*call, **_):
        built.append(call[1]["script"])
        return Measurement(1.0, MIB, {})

    monkeypatch.setattr(engine_build, "measure", record)
    recipes = [Recipe(name, name) for name in "abc"]

    measured = engine_build._measure(given, recipes, options(repeats=3), tmp_path)

    assert "".join(built) == "abccbaabc"
    assert [len(builds.builds) for builds in measured] == [3, 3, 3]


def test_a_way_that_fails_is_told_and_not_tried_again(given, tmp_path, capsys):
    recipe = Recipe("broken", task="benchmarks.orders:nothing")

    (builds,) = engine_build._measure(given, [recipe], options(repeats=2), tmp_path)
    rows = [*engine_build._table([measured("FP32", 1.0, 1, 1), builds])]

    assert capsys.readouterr().err == "tiny encoder: broken, 1\n"
    assert "has no attribute 'nothing'" in builds.problem
    assert not builds.conversions
    assert rows[-1].startswith(
        "| broken | - | no engine: AttributeError: module 'benchmarks.orders'"
    )


def test_figures_are_medians_and_ratios_of_medians():
    fp32 = measured("FP32", 2.0, 100 * MIB, 50 * MIB)
    ours = measured("ours", 2.2, 90 * MIB, 25 * MIB)
    ours.builds[0] = Measurement(99.0, 90 * MIB, ours.builds[0].result, 99.0)

    table = [*engine_build._table([fp32, ours])]
    ratios = [*engine_build._ratios([fp32, ours], is_judged=True)]

    assert "| ours | - | 2.2 s, 1.1 s user, 90 MiB | 25.0 MiB | 0.50 x | 3 of 4 |" in table
    assert "| ours | 1.10 x | 1.10 x | 0.90 x | 0.50 x | reached |" in ratios


@pytest.mark.parametrize(
    ("seconds", "peak", "engine", "missed"),
    [(2.5, 100, 25, "wall"), (2.0, 130, 25, "memory"), (2.5, 100, 28, "wall, size")],
)
def test_each_goal_can_be_missed_and_binds_ours_alone(seconds, peak, engine, missed):
    fp32 = measured("FP32", 2.0, 100 * MIB, 50 * MIB)
    builds = [
        measured("it", seconds, peak * MIB, engine * MIB, is_own=is_own) for is_own in (True, False)
    ]

    judged = [*engine_build._ratios([fp32, *builds], is_judged=True)]
    unjudged = [*engine_build._ratios([fp32, *builds], is_judged=False)]

    assert [row.split(" | ")[-1] for row in judged[-2:]] == [f"missed: {missed} |", "- |"]
    assert "goal for ours" not in "".join(unjudged)
    assert [row.split(" | ")[-1] for row in unjudged[-2:]] == ["- |", "- |"]


@pytest.mark.onnxrt
@pytest.mark.trt
@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None
    or not hasattr(polygraphy.config, "USE_TENSORRT_RTX"),
    reason="needs TensorRT-RTX, and a Polygraphy that knows it",
)
def test_a_tiny_model_is_built_in_every_way(given, tmp_path):
    output = tmp_path / "engine.md"
    model = ["--digits", given.model, "--digits-inputs", given.inputs]
    script = ROOT / "benchmarks" / "engine_build.py"

    done = subprocess.run(
        [sys.executable, script, "--models", "--repeats", "1", *model, "--output", output],
        env={**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    text = output.read_text(encoding="utf-8")
    low = [tuple(map(int, pair)) for pair in re.findall(r"\| (\d+) of (\d+) \|", text)]
    assert text in done.stdout
    assert len(low) == 7
    assert low[0][0] == 0
    assert all(0 < kept < total for kept, total in (low[2], low[3], low[5], low[6]))
    assert low[1][0] == low[1][1] == low[4][0]
    assert "no engine" not in text


def outputs_of(script):
    """Returns an output tensor of each layer that a script keeps in FP32."""
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "CONSTRAINTS":
            return [constraint["outputs"][0] for constraint in ast.literal_eval(node.value)]
    raise AssertionError(script)


def options(*, repeats):
    """Returns the part of the command line that a measurement reads."""
    return argparse.Namespace(repeats=repeats, timeout=LONGEST_SECONDS)


def measured(title, seconds, peak_bytes, engine_bytes, *, is_own=True):
    """Returns three builds that took the same."""
    result = {"engine_bytes": engine_bytes, "low_tensors": 3, "float_tensors": 4}
    build = Measurement(seconds, peak_bytes, result, seconds / 2)
    return Builds(Recipe(title, is_own=is_own), builds=[build] * 3)
