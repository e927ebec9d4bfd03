"""`--metric-script` and `--labels` from the command line."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.files.ranking_file import load_ranking
from tests.models import build_model, node, scalar, tensor

pytestmark = pytest.mark.onnxrt

TIE = np.float32(1 + 2.0**-11)
"""Halfway between two numbers of FP16, rounded to 1."""

TOP1 = """
def metric(outputs, samples):
    pairs = list(zip(outputs, samples, strict=True))
    assert all(set(sample) == {"x", "label"} for _, sample in pairs)
    return sum(o["y"].argmax() == s["label"] for o, s in pairs) / len(pairs)

def fails(outputs, samples):
    raise KeyError("nothing here")

def nothing(outputs, samples):
    return 0.0

def words(outputs, samples):
    return "good"
"""


@pytest.fixture
def run(tmp_path, monkeypatch, command):
    """Runs a command beside a model whose class hangs by the last bit that FP16 loses."""
    nodes = [
        node("Mul", ["x", "ties"], "scores", name="scores"),
        node("Mul", ["scores", "one"], "y", name="head"),
    ]
    weights = {"ties": np.array([1, TIE], np.float32), "one": scalar(1.0)}
    model = build_model(nodes, [tensor("x", [2])], [tensor("y", [2])], weights)
    onnx.save(model, tmp_path / "model.onnx")
    for index, value in enumerate(([1, 1], [2, 1])):
        x = np.array(value, np.float32)
        np.savez(tmp_path / f"{index}.npz", x=x, label=np.argmax(x * [1, TIE]))
    (tmp_path / "top1.py").write_text(TOP1)
    monkeypatch.chdir(tmp_path)
    return command


DATA = ("--load-inputs", "0.npz", "1.npz", "--labels", "label")


def test_a_set_is_found_by_a_metric_and_verified_by_it(run):
    metric = ("--metric-script", "top1.py", "--max-drop", "1%")

    ranked, said = run(
        "rank", "model.onnx", *DATA, *metric, "--save-ranking", "r.json", "--save-script", "c.py"
    )
    verified, _ = run("verify", "model.onnx", *DATA, *metric, "--script", "c.py")
    lowered, unfit = run("verify", "model.onnx", *DATA, *metric)
    chosen, again = run("constrain", "r.json", "--model", "model.onnx", *DATA, *metric)

    assert (ranked, verified, lowered, chosen) == (0, 0, 1, 0)
    assert "FP16 build" not in said
    assert "drop of top1 50 % (at most 1 %; 1 in FP32, now 0.5)" in said
    assert "FAILED: drop of top1 50 % (at most 1 %; 1 in FP32, now 0.5)" in unfit
    assert "drop of top1 50 %" in again
    assert load_ranking("r.json").decision.outcome.headline.value == 0.0


def test_a_drop_in_the_metrics_own_unit_may_be_allowed(run):
    status, said = run(
        *("rank", "model.onnx", *DATA, "--metric-script", "top1.py", "--max-drop", "0.5")
    )

    assert status == 0
    assert (
        "no layer needs to stay in FP32: drop of top1 0.5 (at most 0.5; 1 in FP32, now 0.5)" in said
    )


def test_without_labels_their_arrays_are_unknown_inputs(run):
    status, said = run("rank", "model.onnx", "--load-inputs", "0.npz")

    assert status == 1
    assert "which is no input of the model" in said
    assert "If 'label' is for a metric and not for the model, name it: --labels label." in said


@pytest.mark.parametrize("verb", ["rank", "verify"])
def test_a_metric_that_is_nothing_in_fp32_is_warned_of(run, verb):
    metric = (*DATA, "--metric-script", "top1.py:nothing")

    status, said = run(verb, "model.onnx", *metric)
    refused, percent = run(verb, "model.onnx", *metric, "--max-drop", "1%")

    assert status == 0
    assert "drop of nothing says nothing" in said
    assert "(at most 0; 0 in FP32, now 0)" in said
    assert refused == 1
    assert "The metric `nothing` is 0 in FP32, of which there is no percentage" in percent


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--load-inputs", "0.npz", "--labels", "nope"], "has no label 'nope'.\n"),
        (["--labels", "label"], "`--labels` names arrays of your samples, but none were given"),
        ([*DATA, "--metric-script", "no.py"], "No such script with a metric: 'no.py'"),
        ([*DATA, "--metric-script", "top1.py:gone"], "has no function 'gone'"),
        ([*DATA, "--metric-script", "top1.py:nan"], "has no function 'nan'"),
        ([*DATA, "--metric-script", "top1.py", "--max-drop", "150%"], "must be less than 100%"),
        ([*DATA, "--metric-script", "top1.py:fails"], "failed in `fails`, line 8: KeyError"),
        ([*DATA, "--metric-script", "top1.py:words"], "`words` must return a finite number"),
        ([*DATA, "--max-drop", "1%"], "give one with `--metric-script`"),
        ([*DATA, "--metric-script", "top1.py", "--max-drop", "much"], "must be like 0.01 or 1%"),
        ([*DATA, "--metric-script", "top1.py", "--max-drop", "-1"], "must be like 0.01 or 1%"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
@pytest.mark.parametrize("verb", ["rank", "verify"])
def test_what_makes_no_sense_is_refused_in_words(run, verb, flags, message):
    status, said = run(verb, "model.onnx", *flags)

    assert status not in (0, None)
    assert message in said
    assert "Traceback" not in said
