"""Whichever TensorRT Polygraphy uses, and whether it can run anything here."""

from __future__ import annotations

import ctypes
import importlib
import sys
from typing import Any

import polygraphy.config

from polygraphy_layerprec.execution.errors import ExecutionError

__all__ = ["check_gpu", "count_gpus", "load_tensorrt", "picks_precisions"]


def load_tensorrt() -> Any:
    """Returns the module `tensorrt`, or `tensorrt_rtx` where Polygraphy was told to use that.

    Raises:
        ExecutionError: If it is not installed, or does not load.
    """
    name = "tensorrt_rtx" if getattr(polygraphy.config, "USE_TENSORRT_RTX", False) else "tensorrt"
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExecutionError(
            f"TensorRT cannot be used: {error}.\n"
            f"Install it, for example with `pip install {name.replace('_', '-')}`; for "
            f"TensorRT-RTX also set POLYGRAPHY_USE_TENSORRT_RTX=1 in the environment. Without "
            f"TensorRT, use `--backend emulated`."
        ) from error


def check_gpu() -> None:
    """Checks that there is a GPU to run engines on.

    Raises:
        ExecutionError: If there is none.
    """
    if count_gpus() == 0:
        raise ExecutionError(
            "No NVIDIA GPU can be used, and engines cannot run without one.\n"
            "Run this on a machine with a GPU and its driver, or use `--backend emulated`."
        )


def count_gpus() -> int:
    """Returns how many GPUs the CUDA driver offers; 0 without a driver."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def picks_precisions(trt: Any) -> bool:
    """Returns whether this TensorRT can choose the precision of layers itself (8.6 - 10.x)."""
    return hasattr(trt.ILayer, "precision") and hasattr(trt.BuilderFlag, "FP16")
