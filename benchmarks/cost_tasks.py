"""What the cost benchmark runs in processes of their own. Everything is imported up front."""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from polygraphy.backend.onnx import BytesFromOnnx, ModifyOutputs, OnnxFromPath
from polygraphy.backend.onnx.util import all_tensor_names
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator, SimpleCompareFunc
from polygraphy.logger import G_LOGGER

from benchmarks.cast_pairs import with_cast_pairs
from benchmarks.models import MODELS
from polygraphy_layerprec.execution.kernels.sessions import available_threads
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import rank_model, select_constraints
from polygraphy_layerprec.selection import SelectionRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

__all__ = [
    "choose",
    "graph_work",
    "load_sample",
    "mark_all_and_compare",
    "plain_forward",
    "rank",
    "rank_again",
    "write_candidate",
    "write_model",
]


_TOLERANCE = 5e-3  # where half of the error is no less than it


def write_model(name: str, path: str, *, external: bool, samples: int) -> None:
    """Writes a model, and its input samples as `<path>.<index>.npz`."""
    model = MODELS[name]
    for index in range(samples):
        arrays: dict[str, Any] = model.sample(index)
        np.savez(f"{path}.{index}.npz", **arrays)
    model.write(Path(path), external=external)


def write_candidate(model: str, path: str) -> None:
    """Writes the model with every float tensor rounded to FP16, for `mark_all_and_compare`."""
    Path(path).write_bytes(with_cast_pairs(onnx.load(model)).SerializeToString())


def plain_forward(model: str, sample: str, repeats: int) -> dict[str, float]:
    """Returns the median time of one forward, after two that warm up; the session is not in it."""
    options = ort.SessionOptions()
    # Left to itself, it takes every core of the machine, though this process is bound to a few.
    options.intra_op_num_threads = available_threads()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = load_sample(sample)
    seconds = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        session.run(None, feed)
        seconds.append(time.perf_counter() - start)
    return {"median_seconds": statistics.median(seconds[2:]), "best_seconds": min(seconds)}


def rank(
    model: str, samples: Sequence[str], impact: Literal["adjoint", "gain"]
) -> dict[str, float]:
    """Returns what the ranking found, ranked from a path with all set-up."""
    ranking = rank_model(model, _stream(samples), impact=impact)
    return {
        "layers": len(ranking.layers),
        "unmeasured": len(ranking.unmeasured),
        "measured": ranking.output_error.measured,
        "forecast": ranking.output_error.forecast,
    }


def rank_again(model: str, sample: str, count: int) -> dict[str, float]:
    """Returns the seconds of the first sample of a ranking, set-up included, and of the later ones.

    Args:
        model: Path of the model.
        sample: Path of an input sample, which is ranked with again and again.
        count: How often.
    """
    asked: list[float] = []

    def stream() -> Iterator[dict[str, npt.NDArray[Any]]]:
        for _ in range(count):
            asked.append(time.perf_counter())
            yield loaded

    loaded = load_sample(sample)
    start = time.perf_counter()
    rank_model(model, stream())
    ends = [*asked[1:], time.perf_counter()]
    later = [end - begin for begin, end in zip(asked[1:], ends[1:], strict=True)]
    return {"first_seconds": ends[0] - start, "later_seconds": statistics.median(later)}


def choose(model: str, sample: str) -> dict[str, float]:
    """Returns the seconds that the choice for half of the error takes, and the sets it measures."""
    graph, samples = load_graph(model), [load_sample(sample)]
    ranking = rank_model(graph, samples)
    measured = ranking.output_error.measured
    request = SelectionRequest(tolerance=measured / 2 if math.isfinite(measured) else _TOLERANCE)
    runs: list[str] = []
    start = time.perf_counter()
    select_constraints(
        ranking,
        request,
        model=graph,
        samples=samples,
        progress=lambda _done, _total, what: runs.append(what),  # of a single sample: once a set
    )
    return {"seconds": time.perf_counter() - start, "sets": len(runs)}


def graph_work(model: str) -> tuple[int, ...]:
    """Returns the sizes of what the ranking makes of the model file before it runs anything."""
    graph = load_graph(model)
    return len(graph.nodes), len(graph.producers), len(graph.consumers)


def mark_all_and_compare(model: str, candidate: str, sample: str) -> dict[str, float]:
    """Returns how many tensors Polygraphy compared: all of them are outputs of two sessions."""
    G_LOGGER.module_severity = {"": G_LOGGER.CRITICAL}
    names = all_tensor_names(onnx.load(model, load_external_data=False))
    runners = [
        OnnxrtRunner(SessionFromOnnx(BytesFromOnnx(ModifyOutputs(OnnxFromPath(path), names))), name)
        for name, path in (("reference", model), ("candidate", candidate))
    ]
    results = Comparator.run(runners, data_loader=[load_sample(sample)])
    accuracy = Comparator.compare_accuracy(results, compare_func=SimpleCompareFunc())
    return {"tensors": len(names), "passed": float(bool(accuracy))}


def _stream(samples: Sequence[str]) -> Iterator[dict[str, npt.NDArray[Any]]]:
    for path in samples:
        yield load_sample(path)


def load_sample(path: str) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of a `.npz` file by name."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
