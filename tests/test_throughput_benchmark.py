"""What the benchmark of throughput makes of its measurements, and that it measures."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from benchmarks.throughput import Run, efficiency, extrapolate
from benchmarks.throughput_task import decide_on_many, rank_many
from tests.models import sample_inputs, small_transformer


def run_of(workers, *, per_sample, samples=64):
    """A run whose workers start after 3 s and take `per_sample` seconds for each sample."""
    last = 3.0 + per_sample * samples / workers
    return Run(
        workers=workers,
        threads=2,
        samples=samples,
        seconds=last + 1.0,
        first_seconds=3.0 + per_sample,
        round_seconds=3.0 + per_sample,
        last_seconds=last,
        worker_bytes=1,
    )


def test_workers_that_do_not_disturb_one_another_count_fully():
    alone = run_of(1, per_sample=0.5)

    assert alone.samples_per_second == pytest.approx(2.0)
    assert efficiency(run_of(8, per_sample=0.5), alone) == pytest.approx(1.0)
    assert efficiency(run_of(8, per_sample=1.0), alone) == pytest.approx(0.5)


def test_an_extrapolation_takes_set_up_once_and_divides_the_rest():
    run = run_of(8, per_sample=0.5)

    # 16 samples a second on each of 10 machines; set-up and end take 4.5 s.
    assert extrapolate(run, samples=16_000, machines=10) == pytest.approx(100.0 + 4.5)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_task_tells_times_in_order_and_memory(tmp_path, workers):
    model = small_transformer()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **sample_inputs(model))

    found = rank_many(
        str(tmp_path / "model.onnx"),
        str(tmp_path / "inputs.npz"),
        workers=workers,
        threads=1,
        samples=6,
    )

    times = [found[f"{name}seconds"] for name in ("first_", "round_", "last_", "")]
    assert times == sorted(times)
    assert times[0] > 0.0
    assert found["worker_bytes"] > 1 << 20


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_commands_are_measured_step_by_step(tmp_path, workers):
    onnx.save(small_transformer(), tmp_path / "model.onnx")

    found = decide_on_many(
        str(tmp_path / "model.onnx"), None, workers=workers, threads=1, samples=3
    )

    assert found.pop("sets") > 2
    assert all(seconds > 0.0 for seconds in found.values())
