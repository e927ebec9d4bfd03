"""What `throughput.py` runs in a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.distribution.distributed_ranking import rank_in_pool, rank_on_workers
from polygraphy_layerprec.distribution.distributed_sets import measure_in_pool
from polygraphy_layerprec.distribution.distributed_verification import verify_in_pool
from polygraphy_layerprec.distribution.worker_pool import worker_pool
from polygraphy_layerprec.execution.kernels.sessions import threads_per_session
from polygraphy_layerprec.execution.samples.plausible import draw_samples, plan_inputs
from polygraphy_layerprec.matching.requested_precisions import all_lowered
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.observing import RankRequest
from polygraphy_layerprec.pipeline import measured_model, rank, select_constraints
from polygraphy_layerprec.selection import SelectionRequest
from polygraphy_layerprec.verify import run_plainly, verify_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["decide_on_many", "rank_many"]


def rank_many(
    model: str, inputs: str | None, *, workers: int, threads: int, samples: int
) -> dict[str, float]:
    """Returns when the first sample, those of a round, the last and the ranking were done; memory.

    Args:
        model: Path of the model.
        inputs: Path of an `.npz` file with one sample, which is given many times; made up if None.
        workers: Worker processes; 0 for none.
        threads: Threads of each session.
        samples: How many samples.
    """
    start = time.perf_counter()
    first, of_round, last, seen = 0.0, 0.0, 0.0, 0
    peaks = [0]

    def tell(done: int, total: int, what: str) -> None:
        nonlocal first, of_round, last, seen
        share = done * samples // total if total else 0
        if what.startswith("sample") and share > seen:
            peaks.extend(_peak_bytes(child.pid) for child in multiprocessing.active_children())
            seen, last = share, time.perf_counter() - start
            first = first or last
            of_round = of_round if seen > max(workers, 1) else last

    stream = _samples(model, inputs, samples)
    options: dict[str, Any] = {"threads": threads, "sample_count": samples, "progress": tell}
    if workers:
        rank_on_workers(model, stream, workers, **options)
    else:
        rank_model(model, stream, **options)
    return {
        "seconds": time.perf_counter() - start,
        "first_seconds": first,
        "round_seconds": of_round,
        "last_seconds": last,
        "worker_bytes": max(peaks) if workers else _peak_bytes(os.getpid()),
    }


def decide_on_many(
    model: str, inputs: str | None, *, workers: int, threads: int, samples: int
) -> dict[str, float]:
    """Returns the seconds of a whole `rank` by steps and of a `verify`, and how many sets it took.

    The tolerance is half of the error with every layer lowered. The arguments are those of
    `rank_many`.
    """
    given = list(_samples(model, inputs, samples))
    graph = load_graph(model)
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if workers:
            pool = stack.enter_context(worker_pool(workers, model, graph, threads=threads))
            ranked, measured = partial(rank_in_pool, pool), partial(measure_in_pool, pool)
            verified = partial(verify_in_pool, pool)
        else:
            stack.enter_context(threads_per_session(threads))
            ranked, measured, verified = rank, measured_model, _verify_here(model)
        marks = [start, time.perf_counter()]
        ranking = ranked(graph, given, RankRequest())
        marks.append(time.perf_counter())
        tolerance = ranking.output_error.measured / 2
        sets = measured(ranking, graph, given, tolerance=tolerance)
        choice = select_constraints(ranking, SelectionRequest(tolerance=tolerance), model=sets)
        marks.append(time.perf_counter())
        verified(graph, given, all_lowered("fp16"))
        marks.append(time.perf_counter())
    steps = [after - before for before, after in itertools.pairwise(marks)]
    names = ("start_seconds", "rank_seconds", "choice_seconds", "verify_seconds")
    return {**dict(zip(names, steps, strict=True)), "sets": choice.measurements}


def _verify_here(model: str) -> Callable[..., Any]:
    """Returns what verifies in this process, FP32 in a plain session included."""
    return partial(verify_model, run_fp32=run_plainly(model))


def _peak_bytes(process: int) -> int:
    """Returns the peak of a process's resident memory, as Linux tells it."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/status", encoding="utf-8") as file:
        (line,) = (line for line in file if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return 0


def _samples(model: str, inputs: str | None, count: int) -> Iterator[dict[str, Any]]:
    if inputs is None:
        graph = load_graph(model)
        yield from draw_samples(plan_inputs(graph, shapes={}, val_range={}), iterations=count)
        return
    with np.load(inputs) as archive:
        sample = dict(archive)
    for _ in range(count):
        yield sample
