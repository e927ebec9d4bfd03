"""Which pairs of quantised models harm the outputs: one sweep against a run for each layer.

Usage: python benchmarks/quantised.py --digits D.onnx --digits-inputs D.npz
       --minilm M.onnx --minilm-inputs M.npz [--peers FOLDER] [--real] [--output F.md]

Models are quantised by ONNX-Runtime's `quantize_static` (QDQ, per channel, symmetric activations)
and, with `--peers`, by ModelOpt in an environment of its own. The truth is a run of all samples for
each layer, with its pairs alone. Two figures say what that costs: our own, which shares what comes
before the layer, and what an engineer's loop takes: a model saved for each layer, loaded and run by
ONNX-Runtime.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

import numpy as np
import onnx
import onnx.shape_inference
import onnx.version_converter
import onnxruntime as ort
from onnxruntime.quantization import quant_pre_process
from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.given_models import add_arguments, given_models
from benchmarks.models import MODELS
from benchmarks.orders import shortest_prefix, spearman
from benchmarks.quantisers import FloatModel, Quantise, Sample, quantisers
from benchmarks.real_models import REAL_MODELS, extract
from polygraphy_layerprec import observing
from polygraphy_layerprec.emit.mixed_onnx.pruning import save_pruned_onnx
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.quantized import QuantizedGraph, pass_pairs_by
from polygraphy_layerprec.pipeline import measure_exact_impacts, rank_model, select_constraints
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import QDQ
from polygraphy_layerprec.records import Ranking
from polygraphy_layerprec.selection import SelectionRequest, constraints_of_members

_REAL: Final = ("PP-OCR angle classifier", "NudeNet 320n")
_OPSET: Final = 17
_LOOPED: Final = 8  # layers that the loop of saved models is timed with


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one quantised model."""

    title: str
    tool: str
    pairs: int
    layers: int
    samples: int
    error: float
    forecast: float
    correlation: float
    local_correlation: float
    halving: int
    halving_by_truth: int
    halved_error: float
    error_again: float
    sweep_seconds: float
    ranking_seconds: float
    exact_seconds: float
    loop_seconds: float


def main() -> None:
    """Measures every model that is there, and prints the table."""
    parser = argparse.ArgumentParser(description="Rank the pairs of quantised models.")
    add_arguments(parser)
    parser.add_argument("--peers", type=Path, help="Folder of the environment with ModelOpt.")
    parser.add_argument(
        "--real", action="store_true", help="Two models of packages on PyPI as well."
    )
    parser.add_argument("--packages", type=Path, help="Where their packages are kept.")
    parser.add_argument("--only", help="Part of the titles of the models to measure.")
    parser.add_argument("--output", type=Path, help="Markdown file to write the table to.")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, model in enumerate(_models(arguments, Path(temporary))):
            if arguments.only and arguments.only not in model.title:
                continue
            for tool, quantise in quantisers(arguments.peers).items():
                target = Path(temporary) / f"{number}-{len(rows)}.onnx"
                problem = quantise(model, target, ())
                if problem:
                    print(f"{model.title}, {tool}: {problem}", file=sys.stderr)
                    continue
                rows.append(_measure(model, tool, target, quantise))
                print(_line(rows[-1]), flush=True)
    text = "\n".join([*_HEAD, *map(_line, rows), ""])
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


def _models(arguments: argparse.Namespace, folder: Path) -> Iterator[FloatModel]:
    for given in given_models(arguments):
        yield FloatModel(given.title, given.model, [given.sample()])
    made = MODELS["resnet50"]
    made.write(folder / "resnet.onnx", external=False)
    yield FloatModel(made.title, folder / "resnet.onnx", [made.sample(seed) for seed in range(2)])
    packages = arguments.packages or folder / "packages"
    for model in REAL_MODELS if arguments.real else ():
        if model.title in _REAL:
            own = folder / model.file.replace("/", "_")
            own.mkdir()
            newer = own / "newer.onnx"  # scales for each channel are known from opset 13 on
            found = onnx.load(extract(model, packages, own))
            onnx.save(onnx.version_converter.convert_version(found, _OPSET), newer)
            quant_pre_process(newer, own / "folded.onnx", skip_symbolic_shape=True)
            samples = _mirrored(model.sample())
            _fix_shapes(own / "folded.onnx", samples[0])
            yield FloatModel(model.title, own / "folded.onnx", samples)


def _fix_shapes(path: Path, sample: Sample) -> None:
    """Gives inputs the shapes of a sample: ModelOpt quantises no model whose batch is open."""
    model = onnx.load(path)
    for name, values in sample.items():
        make_input_shape_fixed(model.graph, name, values.shape)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)


def _mirrored(sample: Sample) -> list[Sample]:
    """A picture in four ways: as it is, mirrored along either axis and along both."""
    ways: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-1, -2))
    return [{name: np.flip(v, axes).copy() for name, v in sample.items()} for axes in ways]


def _measure(model: FloatModel, tool: str, path: Path, quantise: Quantise) -> Row:
    graph = pass_pairs_by(load_graph(path), load_graph(model.path), reference_path=str(model.path))
    with patch.multiple(observing, _WORST_MEASURED=0, _LARGE_MEASURED=0):
        started = time.perf_counter()
        forecast = rank_model(graph, model.samples, precision=QDQ)
        sweep_seconds = time.perf_counter() - started
    started = time.perf_counter()
    ranking = rank_model(graph, model.samples, precision=QDQ)
    ranking_seconds = time.perf_counter() - started
    started = time.perf_counter()
    truth = measure_exact_impacts(graph, model.samples, precision=QDQ)
    exact_seconds = time.perf_counter() - started
    exact = [truth[layer.outputs[0]] for layer in forecast.layers]
    sets = SetMeasurement(graph, model.samples, precision=QDQ, outputs=graph.outputs)
    outputs = {layer.outputs[0]: layer.outputs for layer in ranking.layers}

    def error_with(names: set[str]) -> float:
        return sets.divergence(KeptLayers.of_outputs(n for k in names for n in outputs[k])).error

    half = error_with(set()) / 2.0
    halving = shortest_prefix(list(outputs), error_with, half)
    by_truth = sorted(outputs, key=lambda name: -truth[name])
    return Row(
        model.title,
        tool,
        len(graph.pairs),
        len(ranking.layers),
        len(model.samples),
        ranking.output_error.measured,
        ranking.output_error.forecast,
        spearman([layer.impact for layer in forecast.layers], exact),
        spearman([layer.introduced_error for layer in forecast.layers], exact),
        halving,
        shortest_prefix(by_truth, error_with, half),
        error_with(set(list(outputs)[:halving])),
        _error_again(model, ranking, halving, quantise, path.with_name("again.onnx")),
        sweep_seconds,
        ranking_seconds,
        exact_seconds,
        _loop_seconds(graph, path, model.samples),
    )


def _error_again(
    model: FloatModel, ranking: Ranking, count: int, quantise: Quantise, target: Path
) -> float:
    """The error once the tool has quantised the model again, the worst layers left out."""
    chosen = select_constraints(ranking, SelectionRequest(top_k=count))
    problem = quantise(model, target, constraints_of_members(chosen))
    if problem:
        raise RuntimeError(problem)
    again = pass_pairs_by(load_graph(target), load_graph(model.path))
    sets = SetMeasurement(again, model.samples, precision=QDQ, outputs=again.outputs)
    return sets.divergence(KeptLayers()).error


def _loop_seconds(graph: QuantizedGraph, path: Path, samples: Sequence[Sample]) -> float:
    """What a loop takes that saves a model for each layer and runs it, told from a few layers."""
    units = graph.decisions
    chosen = [
        units[i] for i in np.linspace(0, len(units) - 1, min(_LOOPED, len(units))).astype(int)
    ]
    started = time.perf_counter()
    for unit in chosen:
        target = path.with_name("alone.onnx")
        others = KeptLayers.all_but(graph, *unit)
        save_pruned_onnx(graph, str(path), str(target), others.outputs)
        session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
        for sample in samples:
            session.run(None, dict(sample))
    return (time.perf_counter() - started) / len(chosen) * len(units)


_TITLES: Final = (
    *("model", "quantised by", "pairs", "layers", "error", "forecast", "Spearman to the truth"),
    *("of the local error", "layers to halve the error, by the truth"),
    *("error without them", "quantised again without them", "sweep", "ranking"),
    *("a run for each layer", "a saved model for each layer"),
)
_HEAD: Final = (f"| {' | '.join(_TITLES)} |", "|---" * len(_TITLES) + "|")


def _line(row: Row) -> str:
    ratio = row.halving / row.halving_by_truth if row.halving_by_truth else math.nan
    return (
        f"| {row.title} | {row.tool} | {row.pairs} | {row.layers} | {row.error:.3g} | "
        f"{row.forecast:.3g} | {row.correlation:.3f} | {row.local_correlation:.2f} | "
        f"{row.halving}, {row.halving_by_truth} ({ratio:.2f}x) | "
        f"{row.halved_error:.3g} | {row.error_again:.3g} | {row.sweep_seconds:.1f} s | "
        f"{row.ranking_seconds:.1f} s | "
        f"{row.exact_seconds:.1f} s ({row.exact_seconds / row.ranking_seconds:.0f}x) | "
        f"{row.loop_seconds:.0f} s ({row.loop_seconds / row.ranking_seconds:.0f}x) |"
    )


if __name__ == "__main__":
    main()
