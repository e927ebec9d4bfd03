"""Measures sets of layers in FP32 that somebody thought of, without a ranking."""

from __future__ import annotations

import numpy as np

from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.pipeline import measure_exact_impacts, measure_output_error

__all__ = ["main"]

MODEL, INPUTS = "demo.onnx", "demo_inputs.npz"


def main() -> None:
    """Prints the output error of each set."""
    samples = [dict(np.load(INPUTS))]
    graph = load_graph(MODEL)
    sets = {
        "nothing": (),
        "normalizations": [node.outputs[0] for node in graph.nodes if "norm/" in node.name],
        "the shift": [node.outputs[0] for node in graph.nodes if "/shift/" in node.name],
        "both": [n.outputs[0] for n in graph.nodes if "norm/" in n.name or "/shift/" in n.name],
    }
    for title, fp32_outputs in sets.items():
        error = measure_output_error(graph, samples, fp32_outputs=fp32_outputs)
        print(f"In FP32: {title:<15} {len(fp32_outputs):3} layers | output error {error:.2e}")

    alone = measure_exact_impacts(graph, samples, layers=sets["the shift"])
    for output, impact in alone.items():
        print(f"Alone in FP16: {output:<30} | output error {impact:.2e}")


if __name__ == "__main__":
    main()
