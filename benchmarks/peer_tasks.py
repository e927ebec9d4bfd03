"""What the peers do, in their own environment: only they, ONNX and numpy are installed there."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from modelopt.onnx.autocast import convert_to_mixed_precision
from onnxconverter_common.auto_mixed_precision import auto_convert_mixed_precision
from onnxconverter_common.float16 import convert_float_to_float16
from onnxruntime.transformers.float16 import (
    convert_float_to_float16 as convert_by_onnxruntime,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "auto_mixed_precision",
    "autocast",
    "autocast_keeping",
    "converter_float16",
    "onnxruntime_float16",
]

_RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE = 0.01, 0.001


def autocast(model: str, sample: str, output: str) -> None:
    """Writes what ModelOpt AutoCast makes of `model`, with its own defaults and real input."""
    converted = convert_to_mixed_precision(
        onnx_path=model, keep_io_types=True, calibration_data=sample
    )
    onnx.save(converted, output)


def autocast_keeping(model: str, output: str, kept: Sequence[str]) -> None:
    """Writes what ModelOpt AutoCast makes of `model` when it is told which nodes stay in FP32."""
    converted = convert_to_mixed_precision(
        onnx_path=model,
        keep_io_types=True,
        data_max=float("inf"),
        nodes_to_exclude=[f"^{re.escape(name)}$" for name in kept],
    )
    onnx.save(converted, output)


def auto_mixed_precision(model: str, sample: str, output: str) -> None:
    """Writes what onnxconverter-common makes of `model`, with the tolerances of its example."""
    with np.load(sample, allow_pickle=False) as arrays:
        feed: dict[str, Any] = dict(arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = auto_convert_mixed_precision(
            onnx.load(model),
            feed,
            rtol=_RELATIVE_TOLERANCE,
            atol=_ABSOLUTE_TOLERANCE,
            keep_io_types=True,
        )
    if converted is None:
        raise RuntimeError("no mixed-precision model passed its own check")
    onnx.save(converted, output)


def converter_float16(model: str, output: str) -> None:
    """Writes what onnxconverter-common's plain conversion makes of `model`, defaults untouched."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = convert_float_to_float16(onnx.load(model), keep_io_types=True)
    onnx.save(converted, output)


def onnxruntime_float16(model: str, output: str) -> None:
    """Writes what ONNX-Runtime's conversion for transformers makes of `model`."""
    onnx.save(convert_by_onnxruntime(onnx.load(model), keep_io_types=True), output)
