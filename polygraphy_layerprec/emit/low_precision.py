"""FP16 and BF16 as TensorRT wants weights in them.

This text is also part of every emitted script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from polygraphy_layerprec.emit.network_view import NetworkError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["LowPrecision", "convert_weights", "find_low_precision"]


class LowPrecision(NamedTuple):
    """A precision, and how TensorRT calls it."""

    name: str
    """`fp16` or `bf16`."""

    dtype: Any
    """The member of `tensorrt.DataType`."""

    max_finite: float
    """Largest finite number."""


_FORMATS = {"fp16": ("float16", 65504.0), "bf16": ("bfloat16", float.fromhex("0x1.fep127"))}


def find_low_precision(name: str, trt: Any) -> LowPrecision:
    """Returns the precision called `fp16` or `bf16`.

    Raises:
        NetworkError: If this TensorRT does not have it.
    """
    attribute, max_finite = _FORMATS[name]
    if not hasattr(trt, attribute):
        raise NetworkError(f"this TensorRT has no {attribute}")
    return LowPrecision(name, getattr(trt, attribute), max_finite)


def convert_weights(values: npt.NDArray[np.float32], precision: LowPrecision) -> npt.NDArray[Any]:
    """Returns weights rounded to nearest even; float16, or the bits of bfloat16 as uint16.

    Finite numbers beyond the range become the largest finite one: masks of -3.4e38 would become
    infinite otherwise, and their sums NaN.
    """
    limited = values
    # Most weights are in range, and looking is several times cheaper than limiting. A NaN is not.
    if not (
        values.min(initial=0.0) >= -precision.max_finite
        and values.max(initial=0.0) <= precision.max_finite
    ):
        limited = np.clip(values, -precision.max_finite, precision.max_finite)
        limited = np.where(np.isinf(values), values, limited).astype(np.float32)
    if precision.name == "fp16":
        return limited.astype(np.float16)
    bits = limited.view(np.uint32)
    last_kept_bit = (bits >> np.uint32(16)) & np.uint32(1)
    rounded: npt.NDArray[Any] = (bits + np.uint32(0x7FFF) + last_kept_bit) >> np.uint32(16)
    rounded[np.isnan(limited)] = 0x7FC0
    return rounded.astype(np.uint16)
