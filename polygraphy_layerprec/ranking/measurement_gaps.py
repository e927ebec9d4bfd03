"""What measured tensors leave open, in words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.matching.tensor_matching import name_some
from polygraphy_layerprec.records.numbers import count_of

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.tensor_comparison import (
        TensorComparison,
        TensorDivergence,
    )
    from polygraphy_layerprec.records import Ranking

__all__ = ["describe_gaps"]

_SAME_MAGNITUDE: Final = 0.01  # TF32 keeps ten bits, so that the same inputs agree to 1e-3
_DIFFERING_SHARE: Final = 0.25  # what saturates hides other inputs from the layers behind it


def describe_gaps(
    ranking: Ranking,
    comparison: TensorComparison,
    matched: Mapping[str, tuple[str, ...]],
    measured: Mapping[str, TensorDivergence],
    *,
    model_tensors: Collection[str],
) -> tuple[str, ...]:
    """Returns what a reader must know of what was not measured, nothing where all was.

    Args:
        ranking: The emulated ranking.
        comparison: The reference against the candidate, tensor by tensor.
        matched: The tensors of layers, by unique name.
        measured: The divergence of the layers that have one.
        model_tensors: Names that belong to the model, though maybe to no layer.
    """
    return (
        *_unmeasured_layers(ranking, measured),
        *_unmeasured_outputs(ranking, comparison),
        *_stray_tensors(ranking, comparison, matched, model_tensors),
        *_no_difference(ranking, measured),
        *_other_samples(ranking, comparison, measured),
    )


def _unmeasured_layers(ranking: Ranking, measured: Mapping[str, TensorDivergence]) -> list[str]:
    names = [layer.name for layer in ranking.layers]
    missing = [name for name in names if name not in measured]
    reshaped = [name for name in names if name in measured and measured[name].reshaped_count]
    gaps = []
    if missing:
        gaps.append(
            f"{len(missing)} of {len(names)} layers have no tensor that was measured, so that "
            f"their cumulative error is not known and their overflow is the emulated one: "
            f"{name_some(missing)}."
        )
    if reshaped:
        gaps.append(
            f"{len(reshaped)} of {len(names)} layers have another shape in the candidate than in "
            f"the reference and cannot be compared: {name_some(reshaped)}."
        )
    return gaps


def _unmeasured_outputs(ranking: Ranking, comparison: TensorComparison) -> list[str]:
    names = [output.name for output in ranking.output_error.outputs]
    expected = ranking.conditions.outputs or names
    missing = [name for name in expected if not comparison[name].present_count]
    if len(missing) == len(expected):
        return ["No output of the model was measured: the output error is the emulated one."]
    gaps = []
    if missing:
        gaps.append(
            f"{len(missing)} of {len(expected)} outputs were not measured, and the output error is "
            f"without them: {name_some(missing)}."
        )
    reshaped = [name for name in expected if comparison[name].reshaped_count]
    if reshaped:
        gaps.append(
            f"{len(reshaped)} of {len(expected)} outputs have another shape in the candidate than "
            f"in the reference: {name_some(reshaped)}."
        )
    return gaps


def _stray_tensors(
    ranking: Ranking,
    comparison: TensorComparison,
    matched: Mapping[str, tuple[str, ...]],
    model_tensors: Collection[str],
) -> list[str]:
    names = comparison.names
    known = {name for tensors in matched.values() for name in tensors}
    known |= {output.name for output in ranking.output_error.outputs}
    strays = [name for name in names if name not in known and name not in model_tensors]
    absent = [name for name in names if comparison[name].absent_count]
    gaps = []
    if strays:
        gaps.append(
            f"{len(strays)} of {len(names)} tensors match no layer of the model: "
            f"{name_some(strays)}."
        )
    if absent:
        gaps.append(
            f"{len(absent)} of {len(names)} tensors are not on both sides, or are no tensors of "
            f"numbers, in some samples: {name_some(absent)}."
        )
    return gaps


def _no_difference(ranking: Ranking, measured: Mapping[str, TensorDivergence]) -> list[str]:
    """Of a candidate that is no candidate, where the emulation finds differences."""
    diverging = [layer for layer in ranking.layers if layer.cumulative_error]
    if not any(layer.name in measured for layer in diverging):
        return []
    if any(divergence.mismatch_count for divergence in measured.values()):
        return []
    gaps = (
        "Every layer that was measured gives the same values in the candidate as in the reference: "
        "the candidate seems to be in FP32 as well."
    )
    return [gaps]


def _other_samples(
    ranking: Ranking, comparison: TensorComparison, measured: Mapping[str, TensorDivergence]
) -> list[str]:
    """Of impacts that come from other inputs than the divergences."""
    conditions = ranking.conditions
    gaps = []
    if conditions.sample_count != comparison.sample_count:
        gaps.append(
            f"The divergences are of {count_of(comparison.sample_count, 'sample')}, the impacts of "
            f"{conditions.sample_count}."
        )
    if conditions.inputs == "user" and _magnitudes_differ(ranking, measured):
        gaps.append(
            "The magnitudes in the measured reference are not those of the emulated one, so the "
            "impacts come from other inputs than the divergences: give the same with "
            "`--load-inputs`."
        )
    return gaps


def _magnitudes_differ(ranking: Ranking, measured: Mapping[str, TensorDivergence]) -> bool:
    found = [
        abs(measured[layer.name].sums.max_abs - layer.max_abs) / layer.max_abs
        for layer in ranking.layers
        if layer.name in measured and layer.max_abs
    ]
    return bool(found) and float(np.quantile(found, 1 - _DIFFERING_SHARE)) > _SAME_MAGNITUDE
