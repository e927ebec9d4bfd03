"""Where the time of a ranking goes, phase by phase, on the main thread and beside it.

Usage: python benchmarks/ranking_profile.py [--models bert-base resnet50] [--repeats 5]

Every phase is timed without the phases that it calls. What runs beside the main thread (sums,
weights that are read ahead, the other sweeps) is shown apart. Times are wall times: on a machine
that does other things, they say little.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cost_tasks import load_sample, write_model
from benchmarks.models import MODELS
from polygraphy_layerprec.pipeline import rank_model

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PHASES", "main", "profile"]

_PACKAGE = "polygraphy_layerprec"
_MAIN, _BESIDE = "main", "beside"

PHASES = (
    ("pipeline", "load_graph", "reading the graph"),
    ("execution.kernels.node_session", "NodeRunner._cached_session", "making sessions"),
    ("execution.kernels.node_session", "NodeRunner.run", "running nodes"),
    ("execution.kernels.weights_in_use", "WeightsInUse.load", "weights, reading"),
    ("execution.kernels.weights_in_use", "WeightsInUse.round", "weights, rounding"),
    ("execution.kernels.weights_ahead", "_read", "weights, ahead"),
    ("execution.emulation.layer_outputs", "LayerOutputs.__init__", "rounding candidates"),
    ("execution.emulation.layer_outputs", "LayerOutputs.facts", "looking at outputs"),
    ("execution.emulation.layer_outputs", "LayerOutputs.measure", "sums of outputs"),
    ("execution.emulation.node_comparer", "carry_overflows", "carrying overflows"),
    ("execution.comparison.tape_recorder", "TapeRecorder.record", "recording"),
    ("execution.comparison.tape_recorder", "fast_product", "sweep, products"),
    ("divergence.recorded_values", "RecordedValues.values", "sweep, reading values"),
    ("divergence.backward_sweep", "BackwardSweep._hand_on", "sweep, rules"),
    ("divergence.backward_sweep", "BackwardSweep._deliver", "sweep, handing on"),
    ("divergence.backward_sweep", "BackwardSweep._weigh", "sweep, weighing errors"),
    ("pipeline", "rank", "all the rest"),
)
"""Module, function, and what the table calls it. A call is timed without the phases within it."""


class _Clock:
    """Sums the time of phases, each without those that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._own = threading.local()
        self._lock = threading.Lock()

    def timed(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            inner: list[float] = self._own.__dict__.setdefault("inner", [])
            inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.perf_counter() - start
                own = spent - inner.pop()
                if inner:
                    inner[-1] += spent
                is_main = threading.current_thread() is threading.main_thread()
                with self._lock:
                    self.seconds[label, _MAIN if is_main else _BESIDE] += own

        return call


def main() -> None:
    """Prints a table for each model."""
    parser = argparse.ArgumentParser(description="Show where the time of a ranking goes.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["bert-base", "resnet50"])
    parser.add_argument("--repeats", type=int, default=5, help="Rankings to take the median of.")
    parser.add_argument("--cache-dir", type=Path, help="Where to keep the models between runs.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.cache_dir or Path(temporary)
        for name in arguments.models:
            path = folder / f"{name}-embedded.onnx"
            if not path.exists():
                write_model(name, str(path), external=False, samples=1)
            print(_table(MODELS[name].title, profile(path, arguments.repeats)))


def profile(path: Path, repeats: int) -> dict[str, tuple[float, float]]:
    """Returns the milliseconds of each phase, on the main thread and beside it: medians.

    Args:
        path: A model; its sample stands beside it as `<path>.0.npz`.
        repeats: How many rankings by adjoint to time, after one that warms up.
    """
    sample = load_sample(f"{path}.0.npz")
    rank_model(str(path), [sample])
    runs = [_one_run(path, sample) for _ in range(repeats)]
    return {
        label: (_median(runs, label, _MAIN), _median(runs, label, _BESIDE))
        for _, _, label in PHASES
    }


def _one_run(path: Path, sample: dict[str, Any]) -> dict[tuple[str, str], float]:
    clock, replaced = _Clock(), []
    for module_name, name, label in PHASES:
        holder: Any = importlib.import_module(f"{_PACKAGE}.{module_name}")
        *owner, attribute = name.split(".")
        for part in owner:
            holder = getattr(holder, part)
        function = getattr(holder, attribute)
        replaced.append((holder, attribute, function))
        setattr(holder, attribute, clock.timed(function, label))
    try:
        rank_model(str(path), [sample])
    finally:
        for holder, attribute, function in replaced:
            setattr(holder, attribute, function)
    return dict(clock.seconds)


def _median(runs: list[dict[tuple[str, str], float]], label: str, where: str) -> float:
    return 1e3 * statistics.median(run.get((label, where), 0.0) for run in runs)


def _table(title: str, phases: dict[str, tuple[float, float]]) -> str:
    ordered = sorted(phases.items(), key=lambda item: -sum(item[1]))
    rows = [f"| {label} | {at:.1f} | {beside:.1f} |" for label, (at, beside) in ordered]
    at, beside = (sum(column) for column in zip(*phases.values(), strict=True))
    return "\n".join(
        [
            f"| {title} | main thread, ms | beside it, ms |",
            "|---|---|---|",
            *rows,
            f"| in all | {at:.1f} | {beside:.1f} |",
            "",
        ]
    )


if __name__ == "__main__":
    main()
