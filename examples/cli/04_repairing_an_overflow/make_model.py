"""Writes `model.onnx`, attention that scales its scores late, and inputs for it.

The scores of queries and keys are divided by the root of the width only after the product, which
is larger than the largest number of FP16: infinite scores minus their infinite maximum are NaN.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["main"]

TOKENS, WIDTH, SPREAD = 8, 64, 80.0
"""Queries and keys of this spread give scores near sqrt(WIDTH) * SPREAD**2 = 51,000 and more."""


def main() -> None:
    """Writes both files to the working folder."""
    generator = np.random.default_rng(0)
    weights = {
        "query.weight": generator.standard_normal((WIDTH, WIDTH)) * SPREAD / WIDTH**0.5,
        "key.weight": generator.standard_normal((WIDTH, WIDTH)) * SPREAD / WIDTH**0.5,
        "scale": np.array(SPREAD**2 * WIDTH**0.5),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "query.weight"], ["query"], name="/query/MatMul"),
        helper.make_node("MatMul", ["x", "key.weight"], ["key"], name="/key/MatMul"),
        helper.make_node("Transpose", ["key"], ["turned"], name="/key/Transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["query", "turned"], ["scores"], name="/scores/MatMul"),
        helper.make_node("Div", ["scores", "scale"], ["scaled"], name="/scores/Div"),
        helper.make_node("Softmax", ["scaled"], ["shares"], name="/Softmax", axis=-1),
        helper.make_node("MatMul", ["shares", "x"], ["y"], name="/values/MatMul"),
    ]
    shapes = {name: [TOKENS, WIDTH] for name in ("x", "y")}
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    initializers = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "attention", [x], [y], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    np.savez("inputs.npz", x=generator.standard_normal((TOKENS, WIDTH)).astype(np.float32))


if __name__ == "__main__":
    main()
