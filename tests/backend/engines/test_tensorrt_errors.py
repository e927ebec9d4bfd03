"""What becomes of TensorRT's messages; the texts were seen, or are of its documentation."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.backend.engines.specs import EngineError
from polygraphy_layerprec.backend.engines.tensorrt_errors import (
    engine_failures,
    explain,
    recorded_messages,
)

TRT = SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7.1.116")

UNSUPPORTED = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Internal Error (The engine cannot run on this "
    "GPU, which has compute capability 9.0. Supported compute capabilities: 8.0 8.6 8.9 12.0 12.1 "
    ">12.0)"
)


def test_a_gpu_that_is_not_supported_is_told_by_its_capability():
    said = explain("load the reference engine", [UNSUPPORTED, "Could not deserialize engine."], TRT)

    assert "tensorrt_rtx 1.7.1.116 cannot load the reference engine" in said
    assert (
        "has compute capability 9.0, and this TensorRT runs on: 8.0, 8.6, 8.9, 12.0, 12.1, >12.0"
        in said
    )
    assert "--backend emulated" in said
    assert "POLYGRAPHY_USE_TENSORRT_RTX" in said


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 123 bytes.)", "--max-memory"),
        ("Cuda Runtime (out of memory)", "--max-memory"),
        ("(cudaError 35: CUDA driver version is insufficient for CUDA runtime version)", "driver"),
        ("The engine plan file is not compatible with this version of TensorRT", "--work-dir"),
        ("getPluginCreator could not find plugin: Foo version: 1", "--plugins"),
        ("Network has dynamic inputs, but no optimization profile", "--trt-min-shapes"),
    ],
)
def test_each_cause_comes_with_what_to_do(message, advice):
    said = explain("build the lowered engine", [message], TRT)

    assert advice in said
    assert message in said


def test_an_unknown_cause_is_quoted():
    said = explain("build the lowered engine", ["a", "b", "c", "d"], TRT)

    assert "It says: a; b; c\n" in said


def test_messages_of_the_log_become_part_of_the_error():
    def load() -> None:
        G_LOGGER.error(UNSUPPORTED)
        G_LOGGER.critical("Could not deserialize engine. See log for details.")

    with pytest.raises(EngineError, match=r"compute capability 9\.0"), engine_failures("x", TRT):
        load()


def test_running_out_of_memory_becomes_an_error():
    with pytest.raises(EngineError, match="--max-memory"), engine_failures("x", TRT):
        raise MemoryError


def test_other_errors_pass():
    with pytest.raises(KeyError), engine_failures("x", TRT):
        raise KeyError


def test_the_log_is_recorded_only_meanwhile(capsys):
    recorded = partial(recorded_messages, "error", lambda message: message != "other")
    with recorded() as outer, recorded() as inner:
        G_LOGGER.error("other")
        G_LOGGER.error("one")
    G_LOGGER.error("two")

    assert inner == outer == ["one"]
    assert "two" in "".join(capsys.readouterr())
