"""The nouns of the data path: what each stage hands to the next. All are immutable.

Errors are relative L2 norms: 0 is best, 1 is as large as the reference itself.
"""

from polygraphy_layerprec.records.agreement import (
    ConditionDifference,
    LayerMove,
    OutputErrorPair,
    RankedSide,
    RankingAgreement,
    TopOverlap,
    UnsharedLayer,
)
from polygraphy_layerprec.records.criterion import Criterion, Judgement, Outcome
from polygraphy_layerprec.records.decision import (
    Decision,
    HeldOut,
    MeasuredSet,
    Remedy,
    SelectionCost,
    SetCounts,
    VerdictKind,
)
from polygraphy_layerprec.records.model_identity import ModelIdentity
from polygraphy_layerprec.records.numbers import MaybeInfinite
from polygraphy_layerprec.records.ranked_layer import (
    ImpactMethod,
    LostValues,
    RankedLayer,
    UnmeasuredLayer,
)
from polygraphy_layerprec.records.ranking import (
    NonFiniteOrigin,
    OutputDivergence,
    OutputError,
    Ranking,
    RunConditions,
)
from polygraphy_layerprec.records.selection import (
    Constraint,
    CurvePoint,
    NetworkWidths,
    Selection,
)
from polygraphy_layerprec.records.verdict_file import SavedVerdict
from polygraphy_layerprec.records.verification import (
    EngineMeasurement,
    LayerPrecision,
    NetworkScript,
    ObtainedPrecision,
    ObtainedPrecisions,
    RequestedPrecisions,
    Verification,
    VerifiedOutput,
)

__all__ = [
    "ConditionDifference",
    "Constraint",
    "Criterion",
    "CurvePoint",
    "Decision",
    "EngineMeasurement",
    "HeldOut",
    "ImpactMethod",
    "Judgement",
    "LayerMove",
    "LayerPrecision",
    "LostValues",
    "MaybeInfinite",
    "MeasuredSet",
    "ModelIdentity",
    "NetworkScript",
    "NetworkWidths",
    "NonFiniteOrigin",
    "ObtainedPrecision",
    "ObtainedPrecisions",
    "Outcome",
    "OutputDivergence",
    "OutputError",
    "OutputErrorPair",
    "RankedLayer",
    "RankedSide",
    "Ranking",
    "RankingAgreement",
    "Remedy",
    "RequestedPrecisions",
    "RunConditions",
    "SavedVerdict",
    "Selection",
    "SelectionCost",
    "SetCounts",
    "TopOverlap",
    "UnmeasuredLayer",
    "UnsharedLayer",
    "VerdictKind",
    "Verification",
    "VerifiedOutput",
]
