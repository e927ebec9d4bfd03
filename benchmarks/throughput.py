"""Samples per second of a ranking with 1, 2, 4 and 8 workers of two threads, and of one process.

Usage: python benchmarks/throughput.py --minilm M.onnx --minilm-inputs I.npz [--decide]
    [--output F.md]

With `--decide` it is the seconds of a whole `rank`, its choice included, and of a `verify`, for
each number of workers and for one process.

Every measurement has a process of its own, which starts its workers; all happen in this one run,
on this machine. Wall time is from the path of the model to the ranking. Set-up is the time until
the first sample is done, less the time of one more sample by one worker. Throughput is that of what
follows the first sample of each worker, since these come together. Memory is a worker's peak.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.given_models import add_arguments, given_models
from benchmarks.isolated import measure
from benchmarks.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Run", "efficiency", "extrapolate", "main"]

_TASK = "benchmarks.throughput_task:rank_many"
_DECIDING_TASK = "benchmarks.throughput_task:decide_on_many"
_THREADS = 2
_GENERATED = "resnet50"
_MIB = 1 << 20
_MANY_SAMPLES = 10_000
_MANY_MACHINES = 32


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement."""

    workers: int
    """Worker processes; 0 for a single process without any."""

    threads: int
    """Threads of each session."""

    samples: int
    """Samples that were ranked."""

    seconds: float
    """From the path of the model to the ranking."""

    first_seconds: float
    """Until the first sample was done."""

    round_seconds: float
    """Until each worker had done one sample, on average: as many samples as there are workers."""

    last_seconds: float
    """Until the last sample was done; what follows is done once for all of them."""

    worker_bytes: int
    """Peak resident memory of the largest process that measured."""

    @property
    def samples_per_second(self) -> float:
        """Throughput once all are at work: first samples come together, and would flatter it."""
        rest = self.samples - max(self.workers, 1)
        return rest / max(self.last_seconds - self.round_seconds, 1e-9)


def efficiency(run: Run, alone: Run) -> float:
    """Returns the throughput for each worker, relative to that of a single such worker."""
    return run.samples_per_second / run.workers / alone.samples_per_second


def extrapolate(run: Run, *, samples: int, machines: int) -> float:
    """Returns seconds for many samples on many machines like this one, if all scale as one does.

    Set-up and what is done once for all samples are taken as measured, the client as free.
    """
    rest = run.seconds - run.last_seconds + run.first_seconds
    return rest + samples / (machines * run.samples_per_second)


def main() -> None:
    """Measures, prints the tables, and writes them where `--output` says."""
    arguments = _parse()
    with tempfile.TemporaryDirectory() as temporary:
        text = "\n".join(
            [_conditions(), *(line for name, path, inputs in _models(arguments, Path(temporary))
                              for line in _measured(name, path, inputs, arguments))]
        )  # fmt: skip
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure samples per second.")
    parser.add_argument("--samples", type=int, default=64, help="Samples of each model.")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--decide", action="store_true", help="Measure whole commands.")
    parser.add_argument("--no-generated", action="store_true", help="Leave the CNN out.")
    add_arguments(parser)
    parser.add_argument("--output", type=Path, help="Markdown file to write.")
    arguments = parser.parse_args()
    if arguments.samples <= max(arguments.workers):
        parser.error("there must be more samples than workers")
    return arguments


def _models(arguments: argparse.Namespace, folder: Path) -> list[tuple[str, Path, Path | None]]:
    models: list[tuple[str, Path, Path | None]] = [
        (given.title, given.model, given.inputs) for given in given_models(arguments)
    ]
    if not arguments.no_generated:
        path = folder / "resnet50.onnx"
        MODELS[_GENERATED].write(path, external=False)
        models.append((MODELS[_GENERATED].title, path, None))
    return models


def _measured(
    name: str, path: Path, inputs: Path | None, arguments: argparse.Namespace
) -> list[str]:
    plans = [(count, _THREADS) for count in arguments.workers] + [(0, min(_cores(), 16))]
    if arguments.decide:
        given = {"model": str(path), "inputs": None if inputs is None else str(inputs)}
        return _deciding_table(name, given, plans, arguments.samples)
    runs = [_run(path, inputs, count, threads, arguments.samples) for count, threads in plans]
    return _table(name, runs)


def _run(path: Path, inputs: Path | None, workers: int, threads: int, samples: int) -> Run:
    found = measure(
        _TASK,
        {
            "model": str(path),
            "inputs": None if inputs is None else str(inputs),
            "workers": workers,
            "threads": threads,
            "samples": samples,
        },
    )
    return Run(workers, threads, samples, **found.result)


def _table(name: str, runs: Sequence[Run]) -> list[str]:
    alone = next((run for run in runs if run.workers == 1), None)
    lines = [
        f"\n## {name}, {runs[0].samples} samples\n",
        "| processes | threads | wall time | set-up | samples/s | per worker | memory of each |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        each = 1.0 / alone.samples_per_second if alone else 0.0
        share = f"{efficiency(run, alone):.2f}" if alone and run.workers else "-"
        lines.append(
            f"| {f'workers: {run.workers}' if run.workers else 'one, no workers'} | {run.threads} "
            f"| {run.seconds:.1f} s | {max(run.first_seconds - each, 0.0):.1f} s "
            f"| {run.samples_per_second:.2f} | {share} | {run.worker_bytes / _MIB:.0f} MiB |"
        )
    best = max(runs, key=lambda run: run.samples_per_second)
    seconds = extrapolate(best, samples=_MANY_SAMPLES, machines=_MANY_MACHINES)
    lines.append(
        f"\nExtrapolated, not measured: {_MANY_SAMPLES} samples on {_MANY_MACHINES} machines like "
        f"this one, each as fast as the best row ({best.samples_per_second:.2f} samples/s), take "
        f"{seconds / 60:.1f} minutes."
    )
    return lines


def _deciding_table(
    name: str, given: Mapping[str, Any], plans: Sequence[tuple[int, int]], samples: int
) -> list[str]:
    lines = [
        f"\n## {name}, {samples} samples, whole commands\n",
        "| processes | threads | start | ranking | choice | sets | runs of sets/s | verify |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for workers, threads in plans:
        options = {**given, "workers": workers, "threads": threads, "samples": samples}
        found = measure(_DECIDING_TASK, options).result
        runs = found["sets"] * samples / found["choice_seconds"]
        lines.append(
            f"| {f'workers: {workers}' if workers else 'one, no workers'} | {threads} "
            f"| {found['start_seconds']:.1f} s | {found['rank_seconds']:.1f} s "
            f"| {found['choice_seconds']:.1f} s | {found['sets']} | {runs:.1f} "
            f"| {found['verify_seconds']:.1f} s |"
        )
    return lines


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _conditions() -> str:
    return (
        f"Measured on {_cores()} CPUs ({platform.machine()}), Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()
