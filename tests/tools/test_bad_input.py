"""Mistakes of the user, in real processes: a clear error, exit code 1, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.models import (
    chain,
    save_with_external_data,
    small_cnn,
    small_transformer,
)
from tests.processes import DOORS, LONGEST_SECONDS, interruptible_layerprec, run_layerprec

pytestmark = pytest.mark.onnxrt


@pytest.fixture
def refused(tmp_path):
    """Runs `rank`, expects it to fail cleanly, and returns what it says."""

    def run(*arguments, door="polygraphy", environment=None) -> str:
        done = run_layerprec(
            "rank", *arguments, door=door, folder=tmp_path, environment=environment
        )
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert "Traceback" not in said
        assert "[!]" in done.stderr
        assert "FAILED | Runtime" in said or "RUNNING" not in said
        return done.stderr

    return run


def save(model, tmp_path, name="model.onnx"):
    path = tmp_path / name
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("door", DOORS)
def test_a_missing_model(refused, door):
    assert "missing.onnx" in refused("missing.onnx", door=door)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"This is a text file that someone renamed.\n", "not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "not an ONNX model"),
        (b"\x00" * 64, "not an ONNX model"),
    ],
)
def test_a_file_that_is_no_model(refused, tmp_path, content, message):
    (tmp_path / "model.onnx").write_bytes(content)

    said = refused("model.onnx")

    assert "model.onnx" in said
    assert message in said


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_a_truncated_model(refused, tmp_path, fraction):
    path = save(small_transformer(), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])

    said = refused("model.onnx", "--input-shapes", "ids:[1,4]")

    assert "truncated" in said or "not an ONNX model" in said


def test_a_folder_instead_of_a_model(refused, tmp_path):
    (tmp_path / "folder.onnx").mkdir()

    assert "folder.onnx" in refused("folder.onnx")


def test_missing_external_data(refused, tmp_path):
    save_with_external_data(small_cnn(), tmp_path / "model.onnx")
    (tmp_path / "model.onnx.data").unlink()

    said = refused("model.onnx")

    assert "external data" in said
    assert "model.onnx.data" in said


def test_truncated_external_data(refused, tmp_path):
    save_with_external_data(small_cnn(), tmp_path / "model.onnx")
    data = tmp_path / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-5])

    assert "truncated" in refused("model.onnx")


def test_a_model_without_a_float_layer(refused, tmp_path):
    nodes = [helper.make_node("Add", ["x", "x"], ["y"], name="add")]
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, [2]) for name in "xy"]
    save(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:])), tmp_path)

    assert "nothing to rank" in " ".join(refused("model.onnx").split())


@pytest.mark.parametrize(("op", "domain"), [("Frobnicate", ""), ("Custom", "com.acme")])
def test_an_operator_that_nobody_knows_costs_its_layers_only(tmp_path, op, domain):
    nodes = [
        helper.make_node("Exp", ["x"], ["a"], name="known"),
        helper.make_node(op, ["a"], ["b"], name="strange", domain=domain),
        helper.make_node("Exp", ["b"], ["y"], name="after"),
        helper.make_node("Tanh", ["a"], ["z"], name="beside"),
    ]
    inputs, *outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xyz"
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph(nodes, "g", [inputs], outputs)
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path)

    done = run_layerprec("rank", "model.onnx", folder=tmp_path)

    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "strange" in done.stdout
    assert "known" in done.stdout
    assert "Could not measure" in done.stdout


IDS = np.ones((1, 3), np.int64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": IDS}, "has no array for the model's input 'mask'"),
        ({"ids": IDS, "mask": IDS, "x": IDS}, "has an array for 'x', which is no input"),
        ({"ids": IDS, "mask": IDS.astype(np.int32)}, "Wrong dtype of input 'mask'"),
        ({"ids": IDS, "mask": IDS[0]}, "Wrong shape of input 'mask'"),
    ],
)
def test_inputs_that_do_not_fit(refused, tmp_path, arrays, message):
    save(small_transformer(), tmp_path)
    np.savez(tmp_path / "inputs.npz", **arrays)

    said = refused("model.onnx", "--load-inputs", "inputs.npz")

    assert message in said
    assert "inputs.npz" in said


def test_ids_beyond_their_table(tmp_path):
    save(small_transformer(), tmp_path)
    np.savez(tmp_path / "inputs.npz", ids=IDS * 999, mask=IDS)

    done = run_layerprec("rank", "model.onnx", "--load-inputs", "inputs.npz", folder=tmp_path)

    assert done.returncode == 1
    assert "No layer can be judged" in done.stderr
    assert "idx=999" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_nan_in_the_inputs(refused, tmp_path):
    save(small_cnn(), tmp_path)
    np.savez(tmp_path / "inputs.npz", image=np.full((1, 3, 16, 16), np.nan, np.float32))

    assert "NaN in input 'image'" in refused("model.onnx", "--load-inputs", "inputs.npz")


def test_an_unknown_output(refused, tmp_path):
    save(small_cnn(), tmp_path)

    assert "no output named 'nothing'" in refused("model.onnx", "--outputs", "nothing")


@pytest.mark.parametrize("option", ["--save-ranking", "--save-script"])
def test_an_output_path_that_cannot_be_written(refused, tmp_path, option):
    save(small_cnn(), tmp_path)
    suffix = ".json" if option == "--save-ranking" else ".py"

    said = refused("model.onnx", option, f"missing/file{suffix}")

    assert "does not exist" in said
    assert option in said


@pytest.fixture
def meddle(tmp_path):
    """Returns an environment in which ONNX-Runtime is changed before anything else runs."""

    def write(code: str) -> dict[str, str]:
        folder = tmp_path / "meddling"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(f"import onnxruntime\n{code}\n")
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths)}

    return write


def test_an_onnxruntime_that_is_too_old(refused, tmp_path, meddle):
    save(small_cnn(), tmp_path)

    said = refused("model.onnx", environment=meddle("onnxruntime.__version__ = '1.16.3'"))

    assert "1.16.3 is too old" in said
    assert "pip install" in said


def test_an_onnxruntime_that_does_not_round(refused, tmp_path, meddle):
    save(small_cnn(), tmp_path)
    code = "onnxruntime.InferenceSession.run = lambda self, names, feed: list(feed.values())"

    said = refused("model.onnx", environment=meddle(code))

    assert "does not emulate low precision faithfully" in said


ENDLESS_SAMPLES = """
import pathlib
import numpy as np

def load_data():
    yield {"x": np.ones((2, 4), np.float32)}
    pathlib.Path("halfway").touch()
    while True:
        yield {"x": np.ones((2, 4), np.float32)}
"""


@pytest.mark.parametrize("door", DOORS)
def test_an_interrupt_half_way(tmp_path, door):
    save(chain(50), tmp_path)
    (tmp_path / "samples.py").write_text(ENDLESS_SAMPLES)
    words = ["rank", "model.onnx", "--data-loader-script", "./samples.py"]
    words += ["--save-ranking", "ranking.json", "--save-script", "constraints.py"]

    with interruptible_layerprec(*words, door=door, folder=tmp_path) as process:
        give_up = time.monotonic() + LONGEST_SECONDS
        while not (tmp_path / "halfway").exists() and process.poll() is None:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=LONGEST_SECONDS)

    assert process.returncode == 130, said
    assert "Interrupted" in said
    assert "Traceback" not in said
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"model.onnx", "samples.py", "halfway"}


RAISING_LOADER = """
def load_data():
    yield {"image": __import__("numpy").ones((1, 3, 16, 16), "float32")}
    raise KeyError("no more")
"""


@pytest.mark.parametrize("door", DOORS)
def test_a_data_loader_that_raises(refused, tmp_path, door):
    save(small_cnn(), tmp_path)
    (tmp_path / "loader.py").write_text(RAISING_LOADER)

    said = " ".join(refused("model.onnx", "--data-loader-script", "loader.py", door=door).split())

    assert "The script 'loader.py' failed in `load_data`, line 4: KeyError: 'no more'" in said
    assert "leave out `--data-loader-script`" in said


def test_the_traceback_of_a_script_is_shown_to_who_wants_more(tmp_path):
    save(small_cnn(), tmp_path)
    (tmp_path / "loss.py").write_text("def loss(outputs):\n    return outputs['other'] + 1\n")

    done = run_layerprec("rank", "model.onnx", "--loss-script", "loss.py", "-v", folder=tmp_path)

    assert done.returncode == 1
    assert "The script 'loss.py' failed in `loss`, line 2: KeyError: 'other'" in done.stderr
    assert "return outputs['other'] + 1" in done.stdout


@pytest.mark.parametrize("door", DOORS)
def test_a_reader_that_leaves_early_hears_no_more(tmp_path, door):
    save(chain(300), tmp_path)
    command = [sys.executable, *DOORS[door], "rank", "model.onnx", "--top", "300"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()

    assert process.returncode == 141
    assert said == ""
