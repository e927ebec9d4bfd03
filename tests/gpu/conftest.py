"""A GPU that runs engines, or nodes for the emulation; without it the tests are skipped."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from polygraphy_layerprec.backend.engines.tensorrt_module import count_gpus
from polygraphy_layerprec.execution.kernels.cuda_device import CudaDevice
from polygraphy_layerprec.execution.kernels.cuda_setup import DeviceError, open_gpu
from tests.processes import run_command

# The smallest program that runs an engine: what it says when it fails is why tests are skipped.
PROBE = """
import numpy as np
from polygraphy.backend.trt import CreateNetwork, EngineBytesFromNetwork, EngineFromBytes, TrtRunner
import tensorrt_rtx as trt

builder, network = CreateNetwork()()
x = network.add_input("x", trt.float32, (1,))
y = network.add_elementwise(x, x, trt.ElementWiseOperation.SUM).get_output(0)
y.name = "y"
network.mark_output(y)
plan = EngineBytesFromNetwork((builder, network))()
with TrtRunner(EngineFromBytes(plan)) as runner:
    assert runner.infer({"x": np.float32([21])})["y"][0] == 42
"""


@pytest.fixture(scope="session")
def gpu(tmp_path_factory) -> None:
    """Skips the test where no engine runs."""
    if count_gpus() == 0 or importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("needs a GPU and TensorRT-RTX")
    done = run_command(
        [sys.executable, "-c", PROBE],
        tmp_path_factory.mktemp("probe"),
        {"POLYGRAPHY_USE_TENSORRT_RTX": "1"},
    )
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.startswith("[E]")]
        pytest.skip(f"no engine runs here: {' '.join(said) or done.stderr[-500:]}")


@pytest.fixture(scope="session")
def cuda() -> CudaDevice:
    """A GPU that runs nodes; skips the test where there is none, or a part of what it takes."""
    if count_gpus() == 0:
        pytest.skip("needs a GPU")
    try:
        return open_gpu()
    except DeviceError as error:
        pytest.skip(" ".join(str(error).splitlines()))


@pytest.fixture
def cupy(cuda: CudaDevice) -> Any:  # noqa: ARG001 - skips the test where it does
    """CuPy, where the GPU runs nodes."""
    return importlib.import_module("cupy")


def pytest_collection_modifyitems(items) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
