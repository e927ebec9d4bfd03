"""Models that ONNX-Runtime would fail on, or never finish, in real processes."""

from __future__ import annotations

import signal
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.models import build_model, node, tensor
from tests.processes import DOORS, LONGEST_SECONDS, interruptible_layerprec, run_layerprec

pytestmark = pytest.mark.onnxrt

X, Y = [tensor("x", [2])], [tensor("y", None)]


def reshaped_beyond_numpy():
    """A tensor of more axes than numpy's arrays have."""
    shape = np.array([1] * 70 + [2], np.int64)
    nodes = [node("Reshape", ["x", "s"], "r", name="r"), node("Exp", ["r"], "y", name="e")]
    return build_model(nodes, X, Y, {"s": shape}), "71 axes, which is too many"


def fed_beyond_numpy():
    """An input of more axes than numpy's arrays have."""
    nodes = [node("Exp", ["x"], "y", name="e")]
    return build_model(nodes, [tensor("x", [1] * 70)], Y), "'x' has 70 axes, which is too many"


@pytest.mark.parametrize("make", [reshaped_beyond_numpy, fed_beyond_numpy])
@pytest.mark.parametrize("verb", ["rank", "verify"])
def test_more_axes_than_arrays_have_are_told(tmp_path, verb, make):
    model, problem = make()
    onnx.save(model, tmp_path / "model.onnx")

    done = run_layerprec(verb, "model.onnx", folder=tmp_path)

    assert done.returncode == 1
    assert problem in " ".join(done.stderr.split())
    assert "Traceback" not in done.stdout + done.stderr


def test_operands_of_a_loop_that_are_none_cost_the_loop_only(tmp_path):
    body = helper.make_graph([node("Exp", ["q"], "a")], "b", [tensor("q", [])], [tensor("a", [])])
    nodes = [
        node("Exp", ["x"], "h", name="exp"),
        node("Loop", ["h", "h", "h"], "y", name="loop", body=body),  # a vector of steps
    ]
    onnx.save(build_model(nodes, X, [tensor("h", None), *Y]), tmp_path / "model.onnx")

    done = run_layerprec("verify", "model.onnx", folder=tmp_path)

    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 1  # an output that cannot be compared meets no criterion
    assert "'y' was not compared" in " ".join((done.stdout + done.stderr).split())


def test_what_onnxruntime_writes_itself_is_not_shown(tmp_path):
    weight = np.ones((1, 1, 1, 1), np.float32)
    nodes = [node("Conv", ["x", "w"], "y", name="c", pads=[2**30] * 4)]
    onnx.save(
        build_model(nodes, [tensor("x", [1, 1, 4, 4])], Y, {"w": weight}), tmp_path / "model.onnx"
    )

    done = run_layerprec("rank", "model.onnx", folder=tmp_path)

    assert done.returncode == 1
    assert done.stderr.startswith("[!] No layer of 'model.onnx' could be measured.")
    assert all(line.isprintable() for line in (done.stdout + done.stderr).splitlines())


def endless_loop():
    """A Loop that goes on for 2^62 steps."""
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    step = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    again = helper.make_tensor_value_info("again", TensorProto.BOOL, [])
    nodes = [node("Identity", ["c"], "again"), node("Exp", ["s"], "t", name="exp")]
    body = helper.make_graph(
        nodes, "body", [step, condition, tensor("s", [2])], [again, tensor("t", [2])]
    )
    loop = node("Loop", ["steps", "true", "x"], "y", name="loop", body=body)
    constants = {"steps": np.array(2**62), "true": np.array(True)}  # noqa: FBT003 - an array
    return build_model([loop], X, Y, constants)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 3])
def test_a_signal_ends_a_model_that_does_not_end(tmp_path, door, number, times):
    onnx.save(endless_loop(), tmp_path / "model.onnx")
    words = ["rank", "model.onnx", "--save-ranking", "ranking.json", "-v"]

    with interruptible_layerprec(*words, door=door, folder=tmp_path) as process:
        assert any("Inputs are made up" in line for line in process.stdout)
        time.sleep(0.5)  # by then it is within ONNX-Runtime, or about to be
        for _ in range(times):
            process.send_signal(number)
        said, _ = process.communicate(timeout=LONGEST_SECONDS)

    assert process.returncode == 128 + number, said
    assert "Interrupted" in said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
