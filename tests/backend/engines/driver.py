"""`polygraphy layerprec` with real builds, and a stand-in for the GPU that would run the engines.

Run as a script, it takes a verb and its arguments. `kill_at_random` stops such runs half-way.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import onnx

from polygraphy_layerprec.backend.engines import building, tensorrt_module
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.tools.main import main
from tests.backend.engines.stand_in import StandIn

__all__ = ["kill_at_random", "run"]

_LONGEST_SECONDS = 0.3

BUILD_LOG = "LAYERPREC_TEST_BUILD_LOG"
"""Environment variable with the path of a file that gets a line for each build that begins."""


REAL_RUNTIME = "LAYERPREC_TEST_REAL_RUNTIME"
"""Environment variable that leaves the runtime as it is, to see it fail where there is no GPU."""


def run(arguments: list[str]) -> int:
    """Runs a verb as the command line does, and returns its exit code."""
    model_path = arguments[1]
    stand_in = StandIn(onnx.load(model_path), load_graph(model_path))
    if REAL_RUNTIME not in os.environ:
        building.open_engine = lambda spec, plan, _: stand_in.open(spec, plan)
    tensorrt_module.check_gpu = lambda: None
    log = os.environ.get(BUILD_LOG)
    if log is not None:
        _log_builds(log)
    return main(arguments)


def kill_at_random(arguments: list[str], *, kills: int, seed: int) -> int:
    """Runs a verb in process after process, each killed at a random moment.

    That is a while after up to three builds began: so the runs get on, however slow the
    machine is.

    Returns:
        How many of the processes were killed before they were done.
    """
    draws = random.Random(seed)
    killed = 0
    for _ in range(kills):
        wanted = _count_builds() + draws.choice((0, 1, 2, 3))
        child = os.fork()
        if child == 0:
            os._exit(run(arguments))
        status = None
        while status is None and _count_builds() < wanted:
            time.sleep(0.005)
            done, found = os.waitpid(child, os.WNOHANG)
            status = found if done else None
        if status is None:
            time.sleep(draws.uniform(0.0, _LONGEST_SECONDS))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
    return killed


def _count_builds() -> int:
    try:
        with open(os.environ[BUILD_LOG], encoding="utf-8") as file:
            return len(file.readlines())
    except FileNotFoundError:
        return 0


def _log_builds(path: str) -> None:
    build = building.TensorrtEngines.build

    def logged(self, spec, **options):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{spec.describe()} {spec.marked}\n")
        return build(self, spec, **options)

    building.TensorrtEngines.build = logged


if __name__ == "__main__":
    if sys.argv[1] == "--kill":
        _, _, kills, seed, *own = sys.argv
        killed = kill_at_random(own, kills=int(kills), seed=int(seed))
        sys.stdout.write(f"killed: {killed}\n")
    else:
        sys.exit(run(sys.argv[1:]))
