"""The FP32 model run as a whole, by ONNX-Runtime as its users do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.kernels.plain_session import PlainSession
from polygraphy_layerprec.model.quantized import QuantizedGraph

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.candidate_runs import Runner
    from polygraphy_layerprec.model import Graph

__all__ = ["run_fp32_of", "run_plainly"]

Sample = Mapping[str, np.ndarray[Any, Any]]


def run_plainly(
    model: str | os.PathLike[str], *, external_data_folder: str | None = None
) -> Runner:
    """Returns a function that runs `model` in an ordinary ONNX-Runtime session, made when needed.

    Args:
        model: Path of an `.onnx` file.
        external_data_folder: Where the files with external data are; beside the model by default.
    """
    sessions: list[PlainSession] = []

    def run(sample: Sample) -> Mapping[str, np.ndarray[Any, Any]]:
        if not sessions:
            sessions.append(PlainSession(model, external_data_folder=external_data_folder))
        return sessions[0].run(sample)

    return run


def run_fp32_of(
    graph: Graph, model: str | os.PathLike[str], *, external_data_folder: str | None = None
) -> Runner | None:
    """Returns what runs a model in FP32 as a whole; None if there is no file to run.

    Args:
        graph: The model; for a quantised one, the float model that it is compared with is run.
        model: Path of the model.
        external_data_folder: As for `run_plainly`.
    """
    if not isinstance(graph, QuantizedGraph):
        return run_plainly(model, external_data_folder=external_data_folder)
    return None if graph.reference_path is None else run_plainly(graph.reference_path)
