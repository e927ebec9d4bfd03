"""A whole ranking on a GPU beside the same ranking on this machine's CPU cores, in one run.

Usage: python benchmarks/gpu.py [--models bert-base-32] [--output docs/benchmarks/gpu.md]

Each model's samples are observed (reference, candidate, introduced errors, backward sweep, sums)
several times in one process, first on the GPU, then on the CPU. *Set-up* is how much longer the
first one on the GPU takes than the median of the others: kernels are compiled, sessions made,
weights uploaded. CuPy keeps what it compiled in a folder, so that only a machine's first run
compiles. *Agreement* is the rank correlation of the layers' impacts, and how far the measured
output errors are apart. *Sets* are those that are chosen to halve the error, on the GPU / on the
CPU, and how much larger the error is with the GPU's, both measured on the CPU; left out where that
would take minutes.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx

from benchmarks.given_models import add_arguments, given_models
from benchmarks.models import MODELS, write_mlp, write_resnet
from benchmarks.orders import spearman
from benchmarks.transformer import BERT_BASE, encoder_inputs, write_encoder
from polygraphy_layerprec.execution.kernels.cuda_setup import open_gpu
from polygraphy_layerprec.execution.kernels.device import on_device
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.observing import Observer, RankRequest
from polygraphy_layerprec.pipeline import measure_output_error, select_constraints
from polygraphy_layerprec.selection import SelectionRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from polygraphy_layerprec.execution.kernels.device import Device
    from polygraphy_layerprec.records import Ranking

__all__ = ["main"]

_BATCH = 64
_LONGEST_FOR_SETS = 5.0
"""Seconds of an observation on the CPU, of which choosing a set takes several."""
_GOALS = {"bert-base-32": 15.0, "resnet50-64": 15.0, "mlp": 5.0}
"""How many times faster the GPU is to be, at the least."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model on disk and one sample."""

    title: str
    path: Path
    sample: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """What one side took."""

    seconds: list[float]
    """Wall time of each observation, the first with all set-up."""

    ranking: Ranking
    """What it found."""

    @property
    def steady(self) -> float:
        """The median of all but the first."""
        return statistics.median(self.seconds[1:] or self.seconds)


def _bert(folder: Path, batch: int) -> Case:
    shape = replace(BERT_BASE, batch=batch)
    path = folder / f"bert-{batch}.onnx"
    write_encoder(path, shape, external=False)
    return Case(f"BERT-base-sized, {batch} x {shape.seq}", path, encoder_inputs(shape, 0))


def _resnet(folder: Path) -> Case:
    path = folder / "resnet.onnx"
    write_resnet(path, external=False, residual_scale=0.1)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = _BATCH
    onnx.save(model, path)
    values = np.random.default_rng(0).standard_normal((_BATCH, 3, 224, 224), dtype=np.float32)
    return Case(f"ResNet-50-sized CNN, batch of {_BATCH}", path, {"input": values})


def _mlp(folder: Path) -> Case:
    path = folder / "mlp.onnx"
    write_mlp(path, external=True)
    return Case("MLP, 2.19 GiB", path, MODELS["mlp"].sample(0))


_CASES: dict[str, Callable[[Path], Case]] = {
    "bert-base-1": lambda folder: _bert(folder, 1),
    "bert-base-32": lambda folder: _bert(folder, 32),
    "resnet50-64": _resnet,
    "mlp": _mlp,
}


def main() -> None:
    """Measures, prints the table, and writes it where `--output` says."""
    parser = argparse.ArgumentParser(description="Measure a ranking on a GPU and on the CPU.")
    parser.add_argument("--models", nargs="*", choices=list(_CASES), default=list(_CASES))
    parser.add_argument("--gpu-runs", type=int, default=5, help="Observations on the GPU.")
    parser.add_argument("--cpu-runs", type=int, default=2, help="Observations on the CPU.")
    parser.add_argument("--output", type=Path, help="Markdown file to write.")
    add_arguments(parser)
    arguments = parser.parse_args()
    device = open_gpu()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        made = [(name, _CASES[name]) for name in arguments.models]
        given = [
            (model.name, lambda _, model=model: Case(model.title, model.model, model.sample()))
            for model in given_models(arguments)
        ]
        for name, make in (*made, *given):
            rows.append(_row(name, make(Path(temporary)), device, arguments))
            print(rows[-1], flush=True)
    text = "\n".join([*_head(device), *rows])
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


def _row(name: str, case: Case, device: Device, arguments: argparse.Namespace) -> str:
    with on_device(device):
        there = _observe(case, arguments.gpu_runs)
    here = _observe(case, arguments.cpu_runs)
    impacts = [
        {layer.outputs: layer.impact for layer in timing.ranking.layers} for timing in (there, here)
    ]
    names = list(impacts[1])
    agreement = spearman([impacts[0][n] for n in names], [impacts[1][n] for n in names])
    errors = [timing.ranking.output_error.measured for timing in (there, here)]
    goal = f"{_GOALS[name]:g}x" if name in _GOALS else "-"
    cells = [
        case.title,
        str(len(names)),
        f"{there.steady:.2f} s",
        f"{here.steady:.2f} s",
        f"{here.steady / there.steady:.1f}x",
        goal,
        f"{there.seconds[0] - there.steady:.1f} s",
        f"{agreement:.4f}",
        f"{100 * abs(errors[0] / errors[1] - 1):.1f} %",
        _sets(case, there, here, device),
    ]
    return f"| {' | '.join(cells)} |"


def _sets(case: Case, there: Timing, here: Timing, device: Device) -> str:
    """The sets that halve the error, and how much larger it is with that of the GPU."""
    if here.steady > _LONGEST_FOR_SETS:
        return "-"
    request = SelectionRequest(tolerance=here.ranking.output_error.measured / 2)
    measured: dict[str, Any] = {"model": case.path, "samples": [case.sample]}
    with on_device(device):
        chosen = select_constraints(there.ranking, request, **measured)
    expected = select_constraints(here.ranking, request, **measured)
    errors = [
        measure_output_error(
            case.path, [case.sample], fp32_outputs={layer.outputs[0] for layer in s.layers}
        )
        for s in (chosen, expected)
    ]
    counts = f"{len(chosen.layers)} / {len(expected.layers)}"
    return f"{counts}, {100 * (errors[0] / errors[1] - 1):+.1f} %"


def _observe(case: Case, count: int) -> Timing:
    start = time.perf_counter()
    observer = Observer(load_graph(case.path), RankRequest())
    comparer = observer.comparer()
    seconds = []
    for _ in range(count):
        comparison = comparer.compare(0, case.sample)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return Timing(seconds, observer.observed(comparison).ranking())


def _head(device: Device) -> list[str]:
    machine = f"{len(os.sched_getaffinity(0))} CPUs ({platform.machine()})"
    return [
        f"Measured in one run on {device.name} and {machine}, Python {platform.python_version()}.",
        "",
        "| model | layers | GPU | CPU | GPU faster | goal | set-up | Spearman | errors | sets |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
