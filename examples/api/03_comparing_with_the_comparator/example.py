"""Compares FP32 with emulated FP16 in Polygraphy's Comparator, as one does with engines."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec import rank_model, save_ranking
from polygraphy_layerprec.backend.emulated import (
    CandidateFromGraph,
    GraphFromOnnx,
    LayerprecRunner,
    PrecisionsFromRanking,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["main"]

MODEL, INPUTS = "demo.onnx", "demo_inputs.npz"


def main() -> None:
    """Prints whether FP16 agrees with FP32, without and with the worst layers in FP32."""
    samples = [dict(np.load(INPUTS))]
    save_ranking(rank_model(MODEL, samples), "ranking.json")

    graph = GraphFromOnnx(MODEL)
    worst = PrecisionsFromRanking("ranking.json", graph)
    runners = [
        OnnxrtRunner(SessionFromOnnx(MODEL), name="fp32"),
        LayerprecRunner(CandidateFromGraph(graph), name="fp16"),
        LayerprecRunner(CandidateFromGraph(graph, precisions=worst), name="mixed"),
    ]
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):  # leave this out to see all there is to know
        results = Comparator.run(runners, data_loader=samples)
        for index in (1, 2):
            agrees = Comparator.compare_accuracy(
                results, compare_func=are_close, comparisons=[(0, index)]
            )
            print(f"fp32 against {runners[index].name}: {'PASSED' if agrees else 'FAILED'}")


def are_close(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> OrderedDict[str, bool]:
    """Returns whether each output is within a hundredth; Polygraphy has functions that say more."""
    return OrderedDict(
        (name, np.allclose(candidate[name], values, atol=1e-2, rtol=1e-2))
        for name, values in reference.items()
    )


if __name__ == "__main__":
    main()
