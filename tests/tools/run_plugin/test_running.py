"""`polygraphy run --layerprec`: real Polygraphy, the installed plugin, in this process."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from polygraphy.tools.run import Run

from polygraphy_layerprec.export import export_argument_groups
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.tools.run_arguments import LayerprecRunnerArgs
from tests.models import cancellation, save_with_external_data
from tests.run_plugin_files import OFFSET, SMALL, loaded, script_of

pytestmark = [
    pytest.mark.onnxrt,
    # Polygraphy's own, on Python 3.10 and 3.11.
    pytest.mark.filterwarnings("ignore:SelectableGroups dict interface:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def group() -> LayerprecRunnerArgs:
    """Returns the argument group, set up in the parser of `run`."""
    tool = Run()
    tool.setup_parser()
    return tool.arg_groups[LayerprecRunnerArgs]


def test_the_hook_offers_the_group_anew_each_time():
    first, second = export_argument_groups(), export_argument_groups()

    assert [type(group) for group in (*first, *second)] == [LayerprecRunnerArgs] * 2
    assert first[0] is not second[0]


def test_every_option_has_the_prefix_and_a_help_text_with_an_example(group):
    actions = group.group._group_actions

    assert len(actions) == 5
    for action in actions:
        assert all(option.startswith("--layerprec-") for option in action.option_strings)
        assert action.help.endswith(".")
        assert f"For example: {action.option_strings[0]} " in action.help
        assert "Defaults to " in action.help
        assert action.default is None


def test_the_runner_is_offered_with_an_example(group):
    name, option = group.get_name_opt()

    assert option == "layerprec"
    assert "polygraphy run model.onnx --onnxrt --layerprec" in group.get_extra_help_text()
    assert name == "ONNX-Runtime with emulated low precision"


def test_fp32_and_the_candidate_are_compared(run):
    words = ["model.onnx", "--onnxrt", "--layerprec", "--load-inputs", "inputs.json"]
    lost = float(2 * SMALL.max())  # y is 2 x, of which nothing is left

    assert not run(*words, "--atol", str(0.99 * lost), "--rtol", "0")
    assert run(*words, "--atol", str(1.01 * lost), "--rtol", "0")


def test_saved_outputs_are_those_of_fp32_and_of_the_candidate(outputs):
    saved = outputs("model.onnx", "--onnxrt", "--layerprec")

    np.testing.assert_allclose(saved["onnxrt"][0]["y"], 2 * SMALL, rtol=0, atol=2.0**-14)
    assert not saved["layerprec"][0]["y"].any()


@pytest.mark.parametrize("choice", ["*", "restored"])
def test_marked_tensors_are_those_of_the_candidate(outputs, choice):
    saved = outputs("model.onnx", "--layerprec", "--onnx-outputs", choice)["layerprec"][0]

    assert list(saved) == (["shifted", "restored", "y"] if choice == "*" else ["restored"])
    assert not saved["restored"].any()
    assert choice != "*" or set(saved["shifted"].flat) == {OFFSET}


@pytest.mark.parametrize(
    "options",
    [
        ("--layerprec-script", "cancelling.py"),
        ("--layerprec-script", "cancelling.py", "--onnx-outputs", "restored", "y"),
        ("--layerprec-script", "cancelling.py", "--layerprec-precision", "fp16"),
        ("--layerprec-ranking", "ranking.json", "--layerprec-top-k", "2"),
    ],
)
def test_what_a_script_or_a_ranking_keeps_is_exact(outputs, options):
    y = outputs("model.onnx", "--layerprec", *options)["layerprec"][0]["y"]

    # Off by the output's rounding, and by what FP32 loses where it adds 400.
    error = np.abs(y - 2 * SMALL) - 2.0**-14
    assert np.all(error <= 2 * SMALL * FP16.unit_roundoff)
    assert y.any()


def test_nothing_in_a_script_is_run(run, files, capsys):
    victim = files / "victim"
    (files / "hostile.py").write_text(f"open({str(victim)!r}, 'w')\n{script_of('y')}")

    run("model.onnx", "--layerprec", "--layerprec-script", "hostile.py")

    assert not victim.exists()
    assert "it was changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        (["--layerprec-top-k", "0"], 0),
        (["--layerprec-top-k", "1"], 1),
        (["--layerprec-top-k", "3"], 3),
        (["--layerprec-tolerance", "1e-9"], 2),  # nothing is left for the third to round
        (["--layerprec-tolerance", "10"], 0),
    ],
)
def test_a_ranking_is_asked_for_a_number_or_a_tolerance(run, capsys, sizes, kept):
    run("model.onnx", "--layerprec", "--layerprec-ranking", "ranking.json", *sizes)

    assert f"{kept} of 3 layers stay in FP32 | the ranking " in capsys.readouterr().out


@pytest.mark.parametrize(("precision", "valid"), [("fp16", False), ("bf16", True)])
def test_what_overflows_is_infinite_and_does_not_validate(run, outputs, precision, valid):
    words = ["overflow.onnx", "--layerprec", "--layerprec-precision", precision]
    words += ["--onnx-outputs", "large"]

    saved = outputs(*words, inputs="large.json")["layerprec"][0]["large"]

    assert np.isfinite(saved).all() == valid
    assert run(*words, "--load-inputs", "large.json", "--validate") == valid


def test_every_iteration_of_a_data_loader_is_run(run, tmp_path):
    path = str(tmp_path / "outputs.json")

    run("model.onnx", "--onnxrt", "--layerprec", "--data-loader-script", "data.py",
        "--save-outputs", path, "--fail-fast", "--atol", "1")  # fmt: skip

    saved = loaded(path)
    assert [len(iterations) for iterations in saved.values()] == [3, 3]
    assert not any(iteration["y"].any() for iteration in saved["layerprec"])


def test_random_inputs_are_made_for_as_many_iterations_as_are_asked_for(run, tmp_path):
    path = str(tmp_path / "outputs.json")

    run("labels.onnx", "--onnxrt", "--layerprec", "--iterations", "2", "--val-range", "[-1,1]",
        "--onnx-outputs", "logits", "--save-outputs", path)  # fmt: skip

    saved = loaded(path)
    for exact, low in zip(saved["onnxrt"], saved["layerprec"], strict=True):
        error = np.abs(low["logits"] - exact["logits"]).max()
        assert 0 < error <= 0.02
    assert len(saved["layerprec"]) == 2


@pytest.mark.parametrize(("tolerance", "passes"), [("1e-2", True), ("1e-6", False)])
def test_polygraphys_measures_apply(run, tolerance, passes):
    words = ["labels.onnx", "--onnxrt", "--layerprec", "--onnx-outputs", "logits", "--seed", "1"]

    assert run(*words, "--compare", "l2", "--l2-tolerance", tolerance) == passes


def test_saved_outputs_can_be_compared_with_later(run, tmp_path):
    path = str(tmp_path / "fp32.json")
    words = ["model.onnx", "--load-inputs", "inputs.json"]

    assert run(*words, "--onnxrt", "--save-outputs", path)

    assert not run(*words, "--layerprec", "--load-outputs", path)
    assert run(*words, "--layerprec", "--layerprec-script", "all.py", "--load-outputs", path)


def test_weights_may_be_in_another_folder(run, tmp_path):
    save_with_external_data(cancellation(OFFSET), tmp_path / "m.onnx")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "m.onnx.data").rename(elsewhere / "m.onnx.data")
    words = [str(tmp_path / "m.onnx"), "--layerprec", "--layerprec-script", "all.py"]

    assert run(*words, "--external-data-dir", str(elsewhere), "--validate")


def test_a_group_that_cannot_be_loaded_does_not_disturb_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "polygraphy_layerprec.tools.run_arguments", None)

    assert export_argument_groups() == []


def test_the_help_of_run_changes_by_our_options_alone(monkeypatch):
    ours = Run().setup_parser().format_help()
    monkeypatch.setattr("polygraphy_layerprec.export._make_argument_groups", list)
    theirs = Run().setup_parser().format_help()

    before, after = (re.split(r"\n\n(?=\S)", text.rstrip()) for text in (theirs, ours))
    changed = [section.split(":")[0] for section in after if section not in before]
    assert len(before) > 20
    assert changed == ["usage", "Runners", "Layer Precision Emulation"]
    assert len(after) == len(before) + 1
    assert "layerprec" not in theirs
