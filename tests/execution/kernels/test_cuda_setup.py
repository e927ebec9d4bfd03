"""What is said where a GPU cannot be used; that one can is shown by `tests/gpu`."""

from __future__ import annotations

import sys
import types
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import onnxruntime as ort
import pytest

from polygraphy_layerprec.execution.kernels import cuda_setup
from polygraphy_layerprec.execution.kernels.cuda_setup import DeviceError, device_errors, open_gpu
from tests.standin_device import StandInDevice

HAS_PROVIDER = "CUDAExecutionProvider" in ort.get_available_providers()


class CudaRuntimeError(RuntimeError):
    """What CuPy raises when the driver refuses."""


class OutOfMemoryError(MemoryError):
    """What CuPy raises when memory does not suffice."""


OutOfMemoryError.__module__ = CudaRuntimeError.__module__ = "cupy.cuda.memory"


def fake_cupy(*, version=13000, gpus=1):
    """CuPy as far as the checks see it; `gpus` may be an error."""

    def count():
        if isinstance(gpus, Exception):
            raise gpus
        return gpus

    runtime = types.SimpleNamespace(
        runtimeGetVersion=lambda: version, getDeviceCount=count, CUDARuntimeError=CudaRuntimeError
    )
    module = types.ModuleType("cupy")
    module.__version__ = "14.2.0"
    module.cuda = types.SimpleNamespace(runtime=runtime)
    return module


@pytest.fixture
def installed(monkeypatch):
    """Has these runtimes and providers be there, and this CuPy."""

    def install(
        *, runtimes=("onnxruntime-gpu",), apart=False, has_provider=True, cuda="13.0", cupy=None
    ) -> None:
        def find(name):
            if name not in runtimes:
                raise PackageNotFoundError(name)
            folder = Path(name) if apart else Path("site-packages")
            return types.SimpleNamespace(locate_file=folder.joinpath)

        providers = ["CUDAExecutionProvider"] * has_provider + ["CPUExecutionProvider"]
        monkeypatch.setattr(cuda_setup, "distribution", find)
        monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
        monkeypatch.setattr(ort, "cuda_version", cuda, raising=False)
        monkeypatch.setitem(sys.modules, "cupy", cupy)

    return install


@pytest.mark.skipif(HAS_PROVIDER, reason="this ONNX-Runtime has the CUDA provider")
def test_an_onnxruntime_without_cuda_says_which_package_has_it():
    with pytest.raises(DeviceError) as caught:
        open_gpu()

    assert "has no CUDAExecutionProvider" in str(caught.value)
    assert "pip install onnxruntime-gpu" in str(caught.value)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (
            {"runtimes": ("onnxruntime", "onnxruntime-gpu")},
            "onnxruntime and onnxruntime-gpu are both installed",
        ),
        (
            {
                "runtimes": ("onnxruntime", "onnxruntime-gpu"),
                "apart": True,
                "cupy": fake_cupy(gpus=0),
            },
            "offers no GPU",
        ),
        ({"has_provider": False}, f"onnxruntime-gpu {ort.__version__} has no CUDAExecutionProv"),
        ({"cupy": None}, r"pip install 'polygraphy-layerprec\[gpu-cuda13\]'"),
        ({"cupy": None, "cuda": "12.8"}, r"pip install 'polygraphy-layerprec\[gpu-cuda12\]'"),
        ({"cupy": None, "cuda": ""}, r"pip install 'polygraphy-layerprec\[gpu-cuda12\]'"),
        ({"cupy": fake_cupy(version=12080)}, "CuPy 14.2.0 is for CUDA 12, onnxruntime-gpu .* 13"),
        ({"cupy": fake_cupy(gpus=0)}, "offers no GPU.\nCheck `nvidia-smi`"),
        (
            {"cupy": fake_cupy(gpus=CudaRuntimeError("cudaErrorNoDevice: none"))},
            "offers no GPU: cudaErrorNoDevice: none",
        ),
        ({"cupy": fake_cupy()}, "A GPU is there, and no node runs on it: .*\nNote: .* CuPy 14.2"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(installed, there, message):
    installed(**there)

    with pytest.raises(DeviceError, match=message):
        open_gpu()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfMemoryError("wants 2 GiB"), "has too little memory for this: wants 2 GiB\nUse fewer"),
        (CudaRuntimeError("cudaErrorIllegalAddress"), "failed: cudaErrorIllegalAddress\nRun it"),
    ],
)
def test_what_a_gpu_fails_at_is_said_in_words(error, message):
    with pytest.raises(DeviceError, match=message), device_errors(StandInDevice()):
        raise error


def test_other_errors_are_not_the_gpu_s():
    with pytest.raises(ValueError, match="ours"), device_errors(StandInDevice()):
        raise ValueError("ours")
