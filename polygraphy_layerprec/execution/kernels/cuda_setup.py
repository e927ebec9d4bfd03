"""Whether everything that runs nodes on a GPU is there and fits together, and what to do if not."""

from __future__ import annotations

import contextlib
import importlib
import io
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.execution.kernels.cuda_device import PROVIDER, CudaDevice
from polygraphy_layerprec.execution.kernels.sessions import RUN_OPTIONS, silence_native_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polygraphy_layerprec.execution.kernels.device import Device

__all__ = ["DeviceError", "device_errors", "open_gpu"]

_RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu")
_OTHERWISE: Final = "Or leave out `--providers cuda`, and the CPU runs the model."
_REPLACE: Final = (
    "Replace ONNX-Runtime: `pip uninstall -y onnxruntime onnxruntime-gpu`, then "
    "`pip install onnxruntime-gpu`."
)
_LIBRARY: Final = "cupy"
_OUT_OF_MEMORY: Final = "OutOfMemoryError"
_LEAST_BYTES: Final = 256 << 20
"""Of a GPU's memory: the libraries alone take about as much for themselves."""


class DeviceError(UserError):
    """No GPU can be used; the text says what is missing and what to do."""


def open_gpu(*, memory_bytes: int | None = None) -> CudaDevice:
    """Returns the first GPU that the CUDA driver offers, once a node has run on it.

    Args:
        memory_bytes: Memory of the GPU to use for weights and activations; None for what is free.

    Raises:
        DeviceError: If a part is missing or does not fit the others, or there is no GPU.
    """
    silence_native_log()  # of what it looks for and does not find
    _check_runtime()
    cupy = _import_cupy()
    _check_gpu(cupy)
    _load_libraries()
    with _in_words(cupy):
        device = CudaDevice(cupy, memory_bytes=memory_bytes)
        if device.free_bytes() < _LEAST_BYTES and memory_bytes is None:
            raise DeviceError(
                f"The GPU, {device.name}, has {device.free_bytes() >> 20} MiB of memory left.\n"
                f"End what else uses it, or choose another with CUDA_VISIBLE_DEVICES."
            )
        _run_a_node(device)
    return device


def _check_runtime() -> None:
    folders = {name: folder for name in _RUNTIMES if (folder := _folder_of(name)) is not None}
    if len(folders) > len(set(folders.values())):
        raise DeviceError(
            f"{' and '.join(folders)} are both installed, in one folder: each has overwritten "
            f"files of the other.\n{_REPLACE}"
        )
    if PROVIDER not in ort.get_available_providers():
        raise DeviceError(
            f"{next(iter(folders), 'onnxruntime')} {ort.__version__} has no {PROVIDER}, which runs "
            f"nodes on a GPU.\n{_REPLACE}\n{_OTHERWISE}"
        )


def _folder_of(name: str) -> str | None:
    """Where a package put what is imported as `onnxruntime`; None where it is not installed."""
    try:
        return str(distribution(name).locate_file("onnxruntime"))
    except PackageNotFoundError:
        return None


def _import_cupy() -> Any:
    major = _cuda_major()
    extra = f"gpu-cuda{major or 12}"
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceError(
            f"CuPy cannot be imported, which computes sums on a GPU: {_first_line(error)}\n"
            f"Install it: `pip install 'polygraphy-layerprec[{extra}]'`.\n{_OTHERWISE}"
        ) from error
    theirs = cupy.cuda.runtime.runtimeGetVersion() // 1000
    if major is not None and theirs != major:
        raise DeviceError(
            f"CuPy {cupy.__version__} is for CUDA {theirs}, onnxruntime-gpu {ort.__version__} for "
            f"CUDA {major}.\nInstall the one that fits: `pip install 'polygraphy-layerprec"
            f"[{extra}]'`, once `cupy-cuda{theirs}x` is uninstalled.\n{_OTHERWISE}"
        )
    return cupy


def _cuda_major() -> int | None:
    """Which CUDA this ONNX-Runtime was built with; None where it does not say."""
    version = str(getattr(ort, "cuda_version", "") or "")
    major = version.partition(".")[0]
    return int(major) if major.isdigit() else None


def _check_gpu(cupy: Any) -> None:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"The CUDA driver offers no GPU: {_first_line(error)}\n"
            f"Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or leave out `--providers cuda`."
        ) from error
    if not count:
        raise DeviceError(
            "The CUDA driver offers no GPU.\n"
            "Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or leave out `--providers cuda`."
        )


def _load_libraries() -> None:
    """Loads CUDA's libraries from their Python packages, where ONNX-Runtime does not look."""
    preload = getattr(ort, "preload_dlls", None)  # since 1.21
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            preload(msvc=False)


@contextlib.contextmanager
def _in_words(cupy: Any) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise DeviceError(
            f"The GPU's memory is taken: {_first_line(error)}\n"
            f"End what else uses it, or choose another with CUDA_VISIBLE_DEVICES."
        ) from error
    except Exception as error:  # CuPy and ONNX-Runtime raise a dozen types without a common base
        raise DeviceError(
            f"A GPU is there, and no node runs on it: {_first_line(error)}\n"
            f"Note: ONNX-Runtime {ort.__version__}, CuPy {cupy.__version__}. CUDA's libraries "
            f"and cuDNN come with `pip install 'onnxruntime-gpu[cuda,cudnn]'`.\n{_OTHERWISE}"
        ) from error


@contextlib.contextmanager
def device_errors(device: Device) -> Iterator[None]:
    """Says in words what a GPU fails at while a model runs on it.

    Raises:
        DeviceError: In place of such an error.
    """
    try:
        yield
    except Exception as error:
        is_memory = type(error).__name__ == _OUT_OF_MEMORY
        if not type(error).__module__.startswith(_LIBRARY):
            raise
        what = "has too little memory for this" if is_memory else "failed"
        remedy = (
            "Use fewer samples in a batch, or a lower `--max-memory`, which leaves more for the "
            "tensors of single nodes; or leave out `--providers cuda`."
            if is_memory
            else "Run it again, or leave out `--providers cuda`."
        )
        raise DeviceError(f"{device.name} {what}: {_first_line(error)}\n{remedy}") from error


def _run_a_node(device: CudaDevice) -> None:
    """Adds 1 to 1 on both sides, so that what is missing is found before any work begins."""
    with device.entered():
        values = device.array_from(np.ones(1, np.float32))
        session = device.create_session(_sum_model())
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", device.tensor_of(values))
        device.bind_output(binding, "y")
        session.run_with_iobinding(binding, RUN_OPTIONS)
        found = device.array_of(binding.get_outputs()[0]) + values
        if float(found[0]) != 3.0:
            raise RuntimeError(f"1 + 1 + 1 is {float(found[0])} there")


def _sum_model() -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "sum", ends[:1], ends[1:]
    )
    opsets = [helper.make_opsetid("", 13)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString())


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
