"""The tools that quantise the models of `benchmarks/quantised.py`."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from benchmarks.peer_environment import peer_environment
from polygraphy_layerprec.emit.command_arguments import render_exclusions

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Constraint

__all__ = ["FloatModel", "Quantise", "Sample", "quantisers"]

Sample = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class FloatModel:
    """A float model with samples."""

    title: str
    path: Path
    samples: Sequence[Sample]


Quantise = Callable[[FloatModel, Path, "Sequence[Constraint]"], str]
"""Quantises a model into a file, some nodes left out; returns why it cannot, empty if it did."""


def quantisers(peers: Path | None) -> dict[str, Quantise]:
    """Returns the tools by name; ModelOpt is one where `peers` is the folder of its environment."""
    tools: dict[str, Quantise] = {
        "ONNX-Runtime": _with_onnxruntime,
        "ONNX-Runtime, inputs alone": _inputs_with_onnxruntime,
    }
    if peers is not None:
        environment = peer_environment(peers)
        for mode in ("int8", "fp8"):
            tools[f"ModelOpt {mode.upper()}"] = lambda model, target, left_out, mode=mode: (
                environment.problem
                or _with_modelopt(environment.python, model, target, left_out, mode)
            )
    return tools


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: Sequence[Sample]) -> None:
        self._left = iter(samples)

    def get_next(self) -> Sample | None:
        return next(self._left, None)


def _inputs_with_onnxruntime(
    model: FloatModel, target: Path, left_out: Sequence[Constraint]
) -> str:
    """Pairs stand in front of operators, and not behind them as well: excluded, one has none."""
    operators = sorted({node.op_type for node in onnx.load(model.path).graph.node})
    options = {"OpTypesToExcludeOutputQuantization": operators}
    return _with_onnxruntime(model, target, left_out, options)


def _with_onnxruntime(
    model: FloatModel,
    target: Path,
    left_out: Sequence[Constraint],
    options: Mapping[str, Any] = {},
) -> str:
    quantize_static(
        str(model.path),
        str(target),
        _Samples(model.samples),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[constraint.name for constraint in left_out],
        extra_options={"ActivationSymmetric": True, **options},
    )
    return ""


def _with_modelopt(
    python: Path, model: FloatModel, target: Path, left_out: Sequence[Constraint], mode: str
) -> str:
    data = target.with_suffix(".npz")
    np.savez(data, **model.samples[0])  # type: ignore[arg-type]
    command = [str(python), "-m", "modelopt.onnx.quantization", "--onnx_path", str(model.path)]
    command += ["--output_path", str(target), "--quantize_mode", mode]
    command += ["--calibration_data_path", str(data), "--calibration_method", "max"]
    command += ["--calibration_eps", "cpu", "--high_precision_dtype", "fp32"]
    command += shlex.split(render_exclusions(left_out))
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    said = (done.stderr or done.stdout).strip().splitlines() or [""]
    return "" if done.returncode == 0 and target.exists() else f"cannot quantise: {said[-1][:200]}"
