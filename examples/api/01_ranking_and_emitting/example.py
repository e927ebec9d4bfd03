"""Ranks the layers of a model, chooses what stays in FP32, and writes what keeps it there."""

from __future__ import annotations

import numpy as np

from polygraphy_layerprec import load_ranking, rank_model, save_ranking
from polygraphy_layerprec.emit.mixed_onnx import save_mixed_onnx
from polygraphy_layerprec.emit.network_script import render_network_script, save_network_script
from polygraphy_layerprec.pipeline import select_constraints
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.selection import SelectionRequest, constraints_of

__all__ = ["main"]

MODEL, INPUTS = "demo.onnx", "demo_inputs.npz"
TOLERANCE = 2e-3
"""Relative L2 error of the outputs."""


def main() -> None:
    """Ranks, selects and saves in the working folder."""
    samples = [dict(np.load(INPUTS))]
    ranking = rank_model(MODEL, samples)
    for layer in ranking.layers[:8]:
        print(f"{layer.rank:3} {layer.op:<10} {layer.impact:8.1e} {layer.name} | {layer.reason}")
    print(f"Every layer in FP16: error {ranking.output_error.measured:.3g}")
    save_ranking(ranking, "ranking.json")
    assert load_ranking("ranking.json") == ranking

    request = SelectionRequest(tolerance=TOLERANCE)
    selection = select_constraints(ranking, request, model=MODEL, samples=samples)
    print(f"{selection.cost.layer_count} layers in FP32: error {selection.measured_error:.3g}")
    constraints = constraints_of(selection)
    script = render_network_script(
        constraints,
        precision=PRECISIONS[ranking.precision],
        model_name=ranking.model.name,
        model_digest=ranking.model.digest,
    )
    save_network_script(script, "constraints.py")

    fp32_outputs = [constraint.outputs[0] for constraint in constraints]
    summary = save_mixed_onnx(MODEL, "mixed.onnx", fp32_outputs, precision=PRECISIONS["fp16"])
    print(f"mixed.onnx: {summary.lowered} nodes lowered, {summary.casts} casts")


if __name__ == "__main__":
    main()
