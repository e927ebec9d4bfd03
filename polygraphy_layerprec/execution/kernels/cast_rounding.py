"""Rounding by ONNX-Runtime's own casts, where these are quicker than numpy's arithmetic."""

from __future__ import annotations

import math
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto, helper

from polygraphy_layerprec.execution.kernels.device import current_device
from polygraphy_layerprec.execution.kernels.node_session import create_session, tensor_of, value_of
from polygraphy_layerprec.execution.kernels.sessions import threads_per_session
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.rounding import round_flat, round_to_precision

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnxruntime as ort

    from polygraphy_layerprec.precision import Precision

__all__ = ["CastRounder"]

_CAST_TYPES: Final = {FP16.name: TensorProto.FLOAT16}
_ELEMENTS_AT_ONCE: Final = 1 << 20  # the casts' own memory stays small
_FEWEST_ELEMENTS: Final = 1 << 14  # below, a call costs more than the casts save


class CastRounder:
    """Rounds whole tensors, by casts where that is quicker."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self._casts = _quicker_casts(precision)

    def round_weight(
        self, values: npt.NDArray[Any], largest: float, *, out: npt.NDArray[Any]
    ) -> None:
        """Rounds a contiguous array of FP32 or FP64, clipping what is beyond the range.

        Args:
            values: Any shape. NaN and infinities stay.
            largest: Largest finite magnitude among the values.
            out: Where to write them, of the same shape and type; may be `values`.
        """
        flat, target = values.reshape(-1), out.reshape(-1)
        # The casts would make an infinity of what is to be clipped.
        suits = flat.dtype == np.float32 and flat.size >= _FEWEST_ELEMENTS
        if self._casts is None or not suits or largest > self.precision.max_finite:
            round_flat(flat, target, self.precision, saturate=True)
            return
        for first in range(0, flat.size, _ELEMENTS_AT_ONCE):
            part = slice(first, first + _ELEMENTS_AT_ONCE)
            _cast(self._casts, tensor_of(flat[part]), out=tensor_of(target[part]))

    def round_in_place(self, tensor: ort.OrtValue) -> bool:
        """Rounds a tensor in its own memory, if casts suit it; otherwise returns False."""
        if self._is_there(tensor):
            values = value_of(tensor)
            round_flat(values.reshape(-1), values.reshape(-1), self.precision)
            return True
        if self._casts is None or not _is_large_fp32(tensor):
            return False
        _cast(self._casts, tensor, out=tensor)
        return True

    def rounded(self, tensor: ort.OrtValue) -> ort.OrtValue | None:
        """Returns a rounded copy, or None where casts do not suit."""
        if self._is_there(tensor):
            return tensor_of(round_to_precision(value_of(tensor), self.precision))
        if self._casts is None or not _is_large_fp32(tensor):
            return None
        return _cast(self._casts, tensor)

    @staticmethod
    def _is_there(tensor: ort.OrtValue) -> bool:
        device = current_device()
        return device is not None and device.holds(tensor)


def _is_large_fp32(tensor: ort.OrtValue) -> bool:
    if tensor.data_type() != "tensor(float)":
        return False
    return bool(math.prod(tensor.shape()) >= _FEWEST_ELEMENTS)


@cache
def _quicker_casts(precision: Precision) -> ort.InferenceSession | None:
    """A session that rounds by two casts, or None where it is slower, as in old ONNX-Runtimes.

    Both ways give the same bits, so nothing but time depends on the clock.
    """
    if precision.name not in _CAST_TYPES:
        return None
    with threads_per_session(1):  # what takes so little time is not worth waking others up
        session = create_session(_cast_pair(_CAST_TYPES[precision.name]))
    values = np.linspace(-1, 1, _FEWEST_ELEMENTS, dtype=np.float32)
    tensor = tensor_of(values)
    _cast(session, tensor, out=tensor)
    start = time.perf_counter()
    _cast(session, tensor, out=tensor)
    between = time.perf_counter()
    round_flat(values, values, precision, saturate=True)
    return session if between - start < time.perf_counter() - between else None


def _cast(
    session: ort.InferenceSession, tensor: ort.OrtValue, *, out: ort.OrtValue | None = None
) -> ort.OrtValue:
    """Rounds to memory of its own or to `out`, which may be `tensor`: the casts come in turn."""
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", tensor)
    if out is None:
        binding.bind_output("y")
    else:
        binding.bind_ortvalue_output("y", out)
    session.run_with_iobinding(binding)
    return out or binding.get_outputs()[0]


def _cast_pair(low: int) -> bytes:
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], to=low),
        helper.make_node("Cast", ["low"], ["y"], to=TensorProto.FLOAT),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "rounding",
        [value("x", TensorProto.FLOAT, None)],
        [value("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    serialized: bytes = model.SerializeToString()
    return serialized
