"""Matrix products for the backward sweep, on ONNX-Runtime's kernels.

Those of numpy's BLAS start threads that go on spinning for milliseconds after each product, on the
cores that others want.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto, helper

from polygraphy_layerprec.arrays import library_of
from polygraphy_layerprec.divergence.rules.registry import numpy_product
from polygraphy_layerprec.execution.kernels.node_session import create_session, tensor_of
from polygraphy_layerprec.execution.kernels.sessions import RUN_OPTIONS, session_threads

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnxruntime as ort

__all__ = ["fast_product"]

_FEWEST_MULTIPLICATIONS: Final = 1 << 18  # below, BLAS starts no threads


def fast_product(
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    *,
    transpose_first: bool = False,
    transpose_second: bool = False,
) -> npt.NDArray[Any]:
    """Returns what `numpy_product` does, up to the order of summation."""
    if library_of(first) is not None:
        return numpy_product(
            first, second, transpose_first=transpose_first, transpose_second=transpose_second
        )
    transposed = {"transpose_first": transpose_first, "transpose_second": transpose_second}
    small = first.size * second.shape[-2 if transpose_second else -1] < _FEWEST_MULTIPLICATIONS
    if small or not first.dtype == second.dtype == np.float32:
        return numpy_product(first, second, **transposed)
    # By a binding, which takes a fraction of what a call with a dictionary does.
    session = _session(session_threads(), **transposed)
    binding = session.io_binding()
    binding.bind_ortvalue_input("a", tensor_of(first))
    binding.bind_ortvalue_input("b", tensor_of(second))
    binding.bind_output("y")
    session.run_with_iobinding(binding, RUN_OPTIONS)
    product: npt.NDArray[Any] = binding.get_outputs()[0].numpy()
    return product


@cache
def _session(
    _threads: int, *, transpose_first: bool, transpose_second: bool
) -> ort.InferenceSession:
    """A session for each number of threads, which it takes from around the call."""
    node = helper.make_node(
        "FusedMatMul",
        ["a", "b"],
        ["y"],
        domain="com.microsoft",
        transA=int(transpose_first),
        transB=int(transpose_second),
    )
    a, b, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "aby")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(
        helper.make_graph([node], "product", [a, b], [y]), opset_imports=opsets, ir_version=8
    )
    return create_session(model.SerializeToString())
