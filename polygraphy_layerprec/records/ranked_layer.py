"""The layers of a ranking: what low precision does to each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ImpactMethod", "LostValues", "RankedLayer", "UnmeasuredLayer"]

ImpactMethod = Literal["adjoint", "gain", "exact"]

LostValues = Literal["", "overflow", "reads overflow", "NaN/Inf"]
"""What becomes of the values of a layer where no number stands for its impact; else nothing."""


@dataclass(frozen=True, slots=True)
class RankedLayer:
    """One layer: how far low precision moves it, and what that does to the outputs."""

    rank: int
    """Place in the order, 1 is worst."""

    name: str
    """Name of the ONNX node, or `<op>:<first output>` where the node has none; unique."""

    node_name: str
    """Name of the ONNX node as it stands in the model; may be empty or shared."""

    op: str
    """ONNX operator, for example `MatMul`."""

    block: str
    """The part of the model it belongs to: a prefix of its name, empty for the top level."""

    graph_index: int
    """Position in execution order, from 0, counting every node of the model."""

    inputs: tuple[str, ...]
    """ONNX names of the input tensors, weights included; empty names for absent inputs."""

    outputs: tuple[str, ...]
    """ONNX names of the output tensors."""

    impact: float
    """Relative L2 error that rounding in this layer alone causes at the model's outputs."""

    impact_method: ImpactMethod
    """How `impact` was found; `gain` under `adjoint` where an operator on the way has no rule."""

    share: float
    """Share of the squared output error of all layers, in [0, 1]; the shares add up to 1."""

    introduced_error: float
    """Relative L2 error of the output from exact inputs, weights and output rounded."""

    cumulative_error: float | None
    """Relative L2 error of the output with everything before it rounded too; None where the
    candidate's shape differs from the reference's, so that they cannot be compared, and where the
    backend did not measure it."""

    max_abs_input: float
    """Largest finite |x| among the float inputs of the reference, weights included."""

    max_abs: float
    """Largest finite |x| among the float outputs of the reference."""

    element_count: int
    """Output elements that were compared, over all samples."""

    overflow_count: int
    """Output elements, finite in the reference, that are beyond the precision's range."""

    underflow_count: int
    """Non-zero output elements below the precision's smallest positive number."""

    reference_nonfinite_count: int
    """Output elements that are NaN or infinite in the reference already."""

    candidate_nonfinite_count: int
    """Output elements finite in the reference and NaN or infinite in the candidate."""

    overflow: bool
    """Whether values leave the range here and the damage reaches a layer that is in range."""

    kind: str
    """The kind of trouble: `overflow`, `guard`, `inexact integers`, `benign overflow`, `underflow`,
    `cancellation`, `long reduction`, `rounding` or `exact`; of a quantised model also `saturation`,
    `outlier channel`, `lost values`, `wasted range` or `dead channels`."""

    reason: str
    """The kind with the figures behind it, in words."""

    caveat: str = ""
    """Why `impact` may be off, in words; empty where nothing is known to be."""

    weight_share: float = 0.0
    """Share of the squared impact that is due to rounded weights and inputs, in [0, 1]; the rest
    is due to the rounded output."""

    readers: tuple[tuple[str, float], ...] = ()
    """The layers that take its output, by unique name, each with the share of the output's squared
    impact that passes through it, in [0, 1]; what is left goes straight to a model output."""

    flops: float = 0.0
    """Floating-point operations of one sample, on average; 2 for a multiply and add."""

    trace: tuple[str, ...] = ()
    """As in `Constraint`."""

    impact_uncertainty: float | None = None
    """Standard error of `impact` over the samples, relative to it; None with fewer than two."""

    keeps_finite: bool = False
    """Whether an output becomes NaN or infinite unless it stays in FP32, together with the others
    of which this is true; found by measuring, and apart from overflow."""

    members: tuple[str, ...] = ()
    """Names of the ONNX nodes that are one decision with it, itself among them, in the float model
    if that is known; none where a layer is decided on alone."""

    @property
    def reads_overflow(self) -> bool:
        """Whether values leave the range before it alone, and what it gives is in range."""
        return self.overflow and not self.overflow_count and self.max_abs < self.max_abs_input

    @property
    def lost(self) -> LostValues:
        """As in `LostValues`: beyond the range, an impact is of what stays finite alone."""
        if self.overflow:
            return "reads overflow" if self.reads_overflow else "overflow"
        return "NaN/Inf" if self.keeps_finite else ""


@dataclass(frozen=True, slots=True)
class UnmeasuredLayer:
    """A layer that was not measured."""

    name: str
    """Unique name, as in `RankedLayer`."""

    op: str
    """ONNX operator."""

    outputs: tuple[str, ...]
    """ONNX names of the output tensors."""

    reason: str
    """Why not, in words."""

    failed: bool = True
    """Whether it failed; false where it stays in FP32, and where no sample runs it."""
