"""`compare` in real processes: two rankings side by side."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.precision import BF16
from tests.models import chain, small_cnn
from tests.processes import DOORS, run_layerprec

pytestmark = pytest.mark.onnxrt


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    sample = {"x": np.linspace(0.1, 1, 8, dtype=np.float32).reshape(2, 4)}
    for name, model, options in (
        ("fp16", chain(6), {}),
        ("bf16", chain(6), {"precision": BF16}),
        ("longer", chain(8), {}),
    ):
        onnx.save(model, folder / f"{name}.onnx")
        ranking = rank_model(folder / f"{name}.onnx", [sample], **options)
        save_ranking(ranking, folder / f"{name}.json")
    onnx.save(small_cnn(), folder / "cnn.onnx")
    return folder


@pytest.fixture
def compare(folder):
    def run(*arguments, **options):
        done = run_layerprec("compare", *arguments, folder=folder, **options)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


@pytest.mark.parametrize("door", DOORS)
def test_a_ranking_agrees_with_itself(compare, door):
    done = compare("fp16.json", "fp16.json", door=door)

    assert done.returncode == 0
    assert "First: fp16.json | 6 layers of fp16.onnx" in done.stdout
    assert "rank correlation of the order 1.000" in done.stdout
    assert "Moved: no layer" in done.stdout
    assert "\x1b" not in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "Command" not in line)


def test_two_precisions_are_told_apart_and_kept_in_a_file(compare, folder):
    done = compare("fp16.json", "bf16.json", "--save-agreement", "agreement.json")

    content = json.loads((folder / "agreement.json").read_text())
    assert done.returncode == 0
    assert "different precisions" in done.stdout + done.stderr
    assert content["first"]["label"] == "fp16.json"
    assert content["second"]["precision"] == "bf16"
    assert content["shared_count"] == 6


def test_other_models_are_warned_of_and_compared_all_the_same(compare):
    done = compare("fp16.json", "longer.json")

    assert done.returncode == 0
    assert "different models" in done.stdout + done.stderr
    assert "Only in the second: 2 layers" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.json", "fp16.json"], "missing.json"),
        (["fp16.json", "cnn.onnx"], "'cnn.onnx' is not a ranking"),
        (["fp16.json", "fp16.json", "--top", "0"], "must be at least 1"),
        (["fp16.json", "fp16.json", "--save-agreement", "a.txt"], "must end in .json"),
    ],
)
def test_mistakes_are_told(compare, arguments, message):
    done = compare(*arguments)

    assert done.returncode == 1
    assert "[!]" in done.stderr
    assert message in done.stderr


@pytest.fixture(scope="module")
def changed(folder):
    """Returns a folder with a script and a verdict before a change of the criterion, and after."""
    np.savez(folder / "x.npz", x=np.linspace(0.1, 1, 8, dtype=np.float32).reshape(2, 4))
    for name, tolerance in (("before", "1e-2"), ("after", "1e-4")):
        run_layerprec(
            *("rank", "fp16.onnx", "--load-inputs", "x.npz", "--tolerance", tolerance),
            *("--save-script", f"{name}.py", "--save-verdict", f"{name}-verdict.json"),
            folder=folder,
        ).check_returncode()
    return folder


@pytest.mark.usefixtures("changed")
def test_two_scripts_are_compared_by_their_layers(compare, folder):
    done = compare("before.py", "after.py", "--save-report", "changes.md")

    assert done.returncode == 0
    assert "Comparison of scripts: before.py | after.py" in done.stdout
    assert "Both keep 0 layers in FP32; 0 only the first, " in done.stdout
    assert "Only in the second:" in done.stdout
    report = (folder / "changes.md").read_text()
    assert report.startswith("**Both keep 0 layers in FP32; 0 only the first, ")
    assert "| Layers in FP32 | 0 | " in report


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize("files", ["{}.py", "{}-verdict.json"])
def test_files_before_and_after_are_compared_in_json_and_on_a_page(compare, folder, files):
    first, second = (files.format(name) for name in ("before", "after"))
    saved = ("--save-agreement", "changes.json", "--save-report", "changes.html")

    done = compare(first, second, "--format", "json", *saved)

    assert done.returncode == 0
    assert done.stdout == (folder / "changes.json").read_text(encoding="utf-8")
    content = json.loads(done.stdout)
    assert (content["first"], content["second"]) == (first, second)
    assert ["Precision", "FP16", "FP16"] in content["rows"]
    page = (folder / "changes.html").read_text(encoding="utf-8")
    assert f'<h2 id="verdict">{content["sentence"]}</h2>' in page
    for layer in content["gained"]:
        assert layer["op"] in page


@pytest.mark.usefixtures("changed")
def test_a_script_is_equal_to_itself(compare):
    done = compare("after.py", "after.py")

    assert "Both keep the same " in done.stdout
    assert "Only in the" not in done.stdout


@pytest.mark.usefixtures("changed")
def test_two_verdicts_are_compared_by_every_criterion(compare):
    done = compare("before-verdict.json", "after-verdict.json", "--format", "markdown")

    assert done.returncode == 0
    assert done.stdout.startswith("**Both passed.**")
    (row,) = [line for line in done.stdout.splitlines() if "L2 error, all lowered" in line]
    assert "(at most 0.01)" in row
    assert "(at most 0.0001)" in row


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("before.py", "fp16.json"), "Give two files of one kind."),
        (("before.py", "nowhere.py"), "nowhere.py' cannot be used"),
    ],
)
def test_what_cannot_be_compared_is_refused(compare, words, said):
    done = compare(*words)

    assert done.returncode == 1
    assert said in done.stdout + done.stderr
