"""What other tools keep in FP32 on the same models, at what cost, and what it is worth.

Usage: python benchmarks/peers.py --peer-env DIR --digits cnn.onnx --digits-inputs cnn.npz

The tools are ModelOpt AutoCast, auto_mixed_precision and float16 of onnxconverter-common, and
float16 of ONNX-Runtime. They live in a virtual environment of their own, made in DIR on the
first run. The output error is that of our emulation with their FP32 layers, not of their own
runtime, which does not round on a CPU. The demo, with its planted hazards, is always measured.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.given_models import GivenModel, add_arguments, given_models
from benchmarks.isolated import Measurement, measure
from benchmarks.peer_choice import fp32_layers
from benchmarks.peer_environment import PeerEnvironment, peer_environment
from polygraphy_layerprec.pipeline import measure_output_error, rank_model, select_constraints
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.selection import SelectionRequest

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Ranking

__all__ = ["main"]

_PEERS = {
    "ModelOpt AutoCast": ("autocast", True),
    "auto_mixed_precision": ("auto_mixed_precision", True),
    "onnxconverter-common float16": ("converter_float16", False),
    "ONNX-Runtime float16": ("onnxruntime_float16", False),
}
"""What each of them does, and whether it takes a sample."""
_MIB = 1 << 20
_EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "make_demo_model.py"


def main() -> None:
    """Measures every model that was given, and prints the table."""
    arguments = _parse()
    environment = peer_environment(arguments.peer_env)
    lines = [
        "# What other tools keep in FP32",
        "",
        "| model | tool | seconds | peak memory | layers in FP32 | operations | output error |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for given in [_demo(Path(folder)), *given_models(arguments)]:
            lines += _rows(given, environment, arguments.timeout)
    text = "\n".join([*lines, ""])
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare with other tools on the same models.")
    parser.add_argument("--peer-env", type=Path, required=True, help="Folder of their venv.")
    add_arguments(parser)
    parser.add_argument("--timeout", type=float, default=900.0, help="Seconds for each of them.")
    parser.add_argument("--output", type=Path, help="Markdown file to write.")
    return parser.parse_args()


def _demo(folder: Path) -> GivenModel:
    subprocess.run([sys.executable, str(_EXAMPLE), str(folder)], check=True, capture_output=True)
    return GivenModel("demo", "demo", folder / "demo.onnx", folder / "demo_inputs.npz")


def _rows(given: GivenModel, environment: PeerEnvironment, timeout_seconds: float) -> list[str]:
    rank = {"model": str(given.model), "samples": [str(given.inputs)], "impact": "adjoint"}
    own = measure("benchmarks.cost_tasks:rank", rank)
    ranking = rank_model(given.model, [given.sample()], precision=FP16)
    rows = [_row(given, "all in FP16", None, ranking, set())]
    for title, (task, takes_sample) in _PEERS.items():
        try:
            cost, kept = _peer(given, task, takes_sample, ranking, environment, timeout_seconds)
        except RuntimeError as error:
            reason = str(error).rpartition(" / ")[2].replace("|", "/")
            rows.append(f"| {given.title} | {title} | left out: {reason} | | | | |")
            continue
        rows.append(_row(given, title, cost, ranking, kept))
        if not kept:  # which is the first row again
            continue
        ours = {layer.outputs[0] for layer in ranking.layers[: len(kept)]}
        rows.append(_row(given, f"this ranking, {len(kept)} layers", own, ranking, ours))
    chosen = select_constraints(
        ranking, SelectionRequest(), model=given.model, samples=[given.sample()]
    )
    ours = {layer.outputs[0] for layer in chosen.layers}
    rows.append(_row(given, "this choice, by the default criterion", None, ranking, ours))
    return rows


def _peer(
    given: GivenModel,
    task: str,
    takes_sample: bool,  # noqa: FBT001 - of a table
    ranking: Ranking,
    environment: PeerEnvironment,
    timeout_seconds: float,
) -> tuple[Measurement, set[str]]:
    if environment.problem:
        raise RuntimeError(environment.problem)
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "mixed.onnx")
        sample = {"sample": str(given.inputs)} if takes_sample else {}
        cost = measure(
            f"benchmarks.peer_tasks:{task}",
            {"model": str(given.model), "output": output, **sample},
            python=environment.python,
            timeout_seconds=timeout_seconds,
        )
        layers = [(layer.node_name, layer.outputs[0]) for layer in ranking.layers]
        return cost, fp32_layers(onnx.load(given.model), onnx.load(output), layers)


def _error(given: GivenModel, ranking: Ranking, kept: set[str]) -> float:
    outputs = {
        name for layer in ranking.layers if layer.outputs[0] in kept for name in layer.outputs
    }
    samples = [given.sample()]
    return measure_output_error(given.model, samples, fp32_outputs=outputs, precision=FP16)


def _row(
    given: GivenModel, title: str, cost: Measurement | None, ranking: Ranking, kept: set[str]
) -> str:
    time, memory = "-", "-"
    if cost is not None:
        time, memory = f"{cost.seconds:.1f}", f"{cost.peak_bytes / _MIB:.0f} MiB"
    flops = sum(layer.flops for layer in ranking.layers if layer.outputs[0] in kept)
    share = flops / sum(layer.flops for layer in ranking.layers)
    return (
        f"| {given.title} | {title} | {time} | {memory} | {len(kept)} / {len(ranking.layers)} | "
        f"{share:.1%} | {_error(given, ranking, kept):.2e} |"
    )


if __name__ == "__main__":
    main()
