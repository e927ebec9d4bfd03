"""What was decided: whether low precision is fine, and the sets of layers to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from polygraphy_layerprec.records.criterion import Outcome

__all__ = [
    "Decision",
    "HeldOut",
    "MeasuredSet",
    "Remedy",
    "SelectionCost",
    "SetCounts",
    "VerdictKind",
]

VerdictKind = Literal["fine", "broken", "inaccurate", "fp32", "unreachable"]
"""Nothing to keep; NaN or infinity that some layers cause; an error that is too large; only an FP32
build meets the criterion; no set meets it."""


@dataclass(frozen=True, slots=True)
class SelectionCost:
    """What a set of FP32 layers costs."""

    layer_count: int
    """Layers kept in FP32."""

    flops_fraction: float
    """Their share of the floating-point operations of all layers, in [0, 1]."""

    cast_count: int
    """Casts, one for each tensor and type that it is read in: as the plan of a strongly typed
    network has them, its inputs and outputs included; without a model between layers alone."""

    node_count: int | None = None
    """Nodes in FP32, with those that only move values between the layers; None without a model."""

    pair_count: int | None = None
    """Pairs of a quantised model that are removed; None for other models and without one."""


class SetCounts(NamedTuple):
    """What a set costs in the model."""

    nodes: int
    """Nodes in FP32."""

    casts: int
    """Tensors that are cast."""

    pairs: int | None
    """Pairs that are removed; None where the model is not quantised."""


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """One set of FP32 layers that was measured."""

    layers: tuple[str, ...]
    """Unique names of the layers, in the ranking's order."""

    cost: SelectionCost
    """What they cost."""

    outcome: Outcome
    """What it leaves."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What samples say that the choice did not see."""

    sample_count: int
    """How many there are."""

    lowered: Outcome
    """With every layer lowered."""

    chosen: Outcome
    """With the chosen layers in FP32."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """What the owner of the model can do instead of keeping layers in FP32."""

    advice: str
    """What to do, in words."""

    place: str
    """Names of the nodes that it is about."""

    value: str
    """The number that is at fault: `1e-12`, `|x| up to 8.5e+05`."""

    @property
    def text(self) -> str:
        """All of it in one sentence."""
        return f"{self.advice} ({self.place}: {self.value})"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was measured before and after, and what follows."""

    verdict: VerdictKind
    """How it ends."""

    sentence: str
    """The same in words, with the figures, in one sentence."""

    sample_count: int
    """Samples that the sets were measured on."""

    lowered: Outcome
    """With every layer lowered."""

    sets: tuple[MeasuredSet, ...]
    """Of what was measured, the sets that no other beats in cost and error, cheapest first, and the
    chosen one; at most seven."""

    chosen: int
    """Which of them was chosen, from 1."""

    held_out: HeldOut | None = None
    """What other samples say; None where there were too few to hold any out."""

    remedies: tuple[Remedy, ...] = ()
    """What can be done to the model instead."""

    @property
    def outcome(self) -> Outcome:
        """What the chosen set leaves."""
        return self.sets[self.chosen - 1].outcome
