"""What the script and the mixed model cost when TensorRT builds an engine, beside other tools.

Usage: POLYGRAPHY_USE_TENSORRT_RTX=1 python benchmarks/engine_build.py --peer-env DIR

Every conversion and every build has a process of its own. All ways are gone through in one order,
then in the reverse one, and so on; medians are shown. Wall time depends on what else runs; user
time, which the threads of the process spend computing, hardly does. Memory is the peak above the
level after the imports. Building needs no GPU with TensorRT-RTX.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.build_recipes import Recipe, recipes_for
from benchmarks.given_models import GivenModel, add_arguments, given_models
from benchmarks.isolated import Measurement, measure
from benchmarks.models import MODELS
from benchmarks.peer_environment import PeerEnvironment, peer_environment
from polygraphy_layerprec.backend.engines.tensorrt_module import load_tensorrt

__all__ = ["main"]

_MIB = 1 << 20
_MOST_TIME_RATIO = _MOST_MEMORY_RATIO = 1.2
_MOST_SIZE_RATIO = 0.55
_JUDGED = "bert-base"  # the goals are about it; a small engine is mostly code


@dataclass(slots=True)
class Builds:
    """What was measured of one recipe."""

    recipe: Recipe
    """The way to the engine."""

    conversions: list[Measurement] = field(default_factory=list)
    """Its conversions; none where the FP32 model is built."""

    builds: list[Measurement] = field(default_factory=list)
    """Its builds."""

    problem: str = ""
    """Why there is no engine; empty if there is one."""


def main() -> None:
    """Measures every model, and prints the tables."""
    arguments = _parse()
    trt = load_tensorrt()
    environment = _peer_environment(arguments.peer_env)
    machine = f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}"
    lines = [
        "# What an engine costs to build",
        "",
        "Measured by `benchmarks/engine_build.py` in one run:",
        f"{machine}, {trt.__name__} {trt.__version__}; medians of {arguments.repeats}.",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for given in _models(arguments, arguments.cache_dir or folder):
            recipes = recipes_for(given, environment, folder)
            measured = _measure(given, recipes, arguments, folder)
            ratios = _ratios(measured, is_judged=given.name == _JUDGED)
            lines += ["", f"## {given.title}", "", *_table(measured), "", *ratios]
    text = "\n".join([*lines, ""])
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what an engine costs to build.")
    parser.add_argument("--peer-env", type=Path, help="Folder of the peers' venv; else left out.")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=["bert-base"])
    add_arguments(parser)
    parser.add_argument("--repeats", type=int, default=4, help="Builds per figure.")
    parser.add_argument("--timeout", type=float, default=900.0, help="Seconds for each process.")
    parser.add_argument("--cache-dir", type=Path, help="Where to keep the models between runs.")
    parser.add_argument("--output", type=Path, help="Markdown file to write.")
    return parser.parse_args()


def _peer_environment(folder: Path | None) -> PeerEnvironment | None:
    environment = None if folder is None else peer_environment(folder)
    if environment is None or environment.problem:
        reason = environment.problem if environment else "give --peer-env"
        print(f"The peers are left out: {reason}", file=sys.stderr)
        return None
    return environment


def _models(arguments: argparse.Namespace, folder: Path) -> list[GivenModel]:
    made = [_made(name, folder) for name in arguments.models]
    return made + given_models(arguments)


def _made(name: str, folder: Path) -> GivenModel:
    model = MODELS[name]
    given = GivenModel(name, model.title, folder / f"{name}.onnx", folder / f"{name}.npz")
    if not given.model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        model.write(given.model, external=model.external)
    np.savez(given.inputs, **model.sample(0))  # type: ignore[arg-type]
    return given


def _measure(
    given: GivenModel, recipes: Sequence[Recipe], arguments: argparse.Namespace, folder: Path
) -> list[Builds]:
    measured = [Builds(recipe) for recipe in recipes]
    for turn in range(arguments.repeats):
        for builds in measured if turn % 2 == 0 else reversed(measured):
            if builds.problem:
                continue
            print(f"{given.title}: {builds.recipe.title}, {turn + 1}", file=sys.stderr, flush=True)
            try:
                _convert_and_build(builds, given.model, folder, arguments.timeout)
            except RuntimeError as error:
                builds.problem = str(error)
    return measured


def _convert_and_build(builds: Builds, model: Path, folder: Path, timeout_seconds: float) -> None:
    recipe, path = builds.recipe, str(model)
    if recipe.task:
        path = str(folder / "converted.onnx")
        options = {"model": str(model), "output": path, **recipe.arguments}
        builds.conversions.append(
            measure(recipe.task, options, python=recipe.python, timeout_seconds=timeout_seconds)
        )
    build = {"model": path, "script": recipe.script}
    builds.builds.append(
        measure("benchmarks.build_tasks:build", build, timeout_seconds=timeout_seconds)
    )


def _table(measured: Sequence[Builds]) -> Iterator[str]:
    yield "| | conversion | build | engine | of FP32 | FP16 tensors |"
    yield "|---|---|---|---|---|---|"
    fp32_bytes = measured[0].builds[0].result["engine_bytes"]
    for builds in measured:
        cells = [builds.recipe.title, _cost(builds.conversions)]
        if builds.problem:
            reason = builds.problem.replace("|", "/").split(" / ")[-1]  # the last line said
            yield f"| {' | '.join(cells)} | no engine: {reason} | | | |"
            continue
        result = builds.builds[0].result
        size = result["engine_bytes"]
        cells += [
            _cost(builds.builds),
            f"{size / _MIB:.1f} MiB",
            f"{size / fp32_bytes:.2f} x",
            f"{result['low_tensors']} of {result['float_tensors']}",
        ]
        yield f"| {' | '.join(cells)} |"


def _cost(runs: Sequence[Measurement]) -> str:
    if not runs:
        return "-"
    wall, user, peak = _medians(runs)
    return f"{wall:.1f} s, {user:.1f} s user, {peak / _MIB:.0f} MiB"


def _medians(runs: Sequence[Measurement]) -> tuple[float, float, float]:
    return (
        statistics.median(run.seconds for run in runs),
        statistics.median(run.user_seconds for run in runs),
        statistics.median(run.peak_bytes for run in runs),
    )


def _ratios(measured: Sequence[Builds], *, is_judged: bool) -> Iterator[str]:
    yield "| build, in multiples of the FP32 build | wall | user | memory | size | goals |"
    yield "|---|---|---|---|---|---|"
    base = _figures(measured[0])
    most = (_MOST_TIME_RATIO, float("inf"), _MOST_MEMORY_RATIO, _MOST_SIZE_RATIO)
    if is_judged:
        yield f"| goal for ours | ≤ {most[0]} x | - | ≤ {most[2]} x | ≤ {most[3]} x | |"
    for builds in measured[1:]:
        if builds.problem:
            continue
        ratios = [own / fp32 for own, fp32 in zip(_figures(builds), base, strict=True)]
        verdict = _verdict(ratios, most) if is_judged and builds.recipe.is_own else "-"
        cells = [builds.recipe.title, *(f"{ratio:.2f} x" for ratio in ratios), verdict]
        yield f"| {' | '.join(cells)} |"


def _verdict(ratios: Sequence[float], most: Sequence[float]) -> str:
    names = ("wall", "user", "memory", "size")
    missed = [name for name, x, limit in zip(names, ratios, most, strict=True) if x > limit]
    return f"missed: {', '.join(missed)}" if missed else "reached"


def _figures(builds: Builds) -> tuple[float, float, float, float]:
    return (*_medians(builds.builds), builds.builds[0].result["engine_bytes"])


if __name__ == "__main__":
    main()
