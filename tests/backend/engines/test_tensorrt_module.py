from __future__ import annotations

import types

import polygraphy.config
import pytest

from polygraphy_layerprec.backend.engines import tensorrt_module
from polygraphy_layerprec.execution import ExecutionError


@pytest.mark.parametrize(("use_rtx", "name"), [(False, "tensorrt"), (True, "tensorrt_rtx")])
def test_the_module_is_the_one_that_polygraphy_uses(monkeypatch, use_rtx, name):
    monkeypatch.setattr(polygraphy.config, "USE_TENSORRT_RTX", use_rtx, raising=False)
    monkeypatch.setattr(tensorrt_module.importlib, "import_module", lambda found: found)

    assert tensorrt_module.load_tensorrt() == name


def test_a_missing_tensorrt_is_an_error_that_says_what_to_do(monkeypatch):
    def fail(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(tensorrt_module.importlib, "import_module", fail)

    with pytest.raises(ExecutionError, match=r"pip install tensorrt-rtx[\s\S]*RTX=1[\s\S]*--build"):
        tensorrt_module.load_tensorrt()


def test_no_gpu_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(tensorrt_module, "count_gpus", lambda: 0)

    with pytest.raises(ExecutionError, match=r"No NVIDIA GPU[\s\S]*--backend emulated"):
        tensorrt_module.check_gpu()


@pytest.mark.parametrize(("results", "count"), [((0, 0), 2), ((100, 0), 0), ((0, 999), 0)])
def test_gpus_are_counted_by_the_driver(monkeypatch, results, count):
    def get_count(pointer):
        pointer._obj.value = 2
        return results[1]

    driver = types.SimpleNamespace(cuInit=lambda _: results[0], cuDeviceGetCount=get_count)
    monkeypatch.setattr(tensorrt_module.ctypes, "CDLL", lambda _: driver)

    assert tensorrt_module.count_gpus() == count


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    def fail(name):
        raise OSError(name)

    monkeypatch.setattr(tensorrt_module.ctypes, "CDLL", fail)

    assert tensorrt_module.count_gpus() == 0


def test_a_tensorrt_picks_precisions_if_layers_and_builder_know_them():
    layer = type("ILayer", (), {"precision": None})
    with_flag = types.SimpleNamespace(ILayer=layer, BuilderFlag=types.SimpleNamespace(FP16=0))
    without = types.SimpleNamespace(ILayer=layer, BuilderFlag=types.SimpleNamespace())

    assert tensorrt_module.picks_precisions(with_flag)
    assert not tensorrt_module.picks_precisions(without)


def test_a_gpu_is_described_by_name_and_capability(monkeypatch):
    def get_name(buffer, _size, _device):
        buffer.value = b"A GPU"
        return 0

    def get_attribute(pointer, attribute, _device):
        pointer._obj.value = {75: 8, 76: 9}[attribute]
        return 0

    def get_memory(pointer, _device):
        pointer._obj.value = 3 * 2**30
        return 0

    driver = types.SimpleNamespace(
        cuInit=lambda _: 0,
        cuDeviceGetName=get_name,
        cuDeviceGetAttribute=get_attribute,
        cuDeviceTotalMem_v2=get_memory,
    )
    monkeypatch.setattr(tensorrt_module.ctypes, "CDLL", lambda _: driver)

    assert tensorrt_module.describe_gpu() == "A GPU, compute capability 8.9"
    assert tensorrt_module.gpu_memory_bytes() == 3 * 2**30


def test_without_a_gpu_nothing_is_described(monkeypatch):
    driver = types.SimpleNamespace(cuInit=lambda _: 100)
    monkeypatch.setattr(tensorrt_module.ctypes, "CDLL", lambda _: driver)

    assert tensorrt_module.describe_gpu() == ""
    assert tensorrt_module.gpu_memory_bytes() is None
