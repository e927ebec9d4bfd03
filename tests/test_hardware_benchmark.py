"""The benchmark beside a GPU, as far as a CPU can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime as ort
import pytest

from benchmarks import hardware
from benchmarks.transformer import EncoderShape, encoder_inputs, write_encoder
from polygraphy_layerprec.model import load_graph

if TYPE_CHECKING:
    from pathlib import Path

ENCODER = EncoderShape(1, 32, 4, 64, 100, seq=8, batch=2)


@pytest.fixture
def on_cpu(monkeypatch, tmp_path: Path) -> hardware.Hardware:
    monkeypatch.setattr(hardware, "_CUDA", "CPUExecutionProvider")
    monkeypatch.setattr(hardware, "_PROVIDERS", ("CPUExecutionProvider",))
    path = tmp_path / "encoder.onnx"
    write_encoder(path, ENCODER, external=False)
    return hardware.Hardware(path, encoder_inputs(ENCODER, 0))


def test_nothing_changes_with_every_layer_in_fp32(on_cpu: hardware.Hardware, tmp_path: Path):
    graph = load_graph(tmp_path / "encoder.onnx")
    every = {n for node in graph.layers for n in node.outputs}

    assert on_cpu.error(on_cpu.mixed(every)) == 0.0
    assert 0.0 < on_cpu.error(on_cpu.mixed(())) < 0.1


def test_time_is_taken_where_it_is_asked_for(on_cpu: hardware.Hardware):
    assert on_cpu.fp32.milliseconds > 0.0
    assert on_cpu.mixed(()).milliseconds == 0.0


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="there is a GPU"
)
def test_without_a_gpu_it_says_what_is_needed(monkeypatch):
    monkeypatch.setattr("sys.argv", ["hardware.py"])

    with pytest.raises(SystemExit, match="install onnxruntime-gpu"):
        hardware.main()
