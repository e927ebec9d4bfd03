"""What `polygraphy run --layerprec --gen-script` writes."""

from __future__ import annotations

import re
import shutil
import sys

import numpy as np
import pytest

from tests.processes import run_command
from tests.run_plugin_files import SMALL, loaded

pytestmark = [
    pytest.mark.onnxrt,
    # Polygraphy's own, on Python 3.10 and 3.11.
    pytest.mark.filterwarnings("ignore:SelectableGroups dict interface:DeprecationWarning"),
]


def test_a_model_that_no_option_changes_is_not_loaded_as_a_whole(generate, files):
    words = ["model.onnx", "--layerprec", "--layerprec-script", "all.py"]

    unchanged = generate(*words, "--external-data-dir", ".")
    changed = generate(*words, "--onnx-outputs", "shifted")

    assert "OnnxFromPath" not in unchanged
    assert unchanged.count("GraphFromOnnx(") == 1
    assert f"external_data_dir={str(files)!r}" in unchanged
    assert "modify_outputs = ModifyOnnxOutputs(" in changed
    assert changed.count("GraphFromOnnx(") == 2


def test_a_generated_script_holds_names_as_literals(generate, files):
    name = "quo\"te'); print(1) #.onnx"
    shutil.copy(files / "model.onnx", files / name)

    text = generate(name, "--layerprec")

    compile(text, "script", "exec")
    assert f"GraphFromOnnx({str(files / name)!r})" in text


def test_a_generated_script_does_the_same_in_another_folder(generate, files, tmp_path):
    path = tmp_path / "outputs.json"
    words = ["model.onnx", "--onnxrt", "--layerprec", "--layerprec-ranking", "ranking.json"]
    words += ["--layerprec-top-k", "3", "--load-inputs", str(files / "inputs.json")]

    generate(*words, "--save-outputs", str(path), "--atol", "1e-4")
    assert not path.exists()
    done = run_command([sys.executable, "-W", "error", tmp_path / "generated.py"], tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "[W]" not in done.stdout
    np.testing.assert_allclose(loaded(path)["layerprec"][0]["y"], 2 * SMALL, rtol=0, atol=2.0**-14)


def test_the_runner_stands_beside_tensorrts_in_one_script(generate):
    text = generate("model.onnx", "--onnxrt", "--trt", "--layerprec", "--trt-npps", "all.py")

    compile(text, "script", "exec")
    runners = re.findall(r"^    (\w+)\(", text, re.MULTILINE)
    assert runners[:3] == ["OnnxrtRunner", "TrtRunner", "LayerprecRunner"]
