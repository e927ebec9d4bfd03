"""Writes a classifier, a detector and a recogniser of text, each with ten labelled samples.

Each ends in a residual that adds 900 and takes it away again, which costs FP16 nearly all it has.
The labels are what the model finds in FP32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from word_error_rate import decode

__all__ = ["main"]

WIDTH, SAMPLES = 16, 10


def main() -> None:
    """Writes models and folders of samples to the working folder."""
    write("classifier", [8, 10], label_class)
    write("detector", [12, 6], label_boxes)
    write("recogniser", [60, 28], label_text)


def write(name: str, shape: list[int], label: Any) -> None:
    """Writes a model whose output has a shape, and its samples."""
    generator = np.random.default_rng(0)
    weights = {
        "weight": generator.standard_normal((WIDTH, shape[1])).astype(np.float32),
        "large": np.float32(900.0),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["found"], name="/project/MatMul"),
        helper.make_node("Add", ["found", "large"], ["shifted"], name="/shift/Add"),
        helper.make_node("Sub", ["shifted", "large"], ["y"], name="/shift/Sub"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [shape[0], WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    initializers = [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, name, [x], [y], initializers)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), f"{name}.onnx")
    session = ort.InferenceSession(f"{name}.onnx", providers=["CPUExecutionProvider"])
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    for index in range(SAMPLES):
        inputs = {"x": generator.standard_normal((shape[0], WIDTH)).astype(np.float32)}
        (output,) = session.run(None, inputs)
        np.savez(folder / f"{index:02}.npz", **inputs, **label(output))


def label_class(output: np.ndarray) -> dict[str, np.ndarray]:
    """The class of each row."""
    return {"label": output.argmax(axis=-1)}


def label_boxes(output: np.ndarray) -> dict[str, np.ndarray]:
    """Two corners and a class for each row."""
    corners = np.sort(output[:, :4].reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    return {"boxes": corners, "classes": output[:, 5].round()}


def label_text(output: np.ndarray) -> dict[str, np.ndarray]:
    """What is read."""
    return {"text": np.array(" ".join(decode(output)))}


if __name__ == "__main__":
    main()
