"""One model through every verb, each a process of its own, and beside an FP16 of other make."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.cast_pairs import with_cast_pairs
from benchmarks.orders import spearman
from polygraphy_layerprec.files.ranking_file import load_ranking

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from polygraphy_layerprec.records import Ranking

__all__ = ["ModelRuns", "Outcome"]

Arrays = dict[str, "npt.NDArray[Any]"]

_MOST_EXACT_LAYERS: Final = 250
_LAYERPREC: Final = (sys.executable, "-m", "polygraphy_layerprec")
_MAIN: Final = "import sys; from polygraphy.tools import main; sys.exit(main())"
_POLYGRAPHY: Final = (sys.executable, "-c", _MAIN)
_VERIFIED: Final = re.compile(r"^ *\(all\) +\S+ +(\S+) +(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step."""

    text: str
    """The cell of the table."""

    problem: str = ""
    """The end of an error, for whoever watches."""

    said: str = ""
    """What the command printed, if it ended well."""


class ModelRuns:
    """The steps, in the order of the table; a later one may need the files of an earlier one."""

    def __init__(self, model: Path, folder: Path, *, timeout_seconds: float) -> None:
        """Stores where the model is; `sample.npz` in `folder` is its sample."""
        self._model = model
        self._folder = folder
        self._timeout_seconds = timeout_seconds

    @property
    def layer_count(self) -> int:
        """Layers of the ranking with data, 0 if there is none."""
        return len(self._ranking.layers) if self._ranking else 0

    def rank_alone(self) -> Outcome:
        """Ranks without data."""
        path = self._folder / "alone.json"
        outcome = self._run(*_LAYERPREC, "rank", self._model, "--save-ranking", path)
        if not path.exists():
            return outcome
        error = load_ranking(path).output_error.measured
        return Outcome(f"{outcome.text}, {error:.1e}", outcome.problem)

    def rank_with_data(self) -> Outcome:
        """Ranks with the sample, and saves a ranking, a script and a mixed model."""
        outcome = self._run(
            *(*_LAYERPREC, "rank", self._model, "--load-inputs", self._folder / "sample.npz"),
            *("--save-ranking", self._folder / "ranking.json"),
            *("--save-script", self._folder / "constraints.py"),
            *("--save-onnx", self._folder / "mixed.onnx"),
        )
        if self._ranking is None:
            return outcome
        error = self._ranking.output_error
        figures = f"{error.measured:.1e} (forecast {error.forecast:.1e})"
        return Outcome(f"{outcome.text}, {figures}", outcome.problem)

    def build_engine(self) -> Outcome:
        """Builds the plain model with the script, in TensorRT-RTX, for the sample's shapes.

        What TensorRT does not build without the script either is told as such.
        """
        engine = self._folder / "model.engine"
        shapes = [f"{name}:{list(a.shape)}".replace(" ", "") for name, a in self._sample.items()]
        dynamic = self._open_inputs()
        shapes = [shape for shape in shapes if shape.rpartition(":")[0] in dynamic]
        profiles = [
            word
            for option in ("--trt-min-shapes", "--trt-opt-shapes", "--trt-max-shapes")
            for word in ((option, *shapes) if shapes else ())
        ]
        convert = (*_POLYGRAPHY, "convert", self._model, "-o", engine, *profiles)
        outcome = self._run(*convert, "--trt-npps", self._folder / "constraints.py")
        if outcome.problem and self._run(*convert).problem:
            return Outcome("none, nor of the plain model", outcome.problem)
        size = f", {engine.stat().st_size / 2**20:.1f} MiB" if engine.exists() else ""
        return Outcome(outcome.text + size, outcome.problem)

    def run_mixed(self) -> Outcome:
        """Runs the mixed model in ONNX-Runtime; its casts may vanish there, so no error is told."""
        path = self._folder / "mixed.onnx"
        if not path.exists():
            return Outcome("not saved")
        try:
            outputs = _outputs(path.read_bytes(), self._sample)
        except Exception as error:  # noqa: BLE001 - ONNX-Runtime raises a dozen types
            return Outcome("fails", str(error)[:300])
        lost = sum(int(np.isnan(y).sum()) for y in outputs.values() if y.dtype.kind == "f")
        return Outcome("runs" + (f", {lost} NaN" if lost else ""))

    def verify(self) -> Outcome:
        """Verifies the mixed model on the sample."""
        outcome = self._run(
            *(*_LAYERPREC, "verify", self._model, "--load-inputs", self._folder / "sample.npz"),
            *("--mixed-onnx", self._folder / "mixed.onnx"),
        )
        errors = _VERIFIED.search(outcome.said)
        if errors is None:
            return outcome
        return Outcome(f"{outcome.text}, {errors[1]} to {errors[2]}", outcome.problem)

    def compare_with_cast_pairs(self) -> Outcome:
        """Puts the emulated error of the model in FP16 beside that of pairs of casts."""
        model = _with_types(onnx.load(self._model))
        reference = _outputs(model.SerializeToString(), self._sample)
        try:
            candidate = _outputs(with_cast_pairs(model).SerializeToString(), self._sample)
        except Exception as error:  # noqa: BLE001 - as above
            return Outcome("fails", str(error)[:300])
        other = _relative_error(reference, candidate)
        own = "-" if self._ranking is None else f"{self._ranking.output_error.measured:.1e}"
        return Outcome(f"{own} / {other:.1e}")

    def correlate_with_exact(self) -> Outcome:
        """Correlates the impacts with those of a forward pass for each layer."""
        if self._ranking is None or self.layer_count > _MOST_EXACT_LAYERS:
            return Outcome("-")
        path = self._folder / "exact.json"
        outcome = self._run(
            *(*_LAYERPREC, "rank", self._model, "--load-inputs", self._folder / "sample.npz"),
            *("--impact", "exact", "--save-ranking", path),
        )
        if not path.exists():
            return outcome
        exact = {layer.name: layer.impact for layer in load_ranking(path).layers}
        layers = [layer for layer in self._ranking.layers if layer.name in exact]
        impacts = [layer.impact for layer in layers]
        return Outcome(f"{spearman(impacts, [exact[layer.name] for layer in layers]):.2f}")

    @functools.cached_property
    def _sample(self) -> Arrays:
        with np.load(self._folder / "sample.npz") as arrays:
            return dict(arrays)

    @property
    def _ranking(self) -> Ranking | None:
        path = self._folder / "ranking.json"
        return load_ranking(path) if path.exists() else None

    def _open_inputs(self) -> set[str]:
        graph = onnx.load(self._model, load_external_data=False).graph
        return {
            value.name
            for value in graph.input
            if any(dim.dim_value <= 0 for dim in value.type.tensor_type.shape.dim)
        }

    def _run(self, *words: object) -> Outcome:
        """Runs a command, and returns how long it took or why it failed."""
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [str(word) for word in words],
                capture_output=True,
                text=True,
                timeout=self._timeout_seconds,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome("timed out", "no word")
        seconds = time.perf_counter() - start
        if done.returncode == 0:
            return Outcome(f"{seconds:.0f} s", said=done.stdout)
        said = (done.stderr.strip() or done.stdout.strip())[-600:]
        return Outcome(f"exit {done.returncode}", said or "no word")


def _outputs(model: bytes, sample: Arrays) -> Arrays:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, sample), strict=True))


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy that says the type of every tensor, by ONNX-Runtime's own inference.

    ONNX does not know the operators of other domains.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    declared = {value.name for value in probe.graph.output}
    made = [name for node in probe.graph.node for name in node.output if name]
    probe.graph.output.extend(onnx.ValueInfoProto(name=n) for n in made if n not in declared)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    del typed.graph.value_info[:]
    typed.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, None)
        for output in session.get_outputs()
        if output.type == "tensor(float)" and output.name not in declared
    )
    return typed


def _relative_error(reference: Arrays, candidate: Arrays) -> float:
    """The root mean square of the outputs' relative L2 errors."""
    errors = [
        float(np.linalg.norm(candidate[name] - exact) / np.linalg.norm(exact))
        for name, exact in reference.items()
        if exact.dtype.kind == "f" and np.linalg.norm(exact)
    ]
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan")
