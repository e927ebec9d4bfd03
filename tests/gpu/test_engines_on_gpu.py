"""Emulated against real engines, end to end. The bounds are expectations: see docs/engines.md."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from benchmarks.models import write_resnet
from benchmarks.transformer import BERT_BASE, EncoderShape, encoder_inputs, write_encoder
from polygraphy_layerprec.files.ranking_file import load_ranking
from polygraphy_layerprec.ranking.correlation import rank_correlation
from tests.processes import MODULE_DOOR, run_command

if TYPE_CHECKING:
    from pathlib import Path

    from polygraphy_layerprec.records import Ranking

pytestmark = pytest.mark.usefixtures("gpu")

MINILM = EncoderShape(6, 384, 12, 1536, 30522)
LEAST_CORRELATION = 0.7
LARGEST_RATIO = 3.0
"""FP16 noise is chaotic: fused layers round less often, and in another order."""


def image(seed: int) -> dict[str, np.ndarray]:
    """Returns an image for `write_resnet`."""
    pixels = np.random.default_rng(seed).normal(size=(1, 3, 224, 224))
    return {"input": pixels.astype(np.float32)}


CASES = {
    "MiniLM": (
        lambda path: write_encoder(path, MINILM, external=False),
        lambda seed: encoder_inputs(MINILM, seed),
    ),
    "CNN": (
        lambda path: write_resnet(path, external=False, blocks=(2, 2, 2, 2), width=32),
        image,
    ),
    "BERT-base": (
        lambda path: write_encoder(path, BERT_BASE, external=False),
        lambda seed: encoder_inputs(BERT_BASE, seed),
    ),
}


class Measured(NamedTuple):
    """A model's folder, and what was found."""

    folder: Path
    emulated: Ranking
    engine: Ranking


def layerprec(folder: Path, *arguments: str) -> str:
    """Runs a subtool that must pass, and returns what it says."""
    done = run_command(
        [sys.executable, *MODULE_DOOR, *arguments], folder, {"POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=CASES)
def measured(request, gpu, tmp_path_factory) -> Measured:  # noqa: ARG001 - skips before any work
    folder = tmp_path_factory.mktemp("engines")
    write, sample = CASES[request.param]
    write(folder / "model.onnx")
    for seed in range(2):
        np.savez(folder / f"inputs{seed}.npz", **sample(seed))
    inputs = ("model.onnx", "--load-inputs", "inputs0.npz", "inputs1.npz")
    layerprec(folder, "rank", *inputs, "--save-ranking", "emulated.json")
    layerprec(folder, "rank", *inputs, "--trt", "--work-dir", "work", "--save-ranking", "trt.json")
    return Measured(
        folder, load_ranking(folder / "emulated.json"), load_ranking(folder / "trt.json")
    )


def test_fp32_agrees_with_onnxruntime(measured):
    assert not [text for text in measured.engine.warnings if "FP32 on TensorRT" in text]


def test_divergences_are_in_the_order_that_the_emulation_forecasts(measured, record_property):
    emulated = {layer.name: layer.cumulative_error for layer in measured.emulated.layers}
    pairs = [
        (emulated[layer.name], layer.cumulative_error)
        for layer in measured.engine.layers
        if layer.cumulative_error is not None and emulated[layer.name] is not None
    ]

    correlation = rank_correlation(*zip(*pairs, strict=True))

    record_property("layers", len(pairs))
    record_property("rank_correlation", correlation)
    assert len(pairs) > 0.8 * len(measured.engine.layers)
    assert correlation > LEAST_CORRELATION


def test_the_output_error_is_of_the_size_that_the_emulation_forecasts(measured, record_property):
    ratio = measured.engine.output_error.measured / measured.emulated.output_error.measured

    record_property("output_error_ratio", ratio)
    assert 1 / LARGEST_RATIO < ratio < LARGEST_RATIO


def test_half_of_the_layers_in_fp32_lower_the_error(measured, record_property):
    said = layerprec(
        measured.folder, "verify", "model.onnx", "--load-inputs", "inputs0.npz", "inputs1.npz",
        "--ranking", "emulated.json", "--top-k", f"{len(measured.emulated.layers) // 2}",
        "--backend", "tensorrt", "--work-dir", "work",
        "--tolerance", f"{measured.engine.output_error.measured}",
    )  # fmt: skip

    record_property("verification", said)  # with the latency and the size of each engine
    assert "on TensorRT engines" in said


def test_debug_tensors_leave_the_engine_as_it_is(measured):
    layerprec(
        measured.folder, "rank", "model.onnx", "--load-inputs", "inputs0.npz", "--trt",
        "--mark-unfused-tensors-as-debug-tensors", "--save-ranking", "debug.json",
    )  # fmt: skip

    ranking = load_ranking(measured.folder / "debug.json")
    assert not [text for text in ranking.warnings if "Marking tensors changes" in text]
    assert any(layer.cumulative_error is not None for layer in ranking.layers)
