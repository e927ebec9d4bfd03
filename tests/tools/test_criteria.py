"""Criteria on the command line: the same in every verb, and judged as Polygraphy judges."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest

from tests.models import build_model, node, normal, sample_inputs, small_cnn, tensor
from tests.processes import POLYGRAPHY_DOOR, run_command, run_layerprec

pytestmark = pytest.mark.onnxrt

DATA = ("--load-inputs", "inputs.npz")

CRITERIA = [
    ("--snr-threshold", "76"),
    ("--psnr-threshold", "80"),
    ("--l2-threshold", "4e-4"),
    ("--atol", "2e-4"),
    ("--atol", "5e-5", "--check-error-stat", "mean"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("criteria")
    model = small_cnn()
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", **sample_inputs(model))
    words = ("--load-inputs", "inputs.npz", "--save-ranking", "ranking.json")
    done = run_layerprec("rank", "model.onnx", *words, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def run(folder, monkeypatch, command):
    """Runs a command in the folder, and returns its exit code and what it said."""
    monkeypatch.chdir(folder)
    return command


def verdict_of(said):
    return next(line.split("Verdict: ")[1] for line in said.splitlines() if "Verdict: " in line)


@pytest.mark.parametrize("criterion", CRITERIA, ids=" ".join)
def test_a_set_that_meets_a_criterion_meets_it_in_polygraphy(run, folder, criterion):
    constrain = ("constrain", "ranking.json", "--model", "model.onnx", *DATA, *criterion)

    lowered, said = run("verify", "model.onnx", *DATA, *criterion)
    status, chosen = run(*constrain, "--save-script", "c.py")
    held, verified = run("verify", "model.onnx", *DATA, "--script", "c.py", *criterion)

    assert (lowered, status, held) == (1, 0, 0), said + chosen
    assert "FP16 loses accuracy" in verdict_of(said)
    assert verdict_of(chosen) == verdict_of(verified)
    for script, passes in (("c.py", True), (None, False)):
        judged = _polygraphy(folder, criterion, script)
        assert (judged.returncode == 0) is passes, judged.stdout + judged.stderr


def _polygraphy(folder, criterion, script):
    compare = {
        "--cosine-similarity-threshold": ("--compare", "cosine_similarity"),
        "--snr-threshold": ("--compare", "snr"),
        "--psnr-threshold": ("--compare", "psnr"),
        "--l2-threshold": ("--compare", "l2"),
    }.get(criterion[0], ())
    constraints = () if script is None else ("--layerprec-script", script)
    words = ("run", "model.onnx", "--onnxrt", "--layerprec", *constraints, *DATA)
    command = [sys.executable, *POLYGRAPHY_DOOR[:-1], *words, *compare, *criterion]
    return run_command(command, folder)


def test_what_polygraphys_functions_hide_takes_no_room(run):
    status, said = run("rank", "model.onnx", *DATA, "--atol", "2e-4")

    lines = said.splitlines()
    head = next(index for index, line in enumerate(lines) if "Elemwise error over atol" in line)
    assert status == 0
    assert any(" * " in line and line.endswith("met") for line in lines[head + 1 :])
    assert sum("% of the error" in line for line in lines) > 2


def test_rank_takes_the_same_criteria(run):
    status, said = run("rank", "model.onnx", *DATA, "--snr-threshold", "72")

    assert status == 0
    assert "(at least 72 dB)" in verdict_of(said)


def test_criteria_are_by_output_and_by_part(run):
    words = ("verify", "model.onnx", *DATA)

    strict, said = run(*words, "--tolerance", "1", "logits[:, :2]:1e-9")
    _, others = run(*words, "--snr-threshold", "10", "logits[..., 0]:200")

    assert strict == 1
    assert "relative L2 error of logits[:, :2]" in verdict_of(said)
    assert "SNR of logits[..., 0]" in verdict_of(others)


@pytest.fixture
def detector(folder):
    """Two outputs of two halves each: all that is lost is in the second half of the scores."""
    offset = np.array([0.0] * 4 + [500.0] * 4, np.float32)
    nodes = [
        node("MatMul", ["x", "w"], "boxes", name="boxes"),
        node("Add", ["boxes", "offset"], "shifted", name="shift"),
        node("Sub", ["shifted", "offset"], "scores", name="unshift"),
    ]
    outputs = [tensor("boxes", [16, 8]), tensor("scores", [16, 8])]
    model = build_model(
        nodes, [tensor("x", [16, 32])], outputs, {"w": normal(0, 32, 8), "offset": offset}
    )
    onnx.save(model, folder / "detector.onnx")
    np.savez(folder / "detector.npz", x=normal(1, 16, 32))
    return "verify", "detector.onnx", "--load-inputs", "detector.npz"


@pytest.mark.parametrize(
    ("flags", "failed"),
    [
        ("--tolerance boxes:0.01", "relative L2 error of scores"),
        ("--max-abs boxes:1", "relative L2 error of scores"),
        ("--tolerance scores[:,:4]:0.01", "relative L2 error of the rest of scores"),
        ("--max-abs scores[:,:4]:1 boxes:1", "relative L2 error of the rest of scores"),
        ("--snr-threshold scores[:,:4]:30", "relative L2 error of the rest of scores"),
        ("--postprocess boxes:top-1", "relative L2 error of scores"),
        ("--atol boxes:1", "elemwise error over atol 1e-05 or rtol 1e-05"),
        ("--max-abs boxes:1 --tolerance scores:1", ""),
        ("--tolerance boxes:0.01 1", ""),
        ("--tolerance scores[:,:4]:0.01 --max-abs 9", ""),
        ("--tolerance scores[:,4:]:1", ""),
        ("--snr-threshold 0 scores[:,:4]:30", ""),
        ("--snr-threshold scores[:,:4]:30 --max-abs 9", ""),
    ],
)
def test_what_no_criterion_names_holds_the_default_one(run, detector, flags, failed):
    status, said = run(*detector, *flags.split())

    assert status == bool(failed), said
    assert (failed or "is fine") in verdict_of(said)


def test_a_script_of_the_users_own_judges(run, folder):
    (folder / "compare.py").write_text(
        "def compare_outputs(exact, found):\n"
        "    return {name: bool(abs(exact[name] - found[name]).max() < 1) for name in exact}\n"
        "def never(exact, found):\n"
        "    return {name: False for name in exact}\n"
    )

    passed, _ = run("verify", "model.onnx", *DATA, "--compare-func-script", "compare.py")
    failed, said = run("verify", "model.onnx", *DATA, "--compare-func-script", "compare.py:never")

    assert (passed, failed) == (0, 1)
    assert "outputs that the comparison script fails 1 (at most 0)" in verdict_of(said)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("True", "must return a mapping from output names to what it found, got True"),
        ("None", "must return a mapping from output names to what it found, got None"),
        ("{}", "The comparison function says nothing of any output"),
        ("{'other': True}", "It returned results for ['other']"),
    ],
)
def test_a_script_that_returns_no_verdicts_is_refused(run, folder, returned, message):
    (folder / "odd.py").write_text(f"def compare_outputs(exact, found):\n    return {returned}\n")

    status, said = run("verify", "model.onnx", *DATA, "--compare-func-script", "odd.py")

    assert status not in (0, None)
    assert message in said
    assert "Traceback" not in said


def test_a_size_is_judged_by_a_criterion_and_kept(run):
    words = ("constrain", "ranking.json", "--model", "model.onnx", *DATA, "--top-k", 1)

    status, said = run(*words, "--l2-threshold", "1e-9")

    assert status == 0
    assert "1 of 5 layers in FP32 brings it to" in verdict_of(said)
    assert "which is not enough" in verdict_of(said)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--atol", "-1"], "`--atol` must be VALUE or NAME:VALUE, got '-1': -1 is negative"),
        (["--rtol", "x"], "`--rtol` must be VALUE or NAME:VALUE, got 'x'"),
        (["--snr-threshold", "nan"], "nan is not finite"),
        (["--cosine-similarity-threshold", "2"], "2 is not in [-1, 1]"),
        (["--error-quantile", "2"], "2 is not in [0, 1]"),
        (["--index-tolerance", "-1"], "-1 is negative"),
        (["--check-error-stat", "worst"], "there are elemwise, max"),
        (["--postprocess", "best"], "there is top-K"),
        (["--l2-threshold", "1", "2"], "names 'all outputs' twice"),
        (["--l2-threshold", "nope:1"], "The model has no output named 'nope'"),
        (["--max-abs", "logits[oops]:1"], "is no part of an output"),
        (["--tolerance", "logits:0"], "`--tolerance` must be positive"),
        (["--compare", "magic"], "invalid choice"),
        (["--compare-func-script", "no.py"], "No such script to compare with: 'no.py'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
@pytest.mark.parametrize("verb", ["rank", "verify"])
def test_criteria_that_make_no_sense_are_refused_in_words(run, verb, flags, message):
    status, said = run(verb, "model.onnx", *DATA, *flags)

    assert status not in (0, None)
    assert message in said
    assert "Traceback" not in said


def test_criteria_of_the_model_need_it(run):
    status, said = run("constrain", "ranking.json", "--snr-threshold", "60")

    assert status == 1
    assert "`--snr-threshold` needs the model" in said


def test_every_verb_saves_its_verdict(run, folder):
    words = ("--model", "model.onnx", *DATA, "--snr-threshold", "76")

    done = [
        run("rank", "model.onnx", *DATA, "--save-verdict", "r.json"),
        run("constrain", "ranking.json", *words, "--save-verdict", "c.json"),
        run("verify", "model.onnx", *DATA, "--snr-threshold", "76", "--save-verdict", "v.json"),
    ]

    found = [json.loads((folder / name).read_text()) for name in ("r.json", "c.json", "v.json")]
    assert [status for status, _ in done] == [0, 0, 1]
    assert [one["verb"] for one in found] == ["rank", "constrain", "verify"]
    assert [one["passed"] for one in found] == [True, True, False]
    for (_, said), one in zip(done, found, strict=True):
        assert verdict_of(said) == one["sentence"]
    assert found[1]["outcome"]["judgements"][1]["criterion"]["metric"] == "SNR"


def test_a_verdict_on_what_was_not_measured_is_refused_before_a_file_is_written(folder, run):
    files = ("--save-verdict", "x.json", "--save-script", "x.py")

    refused, said = run("constrain", "ranking.json", "--top-k", 1, *files)

    assert refused == 1
    assert not {"x.json", "x.py"} & {path.name for path in folder.iterdir()}
    assert "`--save-verdict`: there is no verdict, for nothing was measured." in said
