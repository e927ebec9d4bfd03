"""Proof, before anything is measured, that low precision is emulated and not optimised away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from polygraphy_layerprec.execution.emulation.emulated import EmulatedExecutor
from polygraphy_layerprec.execution.errors import EmulationError
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.plan import Planner
from polygraphy_layerprec.precision import FP16

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.execution.emulation.node_comparer import NodeRun

__all__ = ["check_emulation", "check_runtime_version"]

_OLDEST_RUNTIME: Final = (1, 17)
_HALF_TO_INFINITY: Final = 65520.0  # halfway between the largest finite FP16 number and 2**16
_SMALL: Final = 0.01
_OFFSET: Final = 400.0  # numbers near 400 are 0.25 apart in FP16, so adding it loses 0.01


def check_runtime_version(version: str = ort.__version__) -> None:
    """Checks that ONNX-Runtime is new enough.

    Raises:
        EmulationError: If it is older than 1.17, which removes pairs of casts.
    """
    found = tuple(int(part) for part in version.split(".")[:2])
    if found < _OLDEST_RUNTIME:
        raise EmulationError(
            f"ONNX-Runtime {version} is too old to emulate low precision: it removes the casts "
            f"that round.\nInstall 1.17 or newer: `pip install -U 'onnxruntime>=1.17'`."
        )


def check_emulation() -> None:
    """Checks rounding at the edges of FP16, and that a cancellation comes out 100 % wrong.

    Raises:
        EmulationError: If this ONNX-Runtime computes something else.
    """
    check_runtime_version()
    given = np.array([_HALF_TO_INFINITY, 2.0**-25, 1.0 + 2.0**-11, 1.0 + 3 * 2.0**-11], np.float32)
    expected = np.array([np.inf, 0.0, 1.0, 1.0 + 2.0**-9], np.float32)
    found = _cast_pair(given)
    if not np.array_equal(found, expected):
        raise _failure(f"casting {given.tolist()} to FP16 and back gave {found.tolist()}")
    error = _cancellation_error()
    if not (0.9 < error < 1.1):
        raise _failure(f"(x + 400) - 400 for x = 0.01 is off by {error:.0%} instead of 100 %")


def _failure(what: str) -> EmulationError:
    return EmulationError(
        f"ONNX-Runtime {ort.__version__} does not emulate low precision faithfully: {what}.\n"
        f"Nothing measured with it would be true. Install another version of onnxruntime."
    )


def _cast_pair(values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["low"], ["y"], to=TensorProto.FLOAT),
    ]
    session = ort.InferenceSession(
        _model(nodes).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": values})[0])


def _cancellation_error() -> float:
    nodes = [
        helper.make_node("Add", ["x", "offset"], ["large"]),
        helper.make_node("Sub", ["large", "offset"], ["y"]),
    ]
    offset = helper.make_tensor("offset", TensorProto.FLOAT, [], [_OFFSET])
    model = _model(nodes, [offset])
    executor = EmulatedExecutor(Planner(load_graph(model), FP16).plan())
    errors: list[float | None] = []

    def observe(node_run: NodeRun) -> None:
        if node_run.sums is not None:
            errors.append(node_run.sums.cumulative_error)

    executor.compare({"x": np.full(8, _SMALL, np.float32)}, observe)
    return errors[-1] or 0.0


def _model(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto] | None = None
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "canary",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        weights or [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
