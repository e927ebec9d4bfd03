"""How far two rankings agree."""

from __future__ import annotations

from dataclasses import dataclass

from polygraphy_layerprec.records.model_identity import ModelIdentity
from polygraphy_layerprec.records.numbers import MaybeInfinite
from polygraphy_layerprec.records.ranked_layer import LostValues
from polygraphy_layerprec.records.ranking import RunConditions

__all__ = [
    "ConditionDifference",
    "LayerMove",
    "OutputErrorPair",
    "RankedSide",
    "RankingAgreement",
    "TopOverlap",
    "UnsharedLayer",
]


@dataclass(frozen=True, slots=True)
class RankedSide:
    """One of the two rankings."""

    label: str
    """What the reader knows it by, for example its file's name."""

    model: ModelIdentity
    """Which model it is about."""

    precision: str
    """Name of its low precision: `fp16` or `bf16`."""

    conditions: RunConditions
    """How it was measured."""

    layer_count: int
    """Layers in it."""

    measured_error: MaybeInfinite
    """Measured relative L2 error of the outputs with every layer lowered, in [0, inf]."""

    forecast_error: float
    """The same as its impacts forecast it, in [0, inf)."""


@dataclass(frozen=True, slots=True)
class LayerMove:
    """A layer of both rankings, and its place in each."""

    name: str
    """Unique name in the first ranking."""

    op: str
    """ONNX operator."""

    first_rank: int
    """Place in the first ranking, 1 is worst."""

    second_rank: int
    """Place in the second ranking."""

    shift: int
    """Places by which it stands lower in the second ranking, counting shared layers alone;
    negative if it is worse there."""

    first_impact: float
    """Relative L2 error that it causes at the outputs, by the first ranking."""

    second_impact: float
    """The same by the second ranking."""

    first_introduced_error: float
    """Relative L2 error that its own rounding introduces, by the first ranking."""

    second_introduced_error: float
    """The same by the second ranking."""

    first_cumulative_error: float | None
    """Relative L2 error of its output with everything before it lowered too, by the first ranking;
    None where it is not known."""

    second_cumulative_error: float | None
    """The same by the second ranking."""

    first_kind: str
    """The kind of trouble that it is in, by the first ranking."""

    second_kind: str
    """The same by the second ranking."""

    reason: str
    """What sets the two apart, in words."""

    first_lost: LostValues = ""
    """What becomes of its values, by the first ranking: its impact then is no measure of it."""

    second_lost: LostValues = ""
    """The same by the second ranking."""


@dataclass(frozen=True, slots=True)
class UnsharedLayer:
    """A layer that only one of the rankings has."""

    name: str
    """Unique name."""

    op: str
    """ONNX operator."""

    rank: int
    """Place in its ranking, 1 is worst."""

    reason: str
    """Why it stands there, in words."""


@dataclass(frozen=True, slots=True)
class TopOverlap:
    """How many of the worst layers are the same."""

    count: int
    """Layers taken from the top of each ranking."""

    shared_count: int
    """How many of them are in both, from 0 to `count`."""


@dataclass(frozen=True, slots=True)
class OutputErrorPair:
    """One model output in both rankings."""

    name: str
    """ONNX name of the output."""

    first_error: MaybeInfinite | None
    """Relative L2 error by the first ranking; None where it has none."""

    second_error: MaybeInfinite | None
    """The same by the second ranking."""


@dataclass(frozen=True, slots=True)
class ConditionDifference:
    """Something that the two rankings were not measured alike in."""

    name: str
    """What differs, in words."""

    first: str
    """What the first ranking says; `none` where it says nothing."""

    second: str
    """What the second ranking says."""


@dataclass(frozen=True, slots=True)
class RankingAgreement:
    """How far two rankings agree."""

    first: RankedSide
    """The ranking that was named first."""

    second: RankedSide
    """The ranking that was named second."""

    same_model: bool
    """Whether both may be about one model: digests of two versions do not tell."""

    shared_count: int
    """Layers that both rankings have."""

    rank_correlation: float | None
    """Spearman's correlation of the places of shared layers, in [-1, 1]; None with fewer than
    two."""

    impact_correlation: float | None
    """Spearman's correlation of the impacts of shared layers, in [-1, 1]; None where it does not
    exist, as among equals."""

    introduced_correlation: float | None
    """The same of the introduced errors."""

    cumulative_correlation: float | None
    """The same of the cumulative errors, of the layers where both are known."""

    overlaps: tuple[TopOverlap, ...]
    """How many of the worst layers are the same, from short lists to long ones."""

    layers: tuple[LayerMove, ...]
    """All shared layers, those that moved most first, then by their place in the first ranking."""

    only_first: tuple[UnsharedLayer, ...]
    """Layers of the first ranking alone, worst first."""

    only_second: tuple[UnsharedLayer, ...]
    """Layers of the second ranking alone, worst first."""

    outputs: tuple[OutputErrorPair, ...]
    """Each model output of either ranking, in the first one's order."""

    differences: tuple[ConditionDifference, ...]
    """What was not measured alike."""

    warnings: tuple[str, ...]
    """What the reader must know, in words."""
