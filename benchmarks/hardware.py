"""What FP16 on a GPU does to the outputs, beside what the emulation says it does.

Usage: python benchmarks/hardware.py --minilm minilm.onnx --minilm-inputs minilm.npz [--output F.md]

Needs a GPU and ONNX-Runtime with CUDA (`pip install onnxruntime-gpu`). The models are rewritten as
`--save-onnx` does it and run by ONNX-Runtime's CUDA kernels, whose FP16 is that of the hardware.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.given_models import add_arguments, given_models
from benchmarks.models import MODELS
from benchmarks.orders import spearman
from polygraphy_layerprec.emit.mixed_onnx import lower_model
from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import rank_model, select_constraints
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.selection import SelectionRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import numpy.typing as npt

    from polygraphy_layerprec.records import Ranking

__all__ = ["main"]

Arrays = dict[str, "npt.NDArray[Any]"]

_MADE: Final = ("resnet50", "bert-base")
_TIMED_RUNS: Final = 100
_WARM_UP_RUNS: Final = 10
_CUDA: Final = "CUDAExecutionProvider"
_NO_GPU: Final = (
    "ONNX-Runtime finds no GPU here: install onnxruntime-gpu on a machine that has one."
)
# TF32 would round FP32 products to the 11 bits of FP16.
_PROVIDERS: Final = (
    (_CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
    "CPUExecutionProvider",
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one session gave."""

    outputs: Arrays
    """Arrays by output name."""

    milliseconds: float
    """Median time of a run, the copies of inputs and outputs included; 0 if it was not taken."""


class Hardware:
    """One model in FP32 and rewritten, on a GPU."""

    def __init__(self, path: Path, sample: Arrays) -> None:
        """Reads the model and runs it in FP32."""
        self._model = onnx.load(path)
        self._sample = sample
        self._names = [output.name for output in self._model.graph.output]
        self.fp32 = self._run(self._model, timed_runs=_TIMED_RUNS)

    def mixed(self, fp32_outputs: Collection[str], *, timed_runs: int = 0) -> Run:
        """Returns what the model does with the layers of these output tensors in FP32."""
        lowered, _ = lower_model(self._model, fp32_outputs, precision=FP16)
        return self._run(lowered, timed_runs=timed_runs)

    def error(self, run: Run) -> float:
        """Returns the output error against the same hardware in FP32."""
        return self.divergence(self.fp32.outputs, run.outputs)

    def divergence(self, reference: Arrays, candidate: Arrays) -> float:
        """Returns the relative L2 error of the outputs, as the emulation takes it."""
        divergences = OutputDivergences(tuple(self._names), FP16)
        divergences.add(reference, candidate)
        return divergences.error

    def _run(self, model: onnx.ModelProto, *, timed_runs: int) -> Run:
        session = ort.InferenceSession(model.SerializeToString(), providers=_PROVIDERS)
        if session.get_providers()[0] != _CUDA:
            sys.exit(_NO_GPU)
        outputs = session.run(self._names, self._sample)
        seconds = []
        for _ in range(timed_runs):
            start = time.perf_counter()
            session.run(self._names, self._sample)
            seconds.append(time.perf_counter() - start)
        warm = seconds[_WARM_UP_RUNS:]
        milliseconds = 1e3 * statistics.median(warm) if warm else 0.0
        return Run(dict(zip(self._names, outputs, strict=True)), milliseconds)


def main() -> None:
    """Measures every model that was given or can be made, and prints the tables."""
    arguments = _parse()
    if _CUDA not in ort.get_available_providers():
        sys.exit(_NO_GPU)
    rows, agreement = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for title, path, sample in _cases(arguments, Path(temporary)):
            print(f"{title} ...", file=sys.stderr, flush=True)
            made = _measure(title, path, sample, most_layers=arguments.layers)
            rows += made[0]
            agreement += made[1]
            print("\n".join(made[0] + made[1]), file=sys.stderr, flush=True)
    text = "\n".join([*_ERROR_HEAD, *rows, "", *_AGREEMENT_HEAD, *agreement, ""])
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


_ERROR_HEAD: Final = (
    "| model | what | emulated | GPU | GPU / emulated | GPU time |",
    "|---|---|---|---|---|---|",
)
_AGREEMENT_HEAD: Final = (
    "| model | layers measured alone | order | Spearman with the GPU |",
    "|---|---|---|---|",
)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the emulation with FP16 on a GPU.")
    add_arguments(parser)
    parser.add_argument(
        "--models", nargs="*", default=_MADE, choices=_MADE, help="Models that are made here."
    )
    parser.add_argument(
        "--layers", type=int, default=60, help="Most layers to run alone in FP16, evenly spaced."
    )
    parser.add_argument("--output", type=Path, help="Markdown file to write.")
    return parser.parse_args()


def _cases(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path, Arrays]]:
    for given in given_models(arguments):
        yield given.title, given.model, given.sample()
    for name in arguments.models:
        path = folder / f"{name}.onnx"
        MODELS[name].write(path, external=False)
        yield MODELS[name].title, path, MODELS[name].sample(0)


def _measure(
    title: str, path: Path, sample: Arrays, *, most_layers: int
) -> tuple[list[str], list[str]]:
    graph = load_graph(path)
    ranking = rank_model(graph, [sample], precision=FP16)
    whole = ranking.output_error.measured
    chosen = select_constraints(
        ranking, SelectionRequest(tolerance=whole / 2), model=graph, samples=[sample]
    )
    kept = {name for layer in chosen.layers for name in layer.outputs if name}
    hardware = Hardware(path, sample)
    plain = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in plain.get_outputs()]
    on_cpu = dict(zip(names, plain.run(names, sample), strict=True))
    lowered, constrained = (hardware.mixed(k, timed_runs=_TIMED_RUNS) for k in ((), kept))
    baseline = hardware.divergence(on_cpu, hardware.fp32.outputs)
    rows = [
        _line(title, "FP32, against the CPU", "-", f"{baseline:.2e}", "-", hardware.fp32),
        _row(title, "all in FP16", whole, hardware.error(lowered), lowered),
        _row(
            title,
            f"{len(chosen.layers)} of {len(ranking.layers)} in FP32",
            chosen.measured_error or 0.0,
            hardware.error(constrained),
            constrained,
        ),
    ]
    measurement = SetMeasurement(graph, [sample], precision=FP16, outputs=graph.outputs)
    return rows, _agreement(title, ranking, measurement, hardware, most_layers=most_layers)


def _row(title: str, what: str, emulated: float, measured: float, run: Run) -> str:
    ratio = measured / emulated if emulated else float("nan")
    return _line(title, what, f"{emulated:.3g}", f"{measured:.3g}", f"{ratio:.2f}", run)


def _line(*cells: str | Run) -> str:
    texts = [f"{c.milliseconds:.2f} ms" if isinstance(c, Run) else c for c in cells]
    return f"| {' | '.join(texts)} |"


def _agreement(
    title: str,
    ranking: Ranking,
    measurement: SetMeasurement,
    hardware: Hardware,
    *,
    most_layers: int,
) -> list[str]:
    """Layers alone in FP16, inputs and weights rounded, on the GPU and by each order."""
    count = len(ranking.layers)
    places = np.unique(np.linspace(0, count - 1, min(most_layers, count)).round().astype(int))
    every = {name for layer in ranking.layers for name in layer.outputs if name}
    on_gpu, emulated = [], []
    for place in places:
        others = every - set(ranking.layers[place].outputs)
        on_gpu.append(hardware.error(hardware.mixed(others)))
        emulated.append(measurement.divergence_of_kept(others).error)
    layers = [ranking.layers[place] for place in places]
    orders = {
        "this layer alone, emulated": emulated,
        "impact (adjoint)": [layer.impact for layer in layers],
        "introduced error": [layer.introduced_error for layer in layers],
        "cumulative divergence": [layer.cumulative_error or 0.0 for layer in layers],
    }
    return [
        f"| {title} | {len(places)} of {count} | {name} | {spearman(scores, on_gpu):.3f} |"
        for name, scores in orders.items()
    ]


if __name__ == "__main__":
    main()
