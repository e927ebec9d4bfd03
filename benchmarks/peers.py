"""What two other tools keep in FP32 on the same models, at what cost, and what it is worth.

Usage: python benchmarks/peers.py --peer-env DIR --digits cnn.onnx --digits-inputs cnn.npz

The tools are ModelOpt AutoCast and auto_mixed_precision of onnxconverter-common. They live in a
virtual environment of their own, which is made in DIR on the first run. The output error is that of
our emulation with their FP32 layers, not of their own runtime, which does not round on a CPU.
"""

from __future__ import annotations

import argparse
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
from polygraphy_layerprec.pipeline import measure_output_error, rank_model
from polygraphy_layerprec.precision import FP16

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Ranking

__all__ = ["main"]

_PEERS = {"ModelOpt AutoCast": "autocast", "auto_mixed_precision": "auto_mixed_precision"}
_MIB = 1 << 20


def main() -> None:
    """Measures every model that was given, and prints the table."""
    arguments = _parse()
    environment = peer_environment(arguments.peer_env)
    lines = [
        "# What other tools keep in FP32",
        "",
        "| model | tool | seconds | peak memory | layers in FP32 | output error |",
        "|---|---|---|---|---|---|",
    ]
    for given in given_models(arguments):
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


def _rows(given: GivenModel, environment: PeerEnvironment, timeout_seconds: float) -> list[str]:
    rank = {"model": str(given.model), "samples": [str(given.inputs)], "impact": "adjoint"}
    own = measure("benchmarks.cost_tasks:rank", rank)
    samples = [given.sample()]
    ranking = rank_model(given.model, samples, precision=FP16)
    count = len(ranking.layers)
    rows = [_row(given, "all in FP16", None, f"0 / {count}", _error(given, ranking, set()))]
    for title, task in _PEERS.items():
        try:
            cost, kept = _peer(given, task, ranking, environment, timeout_seconds)
        except RuntimeError as error:
            reason = str(error).replace("|", "/")
            rows.append(f"| {given.title} | {title} | left out: {reason} | | | |")
            continue
        label = f"{len(kept)} / {count}"
        rows.append(_row(given, title, cost, label, _error(given, ranking, kept)))
        ours = {layer.outputs[0] for layer in ranking.layers[: len(kept)]}
        rows.append(_row(given, "this ranking", own, label, _error(given, ranking, ours)))
    return rows


def _peer(
    given: GivenModel,
    task: str,
    ranking: Ranking,
    environment: PeerEnvironment,
    timeout_seconds: float,
) -> tuple[Measurement, set[str]]:
    if environment.problem:
        raise RuntimeError(environment.problem)
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "mixed.onnx")
        cost = measure(
            f"benchmarks.peer_tasks:{task}",
            {"model": str(given.model), "sample": str(given.inputs), "output": output},
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
    given: GivenModel, title: str, cost: Measurement | None, kept: str, output_error: float
) -> str:
    time, memory = "-", "-"
    if cost is not None:
        time, memory = f"{cost.seconds:.1f}", f"{cost.peak_bytes / _MIB:.0f} MiB"
    return f"| {given.title} | {title} | {time} | {memory} | {kept} | {output_error:.2e} |"


if __name__ == "__main__":
    main()
