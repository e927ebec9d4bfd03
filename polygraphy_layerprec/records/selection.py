"""What stays in FP32, and what that costs and brings."""

from __future__ import annotations

from dataclasses import dataclass

from polygraphy_layerprec.records.ranking import RankedLayer

__all__ = [
    "Constraint",
    "CurvePoint",
    "NetworkWidths",
    "Selection",
    "SelectionCost",
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
class SelectionCost:
    """What a set of FP32 layers costs."""

    layer_count: int
    """Layers kept in FP32."""

    flops_fraction: float
    """Their share of the floating-point operations of all layers, in [0, 1]."""

    cast_count: int
    """Tensors that pass between an FP32 layer and a lowered one."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The output error with the first layers of the ranking in FP32."""

    layer_count: int
    """How many layers are in FP32."""

    forecast_error: float
    """Relative L2 output error as the impacts foretell it."""

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
    """Relative L2 output error as the impacts foretell it, overflow aside."""

    measured_error: float | None
    """Output error in the tolerance's own measure, by mixed emulation; None if not measured."""

    tolerance: float | None
    """The error that was to be met; None if the size was given instead."""

    reached: bool
    """Whether the tolerance is met, as measured, or as foretold where nothing was measured."""

    plain_cost: SelectionCost | None
    """What the first layers of the ranking that meet the same tolerance would cost; None if no
    tolerance was given or they do not meet it."""

    measurements: int
    """How many sets were measured to find this one."""
