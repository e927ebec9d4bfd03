"""Models whose tensors hold what numpy lacks, through the verbs in real processes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.models import build_model, node, normal, tensor
from tests.processes import run_layerprec

pytestmark = pytest.mark.onnxrt


def few_bits():
    """Returns y = x · W with W in INT4, and a sample."""
    few = onnx.helper.tensor_dtype_to_np_dtype(TensorProto.INT4)
    weight = np.random.default_rng(0).integers(-7, 8, (16, 8)).astype(few)
    nodes = [
        node("DequantizeLinear", ["w", "scale"], "d", name="dequantize"),
        node("MatMul", ["x", "d"], "y", name="layer"),
    ]
    model = build_model(nodes, [tensor("x", [4, 16])], [tensor("y", [4, 8])], opset=21)
    model.ir_version = 10
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.11), "scale"))
    return model, {"x": normal(1, 4, 16)}


def text():
    """Returns y = (text == constant) + x, and a sample."""
    nodes = [
        node("Equal", ["text", "words"], "same", name="equal"),
        node("Cast", ["same"], "number", name="cast", to=TensorProto.FLOAT),
        node("Add", ["number", "x"], "y", name="layer"),
    ]
    inputs = [tensor("text", [2], TensorProto.STRING), tensor("x", [2])]
    words = {"words": np.array(["alpha", "beta"], object)}
    model = build_model(nodes, inputs, [tensor("y", [2])], words, opset=19)
    return model, {"text": np.array(["alpha", "gamma"]), "x": np.float32([1.1, 2.2])}


@pytest.mark.slow
@pytest.mark.parametrize("make", [few_bits, text])
def test_every_verb_takes_the_model(tmp_path, make):
    model, sample = make()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **sample)
    ranked = ["--save-ranking", "ranking.json", "--save-onnx", "mixed.onnx", "--tolerance", "1e-9"]
    measured = ["--model", "model.onnx", "--load-inputs", "inputs.npz", "--tolerance", "1e-9"]
    commands = [
        ["rank", "model.onnx", "--load-inputs", "inputs.npz", *ranked],
        ["constrain", "ranking.json", *measured, "--save-script", "script.py"],
        ["inspect", "script.py", "--model", "model.onnx"],
        ["verify", "model.onnx", "--load-inputs", "inputs.npz", "--script", "script.py"],
        ["verify", "model.onnx", "--load-inputs", "inputs.npz", "--mixed-onnx", "mixed.onnx"],
    ]

    for command in commands:
        limit = ["--tolerance", "1e-9"] if command[0] == "verify" else []
        done = run_layerprec(*command, *limit, folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
