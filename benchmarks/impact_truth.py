"""How well each order of layers agrees with the truth, and how many FP32 layers it needs.

Usage: python benchmarks/impact_truth.py --digits cnn.onnx --digits-inputs cnn.npz [--output F.md]

The truth of a layer is the output error when it alone rounds: one run of the model for each layer.
The count is the length of the shortest prefix of an order that, kept in FP32, halves the output
error of the model in FP16.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.given_models import add_arguments, given_models
from benchmarks.models import MODELS
from benchmarks.orders import shortest_prefix, spearman
from benchmarks.truth_layers import TrueLayer, write_layers
from polygraphy_layerprec.pipeline import measure_exact_impacts, measure_output_error, rank_model
from polygraphy_layerprec.precision import FP16

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.records import RankedLayer, Ranking

__all__ = ["main"]

_ORDERS = ("adjoint", "gain", "introduced", "cumulative")
_MOST_LAYERS = {"minilm": 68, "digits": 10, "resnet50": 5, "resnet50-light": 5}
_LEAST_SPEARMAN = 0.95
_MOST_FORECAST_RATIO = 1.25


@dataclass(frozen=True, slots=True)
class Case:
    """One model, its input, and the goal for its halving count."""

    title: str
    """What tables call it."""

    model: Path
    """The ONNX file."""

    sample: dict[str, npt.NDArray[Any]]
    """One array per input."""

    most_layers: int
    """Goal: FP32 layers that halve the output error."""


def main() -> None:
    """Measures every model that was given or can be made, and prints the tables."""
    arguments = _parse()
    with tempfile.TemporaryDirectory() as temporary:
        lines = [
            "# How well the order of layers agrees with the truth",
            "",
            "| model | layers | order | Spearman | FP32 layers to halve the error | goals |",
            "|---|---|---|---|---|---|",
        ]
        layers: list[TrueLayer] = []
        for case in _cases(arguments, arguments.cache_dir or Path(temporary)):
            rows, measured = _rows(case, arguments.random_orders)
            lines += rows
            layers += measured
    text = "\n".join([*lines, ""])
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    if arguments.save_layers:
        write_layers(arguments.save_layers, layers)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare orders of layers with the truth.")
    add_arguments(parser)
    parser.add_argument("--no-resnet50", action="store_true", help="Leave out the ResNets.")
    parser.add_argument("--random-orders", type=int, default=3, help="Random orders to average.")
    parser.add_argument("--cache-dir", type=Path, help="Where to keep the models between runs.")
    parser.add_argument("--output", type=Path, help="Markdown file to write.")
    parser.add_argument("--save-layers", type=Path, help="CSV file to write, for plot_impact.py.")
    return parser.parse_args()


def _cases(arguments: argparse.Namespace, folder: Path) -> list[Case]:
    cases = [
        Case(given.title, given.model, given.sample(), _MOST_LAYERS[given.name])
        for given in given_models(arguments)
    ]
    if not arguments.no_resnet50:
        for name in ("resnet50", "resnet50-light"):
            path = folder / f"{name}-embedded.onnx"
            if not path.exists():
                MODELS[name].write(path, external=False)
            title, sample = MODELS[name].title, MODELS[name].sample(0)
            cases.append(Case(title, path, sample, _MOST_LAYERS[name]))
    return cases


def _rows(case: Case, random_orders: int) -> tuple[list[str], list[TrueLayer]]:
    samples = [case.sample]
    rankings = {
        impact: rank_model(case.model, samples, precision=FP16, impact=impact)
        for impact in ("adjoint", "gain")
    }
    truth = measure_exact_impacts(case.model, samples, precision=FP16)
    errors: dict[frozenset[str], float] = {}

    def error_with(kept: set[str]) -> float:
        key = frozenset(kept)
        if key not in errors:
            errors[key] = measure_output_error(
                case.model, samples, fp32_outputs=kept, precision=FP16
            )
        return errors[key]

    target = error_with(set()) / 2
    tensors = sorted(_tensor(layer, truth) for layer in rankings["gain"].layers)
    rows = []
    for name in _ORDERS:
        scores = _scores(rankings["gain" if name == "gain" else "adjoint"], name, truth)
        correlation = spearman([scores[t] for t in tensors], [truth[t] for t in tensors])
        count = shortest_prefix(_descending(scores), error_with, target)
        rows.append(_row(case, name, correlation, count, len(tensors)))
    counts = [
        shortest_prefix(_shuffled(tensors, seed), error_with, target)
        for seed in range(random_orders)
    ]
    rows.append(_line(case, len(tensors), "random", "0", f"{statistics.mean(counts):.0f}", "-"))
    count = shortest_prefix(_descending(truth), error_with, target)
    rows.append(_line(case, len(tensors), "truth", "1", str(count), "-"))
    rows.append(_forecast_row(case, rankings["adjoint"]))
    return rows, _true_layers(case, rankings["adjoint"], truth)


def _true_layers(case: Case, ranking: Ranking, truth: dict[str, float]) -> list[TrueLayer]:
    by_tensor = {_tensor(layer, truth): layer for layer in ranking.layers}
    in_graph_order = [name for name in truth if name in by_tensor]
    measured = []
    for position, name in enumerate(in_graph_order):
        layer = by_tensor[name]
        errors = (layer.introduced_error, layer.cumulative_error or 0.0, layer.impact, truth[name])
        measured.append(TrueLayer(case.title, position, layer.name, layer.op, *errors))
    return measured


def _scores(ranking: Ranking, order: str, truth: dict[str, float]) -> dict[str, float]:
    return {_tensor(layer, truth): _score(layer, order) for layer in ranking.layers}


def _score(layer: RankedLayer, order: str) -> float:
    if order == "introduced":
        return layer.introduced_error
    if order == "cumulative":
        return layer.cumulative_error or 0.0
    return layer.impact


def _tensor(layer: RankedLayer, truth: dict[str, float]) -> str:
    return next(name for name in layer.outputs if name in truth)


def _descending(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda name: (-scores[name], name))


def _shuffled(tensors: Sequence[str], seed: int) -> list[str]:
    return [tensors[index] for index in np.random.default_rng(seed).permutation(len(tensors))]


def _row(case: Case, order: str, correlation: float, count: int, layers: int) -> str:
    goals = "-"
    if order == "adjoint":
        agreed = "yes" if correlation >= _LEAST_SPEARMAN else "no"
        halved = "yes" if count <= case.most_layers else "no"
        goals = f"≥ {_LEAST_SPEARMAN}: {agreed}; ≤ {case.most_layers}: {halved}"
    return _line(case, layers, order, f"{correlation:.3f}", str(count), goals)


def _forecast_row(case: Case, ranking: Ranking) -> str:
    error = ranking.output_error
    ratio = error.forecast / error.measured
    close = "yes" if 1 / _MOST_FORECAST_RATIO <= ratio <= _MOST_FORECAST_RATIO else "no"
    figures = f"measured {error.measured:.3g}, forecast {error.forecast:.3g} ({ratio:.2f} x)"
    return f"| {case.title} | | all in FP16 | | {figures} | within 25 %: {close} |"


def _line(case: Case, layers: int, *cells: str) -> str:
    return f"| {case.title} | {layers} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
