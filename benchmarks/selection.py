"""How well the error of any set of FP32 layers is forecast, and how little halves it.

Usage: python benchmarks/selection.py --digits cnn.onnx --digits-inputs cnn.npz [--output F.md]

The curve goes from no layer in FP32 to all of them in two ways: along the ranking, and along the
minimum cuts. Each set is measured by a run of the model in mixed precision.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.given_models import add_arguments, given_models
from benchmarks.models import MODELS
from benchmarks.orders import shortest_prefix
from polygraphy_layerprec.divergence.judges import tolerance_judge
from polygraphy_layerprec.execution.comparison.measured_model import (
    MeasuredSets,
    measure_here,
)
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.selection import SelectionRequest, SetForecast, select_layers
from polygraphy_layerprec.selection.islands import IslandCuts
from polygraphy_layerprec.selection.prices import CostKind, prices_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.records import RankedLayer, Ranking, SelectionCost

__all__ = ["main"]

_POINTS: Final = 10
_CUT_PRICES: Final = np.geomspace(1e-3, 1e7, 200)
"""Prices of the whole error in layers, from nothing is worth keeping to everything is."""
_RANDOM_ORDERS: Final = 3
_MOST_FORECAST_RATIO: Final = 1.25


@dataclass(frozen=True, slots=True)
class Case:
    """One model with its input."""

    title: str
    """What tables call it."""

    model: Path
    """The ONNX file."""

    sample: dict[str, npt.NDArray[Any]]
    """One array per input."""


class KnownSets:
    """The output error of sets of layers of one ranked model, each measured once."""

    def __init__(self, case: Case) -> None:
        """Ranks the model and runs its reference."""
        graph = load_graph(case.model)
        self.title = case.title
        self.ranking: Ranking = rank_model(graph, [case.sample], precision=FP16)
        self.forecast = SetForecast(self.ranking.layers)
        self._case, self._graph = case, graph
        self._measured = self.judged_by(())
        self._known: dict[bytes, float] = {}

    def judged_by(self, judges: Sequence[Judge]) -> MeasuredSets:
        """Returns what measures sets, and has them judged."""
        samples = [self._case.sample]
        return measure_here(self.ranking, self._graph, samples, judges=judges).on_all()

    def error(self, kept: npt.NDArray[np.bool_]) -> float:
        """Returns the measured output error with the layers of `kept` in FP32."""
        key = kept.tobytes()
        if key not in self._known:
            self._known[key] = self._measured.error(kept)
        return self._known[key]

    def error_with(self, names: set[str]) -> float:
        """Returns the same for layers that are given by name."""
        return self.error(self.forecast.mask(names))


def main() -> None:
    """Measures every model that was given or can be made, and prints the tables."""
    arguments = _parse()
    blocks = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in _cases(arguments, arguments.cache_dir or Path(temporary)):
            print(f"{case.title} ...", file=sys.stderr)
            sets = KnownSets(case)
            blocks.append("\n".join([f"## {case.title}", "", *_curve(sets), "", *_halving(sets)]))
    text = "\n\n".join(blocks) + "\n"
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare forecasts and choices with the truth.")
    add_arguments(parser)
    parser.add_argument("--no-resnet50", action="store_true", help="Leave out the ResNets.")
    parser.add_argument("--cache-dir", type=Path, help="Where to keep the models between runs.")
    parser.add_argument("--output", type=Path, help="Markdown file to write.")
    return parser.parse_args()


def _cases(arguments: argparse.Namespace, folder: Path) -> list[Case]:
    cases = [Case(g.title, g.model, g.sample()) for g in given_models(arguments)]
    if not arguments.no_resnet50:
        for name in ("resnet50", "resnet50-light"):
            path = folder / f"{name}-embedded.onnx"
            if not path.exists():
                MODELS[name].write(path, external=False)
            cases.append(Case(MODELS[name].title, path, MODELS[name].sample(0)))
    return cases


def _curve(sets: KnownSets) -> list[str]:
    rows, ratios = [], []
    for family, kept in (*_prefixes(sets), *_cuts(sets)):
        measured, forecast = sets.error(kept), sets.forecast.error(kept)
        ratio = forecast / measured if measured else 1.0 if not forecast else float("inf")
        ratios.append(ratio)
        cost = sets.forecast.cost(kept)
        figures = f"{measured:.3g} | {forecast:.3g} | {ratio:.2f}"
        rows.append(f"| {family} | {cost.layer_count} | {cost.cast_count} | {figures} |")
    worst = max(ratios, key=lambda ratio: abs(np.log(max(ratio, 1e-9))))
    close = sum(1 / _MOST_FORECAST_RATIO <= ratio <= _MOST_FORECAST_RATIO for ratio in ratios)
    return [
        "| family | FP32 layers | casts | measured | forecast | forecast / measured |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Worst ratio: {worst:.2f}; {close} of {len(ratios)} sets are forecast within 25 %.",
    ]


def _prefixes(sets: KnownSets) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    count = len(sets.ranking.layers)
    for size in np.unique(np.rint(np.linspace(0, count, _POINTS)).astype(int)):
        yield "ranking", np.arange(count) < size


def _cuts(sets: KnownSets) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    count = len(sets.ranking.layers)
    cuts = IslandCuts(
        sets.forecast,
        prices=prices_for("count", sets.forecast),
        required=np.zeros(count, bool),
        allowed=np.ones(count, bool),
    )
    unit = count / float(sets.forecast.powers.sum())
    found = {kept.tobytes(): kept for kept in (cuts.cheapest(p * unit) for p in _CUT_PRICES)}
    distinct = sorted(found.values(), key=lambda kept: int(kept.sum()))
    sizes = np.array([kept.sum() for kept in distinct])
    chosen = {int(np.abs(sizes - goal).argmin()) for goal in np.linspace(0, count, _POINTS)}
    for index in sorted(chosen):
        yield "cuts", distinct[index]


def _halving(sets: KnownSets) -> list[str]:
    whole = sets.error(np.zeros(len(sets.ranking.layers), bool))
    rows = []
    for cost in get_args(CostKind):
        half = sets.judged_by([tolerance_judge(whole / 2, FP16)])
        selection = select_layers(sets.ranking, SelectionRequest(cost=cost), measure=half)
        error = selection.measured_error or 0.0
        name = f"`--cost {cost}`, {selection.measurements} sets measured"
        rows.append(_row(name, selection.cost, error / whole))
    for name, order in _orders(sets.ranking.layers):
        kept = sets.forecast.mask(order[: shortest_prefix(order, sets.error_with, whole / 2)])
        rows.append(_row(name, sets.forecast.cost(kept), sets.error(kept) / whole))
    return [
        f"To halve the output error of {whole:.3g}, of {len(sets.ranking.layers)} layers:",
        "",
        "| chosen by | FP32 layers | share of FLOPs | casts | error left |",
        "|---|---|---|---|---|",
        *rows,
    ]


def _orders(layers: Sequence[RankedLayer]) -> Iterator[tuple[str, list[str]]]:
    yield "the first of the ranking", [layer.name for layer in layers]
    by_introduced = sorted(layers, key=lambda layer: -layer.introduced_error)
    yield "the largest introduced errors", [layer.name for layer in by_introduced]
    by_cumulative = sorted(layers, key=lambda layer: -(layer.cumulative_error or 0.0))
    yield "the largest cumulative errors", [layer.name for layer in by_cumulative]
    for seed in range(_RANDOM_ORDERS):
        shuffled = np.random.default_rng(seed).permutation(len(layers))
        yield f"at random, seed {seed}", [layers[index].name for index in shuffled]


def _row(name: str, cost: SelectionCost, error_left: float) -> str:
    figures = f"{cost.layer_count} | {cost.flops_fraction:.0%} | {cost.cast_count}"
    return f"| {name} | {figures} | {error_left:.0%} |"


if __name__ == "__main__":
    main()
