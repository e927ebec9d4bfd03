"""Rankings leave the threads of numpy's BLAS alone: woken once, they go on spinning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_RANK = """
import os
import time
from pathlib import Path

import numpy as np

def spent():
    stats = [Path(f"/proc/self/task/{thread}/stat").read_text() for thread in begun]
    return sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats)

begun = {task.name for task in Path("/proc/self/task").iterdir()} - {str(os.getpid())}
from onnx import TensorProto, helper, numpy_helper
from polygraphy_layerprec.pipeline import rank_model

rng = np.random.default_rng(0)
weight = numpy_helper.from_array(rng.standard_normal((256, 512)).astype(np.float32), "w")
bias = numpy_helper.from_array(rng.standard_normal(512).astype(np.float32), "b")
graph = helper.make_graph(
    [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Softmax", ["h"], ["p"]),
        helper.make_node("Mul", ["p", "h"], ["y"]),
    ],
    "net",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [128, 256])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [128, 512])],
    [weight, bias],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
sample = {"x": rng.standard_normal((128, 256)).astype(np.float32)}

time.sleep(0.5)  # those that numpy has just made spin, too
before = spent()
for impact in IMPACTS:
    rank_model(model, [sample], impact=impact)
time.sleep(0.5)
print(len(begun), spent() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of threads")
@pytest.mark.parametrize("impact", ["adjoint", "gain"])
def test_a_ranking_wakes_no_thread_of_blas(impact: str):
    script = _RANK.replace("IMPACTS", repr([impact] * 5))
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    threads, ticks = map(int, done.stdout.split())
    if not threads:
        pytest.skip("numpy's BLAS has no threads here")
    assert ticks <= 1
