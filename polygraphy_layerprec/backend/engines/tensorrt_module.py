"""Whichever TensorRT Polygraphy uses, and whether it can run anything here."""

from __future__ import annotations

import ctypes
import importlib
import sys
from typing import Any, Final

import polygraphy.config

from polygraphy_layerprec.execution.errors import ExecutionError

__all__ = [
    "check_gpu",
    "count_gpus",
    "describe_gpu",
    "gpu_memory_bytes",
    "load_tensorrt",
    "picks_precisions",
]

_NAME_BYTES: Final = 256
_CAPABILITY_ATTRIBUTES: Final = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


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
            f"Install TensorRT-RTX with `pip install tensorrt-rtx`, and set "
            f"POLYGRAPHY_USE_TENSORRT_RTX=1 in the environment; or install TensorRT, for example "
            f"with `pip install tensorrt`. Without it, use `--backend emulated`, and leave "
            f"out `--build`."
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
    driver = _driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def describe_gpu() -> str:
    """Returns the first GPU's name and compute capability; empty without one."""
    driver = _driver()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    if driver is None or driver.cuDeviceGetName(name, _NAME_BYTES, 0) != 0:
        return ""
    numbers = [ctypes.c_int(0) for _ in _CAPABILITY_ATTRIBUTES]
    for number, attribute in zip(numbers, _CAPABILITY_ATTRIBUTES, strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0)
    capability = ".".join(str(number.value) for number in numbers)
    return f"{name.value.decode(errors='replace')}, compute capability {capability}"


def gpu_memory_bytes() -> int | None:
    """Returns the memory of the first GPU; None without one."""
    driver = _driver()
    size = ctypes.c_size_t(0)
    if driver is None or driver.cuDeviceTotalMem_v2(ctypes.byref(size), 0) != 0:
        return None
    return size.value


def picks_precisions(trt: Any) -> bool:
    """Returns whether this TensorRT can choose the precision of layers itself (8.6 - 10.x)."""
    return hasattr(trt.ILayer, "precision") and hasattr(trt.BuilderFlag, "FP16")


def _driver() -> Any:
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None
