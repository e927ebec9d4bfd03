"""What the benchmark on a GPU makes of a device, on one that stands in for it."""

from __future__ import annotations

from types import SimpleNamespace

import onnx

from benchmarks.gpu import Case, Timing, _row
from tests.models import sample_inputs, small_cnn
from tests.standin_device import StandInDevice


def test_set_up_is_not_part_of_the_steady_time():
    timing = Timing([9.0, 1.0, 2.0, 3.0], ranking=None)

    assert timing.steady == 2.0


def test_a_row_compares_both_sides(tmp_path):
    onnx.save(small_cnn(), tmp_path / "model.onnx")
    case = Case("small", tmp_path / "model.onnx", sample_inputs(small_cnn()))
    device = StandInDevice()

    row = _row("mlp", case, device, SimpleNamespace(gpu_runs=2, cpu_runs=2))

    assert device.runs
    title, layers, there, here, ratio, goal, _, order, apart, sets = row.strip("| ").split(" | ")
    assert (title, goal, order, apart) == ("small", "5x", "1.0000", "0.0 %")
    assert int(layers) > 0
    assert float(ratio[:-1]) > 0.0
    assert there.endswith(" s")
    assert here.endswith(" s")
    found, expected = sets.partition(",")[0].split(" / ")
    assert found == expected
