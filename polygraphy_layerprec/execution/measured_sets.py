"""The output error of sets of layers in FP32, each measured by a run in mixed precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.comparison import Progress
from polygraphy_layerprec.execution.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.set_measurement import SetMeasurement
from polygraphy_layerprec.matching.constraint_matching import check_ranked_model
from polygraphy_layerprec.model import Graph
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.records import Ranking

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.selection.search import ErrorOf

__all__ = ["measured_errors"]

Sample = Mapping[str, np.ndarray[Any, Any]]


def measured_errors(
    ranking: Ranking,
    graph: Graph,
    samples: Iterable[Sample],
    *,
    outputs: Sequence[str] | None,
    max_abs: bool,
    progress: Progress | None,
) -> ErrorOf:
    """Returns a function that measures sets of layers, given as masks over the ranking.

    Args:
        ranking: The ranked layers.
        graph: The model that the ranking is about.
        samples: Input samples for it, which are kept in memory.
        outputs: Names of the outputs that count, all by default.
        max_abs: Whether the error is the largest absolute one, instead of the relative L2 error.
        progress: Called with sets measured, 0, and what is going on.

    Raises:
        ValueError: If the model is another one than was ranked.
    """
    check_ranked_model(graph, ranking, made="The ranking")
    part, counted = part_that_counts(graph, outputs)
    measurement = SetMeasurement(
        part,
        samples,
        precision=PRECISIONS[ranking.precision],
        outputs=counted,
    )
    names = [[name for name in layer.outputs if name] for layer in ranking.layers]
    done = 0

    def error_of(kept: npt.NDArray[np.bool_]) -> float:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, 0, f"set of {int(kept.sum())} layers")
        fp32_outputs = [name for index in np.flatnonzero(kept) for name in names[index]]
        divergence = measurement.divergence(KeptLayers.of_outputs(fp32_outputs))
        return divergence.max_abs_error if max_abs else divergence.error

    return error_of
