"""Whether the float graph of a quantised model computes what the reference does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.kernels.plain_session import PlainSession
from polygraphy_layerprec.precision import is_floating

if TYPE_CHECKING:
    from polygraphy_layerprec.model.quantized import QuantizedGraph

__all__ = ["check_against_reference"]

_LARGEST_ERROR: Final = 1e-2
"""Kernels of other shapes and orders differ by 1e-5, other weights by far more."""
_LEAST_COSINE: Final = 0.3
"""Of a constant and its floats: signs alone have more, and unlike ones at most 1 / 8 as a rule."""
_LEAST_ELEMENTS: Final = 64
_CONSTANTS_COMPARED: Final = 8

Arrays = Mapping[str, np.ndarray[Any, Any]]


def check_against_reference(graph: QuantizedGraph, sample: Arrays, outputs: Arrays) -> None:
    """Checks what the float graph gave for one sample against the reference; none is no error.

    Args:
        graph: The float graph of the quantised model.
        sample: The sample.
        outputs: What the float graph gave.

    Raises:
        ExecutionError: If the reference cannot run, gives something else, or has other constants.
    """
    if graph.reference is None or graph.reference_path is None:
        return
    _check_constants(graph, graph.reference.name)
    if graph.alike:
        return  # these quantise in the float graph too, and not in the reference
    folder = graph.reference.folder
    session = PlainSession(
        graph.reference_path,
        external_data_folder=None if folder.model_path is not None else folder.path,
    )
    for name, expected in session.run(sample).items():
        found = outputs.get(name)
        if found is None or not is_floating(expected.dtype):
            continue
        error = _relative_error(expected, found)
        if error > _LARGEST_ERROR:
            raise ExecutionError(
                f"{graph.quantized.name!r} was not made of the reference {graph.reference.name!r}: "
                f"without its pairs it gives another {name!r}.\n"
                f"Note: The relative L2 error is {error:.2g} in the first sample; the weights are "
                f"those of the reference already.\n"
                f"Give the float model that was quantised with `--reference`: after folding of "
                f"BatchNormalization and other optimisations, if the tool did such before."
            )


def _check_constants(graph: QuantizedGraph, reference: str) -> None:
    """Checks that constants stand for those of the reference, which both sides take."""
    stored = [
        pair
        for pair in graph.pairs
        if pair.is_stored and graph.weights[pair.output].element_count >= _LEAST_ELEMENTS
    ]
    for pair in stored[:_CONSTANTS_COMPARED]:
        meant = pair.dequantize(graph.quantized.weights[pair.source].read()).ravel()
        exact = np.asarray(graph.weights[pair.output].read(), np.float32).ravel()
        size = float(np.linalg.norm(meant)) * float(np.linalg.norm(exact))
        cosine = float(meant @ exact) / size if size else 1.0
        if cosine < _LEAST_COSINE:
            raise ExecutionError(
                f"{graph.quantized.name!r} was not made of the reference {reference!r}: the "
                f"constant {pair.source!r} does not stand for the values there.\n"
                f"Note: Their cosine is {cosine:.2g}.\n"
                f"Give the float model that was quantised with `--reference`."
            )


def _relative_error(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    if expected.shape != found.shape:
        return float("inf")
    exact, other = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(exact) & np.isfinite(other)
    size = float(np.linalg.norm(exact[finite]))
    error = float(np.linalg.norm(other[finite] - exact[finite]))
    return error / size if size else float(error > 0.0)
