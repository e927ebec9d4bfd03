"""`verify` in real processes: what is shown, exit codes, and every way to get it wrong."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.emit.mixed_onnx import save_mixed_onnx
from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.model import identify, load_graph
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.records import Constraint
from tests.models import build_model, node, normal, scalar, small_cnn, tensor
from tests.processes import DOORS, run_layerprec

pytestmark = pytest.mark.onnxrt

OTHER_DIGEST = "2:" + "cd" * 32
TIE = 1 + 2.0**-11
LOSS = 2.0**-11 / TIE
"""What FP16 loses of `TIE`, which it rounds to 1."""


def two_factors() -> onnx.ModelProto:
    """Returns a model whose first layer causes all of the error."""
    nodes = [
        node("Mul", ["x", "tie"], "scaled", name="first"),
        node("Mul", ["scaled", "one"], "y", name="second"),
    ]
    weights = {"tie": scalar(TIE), "one": scalar(1.0)}
    return build_model(nodes, [tensor("x", [2])], [tensor("y", [2])], weights)


def script_of(*kept: str, **options) -> str:
    constraints = [Constraint(f"the one of {name}", "Mul", (), (name,), "x") for name in kept]
    digest = identify(load_graph(two_factors())).digest
    return render_network_script(
        constraints,
        precision=FP16,
        **{"model_name": "model.onnx", "model_digest": digest, **options},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a model, inputs, and all that can be verified."""
    folder = tmp_path_factory.mktemp("verify")
    model = two_factors()
    onnx.save(model, folder / "model.onnx")
    onnx.save(small_cnn(), folder / "other.onnx")
    np.savez(folder / "inputs.npz", x=np.array([1, 2], np.float32))
    (folder / "good.py").write_text(script_of("scaled", "y"))
    (folder / "useless.py").write_text(script_of("y"))
    ranking = rank_model(folder / "model.onnx", [{"x": np.array([1, 2], np.float32)}])
    save_ranking(ranking, folder / "ranking.json")
    save_mixed_onnx(folder / "model.onnx", folder / "good.onnx", ["scaled", "y"])
    save_mixed_onnx(folder / "model.onnx", folder / "useless.onnx", ["y"])
    return folder


@pytest.fixture
def verify(folder):
    def run(*arguments, model="model.onnx", inputs="inputs.npz", **options):
        words = ["verify", model, *(["--load-inputs", inputs] if inputs else []), *arguments]
        done = run_layerprec(*words, folder=folder, **options)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def refused(verify):
    """Runs `verify`, expects an error with exit code 1, and returns what it says."""

    def run(*arguments, **options) -> str:
        done = verify(*arguments, **options)
        assert done.returncode == 1, done.stdout
        assert "[!]" in done.stderr
        assert "Verification:" not in done.stdout
        return done.stderr

    return run


@pytest.mark.parametrize("door", DOORS)
def test_a_script_that_holds_passes(verify, door):
    done = verify("--script", "good.py", "--tolerance", "1e-6", door=door)

    assert done.returncode == 0
    assert "Asked: 2 of 2 layers stay in FP32 | the script 'good.py'" in done.stdout
    assert re.search(r"\n +y +0\.0e\+00 +4\.9e-04 +0\.0e\+00 +100\.0% +0 +0\.0%\n", done.stdout)
    assert "PASSED: relative L2 error 0 (at most 1e-06)" in done.stdout


@pytest.mark.parametrize(
    "source", [("--script", "useless.py"), ("--mixed-onnx", "useless.onnx"), ()]
)
def test_what_does_not_hold_fails(verify, source):
    done = verify(*source, "--tolerance", f"{0.99 * LOSS}")
    held = verify(*source, "--tolerance", f"{1.01 * LOSS}")

    assert done.returncode == 1
    assert "FAILED: relative L2 error 0.000488 (at most 0.00048316252)" in done.stdout + done.stderr
    assert held.returncode == 0


def test_without_a_criterion_the_default_one_decides_and_that_is_said_once(verify):
    done = verify("--script", "useless.py")

    assert done.returncode == 0
    assert done.stdout.count("No criterion was given, so the default one decides") == 1
    first, *others = [line for line in done.stdout.splitlines() if "RUNNING" not in line]
    assert "Verdict: FP16 is fine" in first
    assert "RMS relative L2 error of each output, over all samples" in [x.strip() for x in others]
    assert "No criterion" not in verify("--script", "useless.py", "--tolerance", "1").stdout


def test_a_mixed_model_that_holds_passes(verify):
    done = verify("--mixed-onnx", "good.onnx", "--tolerance", "1e-6")

    assert done.returncode == 0
    assert "the mixed-precision model 'good.onnx'" in done.stdout


def test_a_ranking_is_asked_for_what_meets_the_tolerance(verify):
    by_tolerance = verify("--ranking", "ranking.json", "--tolerance", "1e-6")
    by_count = verify("--ranking", "ranking.json", "--top-k", "0", "--tolerance", "1e-6")
    by_default = verify("--ranking", "ranking.json")

    assert by_tolerance.returncode == 0
    assert by_count.returncode == 1
    assert "0 of 2 layers stay in FP32" in by_count.stdout
    assert by_default.returncode == 0
    assert "0 of 2 layers stay in FP32" in by_default.stdout


def test_lines_fit_the_terminal(verify):
    out = verify("--script", "good.py").stdout

    report = out.split("Verification: ")[1].split("PASSED | Runtime")[0]
    assert max(map(len, report.splitlines())) <= 80


def test_made_up_inputs_are_told(verify):
    done = verify("--script", "good.py", inputs=None)

    assert done.returncode == 0
    assert "The inputs were made up" in done.stdout + done.stderr


def test_a_hostile_script_is_not_run(verify, folder):
    victim = folder / "victim"
    text = script_of("scaled", "y")
    (folder / "hostile.py").write_text(f"open({str(victim)!r}, 'w').close()\n{text}")

    done = verify("--script", "hostile.py")

    assert done.returncode == 0
    assert "was changed" in done.stdout + done.stderr
    assert not victim.exists()


def test_a_script_of_another_model_is_refused(refused, folder):
    (folder / "foreign.py").write_text(script_of("y", model_digest=OTHER_DIGEST))

    said = refused("--script", "foreign.py")

    assert "is about another model: 'model.onnx', digest 2:cdcdcdcdcdcd" in said
    assert "rank this one first" in said


def test_a_ranking_of_another_model_is_refused(refused, folder):
    content = json.loads((folder / "ranking.json").read_text())
    content["model"]["digest"] = OTHER_DIGEST
    (folder / "foreign.json").write_text(json.dumps(content))

    assert "is about another model" in refused("--ranking", "foreign.json")


def test_a_mixed_form_of_another_model_is_refused(refused):
    assert "lacks 2 of 2 layers" in refused("--mixed-onnx", "other.onnx")


def test_a_constraint_that_matches_nothing_is_refused(refused, folder):
    (folder / "stray.py").write_text(script_of("scalded", "y"))

    said = refused("--script", "stray.py")

    assert "1 of 2 constraints match no layer" in said
    assert "nearest: 'scaled'" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--script", "missing.py"], "No such file for `--script`: 'missing.py'"),
        (["--mixed-onnx", "missing.onnx"], "No such file for `--mixed-onnx`"),
        (["--ranking", "missing.json"], "No such file for `--ranking`"),
        (["--script", "ranking.json"], "is not a script"),
        (["--ranking", "good.py"], "is not a ranking"),
        (["--mixed-onnx", "good.py"], "not an ONNX model"),
        (["--top-k", "3"], "there is none"),
        (["--ranking", "ranking.json", "--top-k", "-1"], "must be at least 0"),
        (["--tolerance", "0"], "must be positive"),
        (["--tolerance", "nan"], "must be positive"),
        (["--timing-runs", "0"], "must be at least 1"),
        (["--outputs", "nope"], "no output named 'nope'"),
        (["--script", "good.py", "--precision", "bf16"], "is for fp16"),
        (["--script", "good.py", "--backend", "tensorrt"], "--backend emulated"),
    ],
)
def test_mistakes_are_told(refused, arguments, message):
    hidden = {"CUDA_VISIBLE_DEVICES": ""}

    assert message in " ".join(refused(*arguments, environment=hidden).split())


def test_one_thing_is_verified_at_a_time(verify):
    done = verify("--script", "good.py", "--ranking", "ranking.json")

    assert done.returncode != 0
    assert "not allowed with" in done.stderr


def test_tf32_is_emulated_where_it_is_asked_for(tmp_path):
    nodes = [node("MatMul", ["x", "w"], "y", name="product")]
    weights = {"w": normal(0, 8, 4)}
    model = build_model(nodes, [tensor("x", [3, 8])], [tensor("y", [3, 4])], weights)
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", x=normal(1, 3, 8))
    save_mixed_onnx(tmp_path / "model.onnx", tmp_path / "mixed.onnx", ["y"])
    flags = ("--load-inputs", "inputs.npz", "--mixed-onnx", "mixed.onnx", "--tolerance", "1e-5")

    exact = run_layerprec("verify", "model.onnx", *flags, folder=tmp_path)
    rounded = run_layerprec("verify", "model.onnx", *flags, "--tf32", folder=tmp_path)

    assert (exact.returncode, rounded.returncode) == (0, 1)
