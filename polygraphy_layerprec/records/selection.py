"""What stays in FP32, and what that costs and brings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from polygraphy_layerprec.records.decision import Decision, Remedy, SelectionCost
from polygraphy_layerprec.records.numbers import MaybeInfinite
from polygraphy_layerprec.records.ranked_layer import RankedLayer

__all__ = [
    "Constraint",
    "CurvePoint",
    "NetworkWidths",
    "Selection",
]


@dataclass(frozen=True, slots=True)
class Constraint:
    """One layer to keep in FP32, and why."""

    name: str
    """Name of the ONNX node; may be empty or shared with other nodes."""

    op: str
    """ONNX operator, for example `MatMul`."""

    inputs: tuple[str, ...]
    """ONNX names of the input tensors, weights included; empty names for absent inputs."""

    outputs: tuple[str, ...]
    """ONNX names of the output tensors, which are unique in a model."""

    reason: str
    """Why it was chosen, in words: `overflow: |x| up to 8.1e5`, `31 % of the output error`."""

    trace: tuple[str, ...] = ()
    """Within functions and branches, the node and the calls and branches around it, innermost
    first, as TensorRT's parser writes them; names of tensors are not the network's there."""


@dataclass(frozen=True, slots=True)
class NetworkWidths:
    """What a plan says of a TensorRT network beyond the layers that were chosen."""

    left: tuple[Constraint, ...] = ()
    """Nodes that stay in FP32 by a rule."""

    fp32_tensors: tuple[str, ...] = ()
    """ONNX names of tensors that nodes make in FP32; those within functions have no name of their
    own in a network and are not among them."""

    low_tensors: tuple[str, ...] = ()
    """ONNX names of tensors that nodes make in low precision."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The output error with the first layers of the ranking in FP32."""

    layer_count: int
    """How many layers are in FP32."""

    forecast_error: float
    """Relative L2 output error as the impacts forecast it."""

    measured_error: float | None
    """The same, measured by mixed emulation; None if not measured."""

    cost: SelectionCost
    """What these layers cost."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The layers to keep in FP32, and what that brings."""

    layers: tuple[RankedLayer, ...]
    """The layers, in the ranking's order."""

    cost: SelectionCost
    """What they cost."""

    forecast_error: float
    """Relative L2 output error as the impacts forecast it, overflow aside."""

    tolerance: float | None
    """The relative L2 error that the forecast had to meet; None where the size was given, and where
    sets were measured, by the criteria of the decision."""

    reached: bool
    """Whether what was asked for is met, as measured, or as forecast where nothing was measured."""

    plain_cost: SelectionCost | None
    """What the first layers of the ranking that meet the same tolerance would cost; None if no
    tolerance was given or they do not meet it."""

    measurements: int
    """How many sets were measured to find this one."""

    decision: Decision | None = None
    """What was measured; None if nothing was."""

    @property
    def measured_error(self) -> MaybeInfinite | None:
        """Relative L2 output error, as `OutputError.measured`; None if it was not measured."""
        return None if self.decision is None else self.decision.outcome.error

    def with_remedies(self, remedies: tuple[Remedy, ...]) -> Selection:
        """Returns the same with remedies beside what was decided by measuring."""
        assert self.decision is not None
        return replace(self, decision=replace(self.decision, remedies=remedies))

    def with_note(self, note: str) -> Selection:
        """Returns the same with a sentence behind the verdict on what was measured."""
        assert self.decision is not None
        sentence = f"{self.decision.sentence} {note}"
        return replace(self, decision=replace(self.decision, sentence=sentence))

    @property
    def holds_elsewhere(self) -> bool:
        """Whether no samples were held out that refute a set which was found to pass."""
        decision = self.decision
        if decision is None or decision.held_out is None or not decision.outcome.passed:
            return True
        return decision.held_out.chosen.passed
