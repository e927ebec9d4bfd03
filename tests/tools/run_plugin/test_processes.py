"""`polygraphy run --layerprec` in processes of its own, that of the oldest Polygraphy as well."""

from __future__ import annotations

import numpy as np
import pytest

from tests.environments import oldest_python
from tests.processes import run_command
from tests.run_plugin_files import SMALL, loaded, polygraphy_run

pytestmark = [
    pytest.mark.onnxrt,
    # Polygraphy's own, on Python 3.10 and 3.11.
    pytest.mark.filterwarnings("ignore:SelectableGroups dict interface:DeprecationWarning"),
]


def test_a_process_of_its_own_compares_and_says_so_by_its_exit_code(files):
    words = ["model.onnx", "--onnxrt", "--layerprec", "--load-inputs", "inputs.json"]

    failed = polygraphy_run(*words, folder=files)
    passed = polygraphy_run(*words, "--layerprec-script", "all.py", folder=files)

    assert failed.returncode == 1
    assert "FAILED | Output: 'y' | Difference exceeds tolerance" in failed.stdout + failed.stderr
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "3 of 3 layers stay in FP32" in passed.stdout
    assert "Traceback" not in failed.stderr + passed.stderr


@pytest.mark.slow
def test_the_oldest_polygraphy_runs_it(files, tmp_path):
    path = tmp_path / "outputs.json"
    words = ["model.onnx", "--onnxrt", "--layerprec", "--load-inputs", "inputs.json"]
    words += ["--onnx-outputs", "mark", "all", "--layerprec-script", "cancelling.py"]

    done = polygraphy_run(
        *words, "--save-outputs", path, "--atol", "1", folder=files, python=oldest_python()
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Failed to load plugin" not in done.stdout
    assert "not recommended" not in done.stdout
    saved = loaded(path)["layerprec"][0]
    assert list(saved) == ["shifted", "restored", "y"]
    np.testing.assert_allclose(saved["restored"], SMALL, rtol=0, atol=2.0**-15)


@pytest.mark.slow
def test_a_script_that_the_oldest_polygraphy_generates_runs(files, tmp_path):
    words = ["model.onnx", "--onnxrt", "--layerprec", "--layerprec-ranking", "ranking.json"]
    words += ["--layerprec-top-k", "3", "--atol", "1e-4", "--gen-script", tmp_path / "script.py"]

    made = polygraphy_run(*words, folder=files, python=oldest_python())
    done = run_command([oldest_python(), tmp_path / "script.py"], tmp_path)

    assert made.returncode == 0, made.stdout + made.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 layers stay in FP32" in done.stdout
