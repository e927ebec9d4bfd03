"""What was measured of a model, and the order that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polygraphy_layerprec.records.decision import Decision
from polygraphy_layerprec.records.numbers import MaybeInfinite

__all__ = [
    "ImpactMethod",
    "ModelIdentity",
    "NonFiniteOrigin",
    "OutputDivergence",
    "OutputError",
    "RankedLayer",
    "Ranking",
    "RunConditions",
    "UnmeasuredLayer",
]

ImpactMethod = Literal["adjoint", "gain", "exact"]


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model a ranking is about."""

    name: str
    """File name without folders, empty for a model in memory."""

    digest: str
    """SHA-256 of the model's structure, its weights' shapes, first and last values, in hex."""

    node_count: int
    """Nodes of the main graph, after local functions were inlined."""

    opset: int
    """Operator-set version of the default domain."""

    layer_count: int | None = None
    """Layers of the model, measured or not; None in files of earlier versions."""


@dataclass(frozen=True, slots=True)
class RunConditions:
    """How a ranking was measured."""

    backend: str
    """What the divergences come from: `onnxruntime-emulated`, `tensorrt` or `saved-outputs`."""

    versions: tuple[tuple[str, str], ...]
    """Package names and versions, sorted by name."""

    sample_count: int
    """Input samples that were measured."""

    inputs: str
    """Where the samples came from, in words: `generated` or `user`."""

    impact: ImpactMethod
    """How impacts were asked to be found."""

    outputs: tuple[str, ...] = ()
    """Names of the outputs that count; none where all do."""

    threads: int | None = None
    """Threads of each ONNX-Runtime session: equal ones give equal numbers, however the samples are
    split. None where that is not known."""

    reference: str = ""
    """Digest of the float model that a quantised one is compared with; empty without one."""


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
    """Whether it was tried in vain; false where it stays in FP32, and where no sample runs it."""


@dataclass(frozen=True, slots=True)
class NonFiniteOrigin:
    """Where infinities or NaN start, and how they travel."""

    name: str
    """Unique name of the layer where the first non-finite value appears."""

    op: str
    """ONNX operator of that layer."""

    value: Literal["inf", "nan"]
    """What appears there."""

    in_reference: bool
    """Whether the FP32 reference has it too, so that precision is not to blame."""

    path: tuple[str, ...]
    """Layer names from the origin to where it is last seen: an output, or where it is absorbed."""


@dataclass(frozen=True, slots=True)
class OutputDivergence:
    """How far one model output is from the reference when every layer is lowered."""

    name: str
    """ONNX name of the output."""

    error: MaybeInfinite | None
    """Relative L2 error, root mean square over the samples, in [0, inf]: infinite where an element
    becomes NaN or infinite. None for integer outputs or where shapes differ."""

    max_abs_error: MaybeInfinite | None
    """Largest |candidate - reference|; None as for `error`."""

    nonfinite_count: int
    """Elements finite in the reference and NaN or infinite in the candidate."""

    mismatch_fraction: float
    """Share of elements that are not equal, in [0, 1]; tells the story of integer outputs."""


@dataclass(frozen=True, slots=True)
class OutputError:
    """The output error with every layer in low precision, measured and forecast."""

    measured: MaybeInfinite
    """Relative L2 error, root mean square over outputs and samples, in [0, inf]. Infinite where an
    element that is finite in FP32 becomes NaN or infinite."""

    forecast: float
    """The same from the impacts: the root of the sum of their squares."""

    outputs: tuple[OutputDivergence, ...]
    """One for each model output, in the model's order."""

    forecast_of_loss: bool = False
    """Whether the forecast is of a loss of the user's own, and not of what was measured."""

    @property
    def is_share(self) -> bool:
        """Whether `measured` is the share of the elements of an integer output that differ."""
        shares = [output.mismatch_fraction for output in self.outputs if output.error is None]
        floats = any(output.error is not None for output in self.outputs)
        return bool(shares) and (not floats or self.measured == max(shares) > 0.0)

    @property
    def metric(self) -> str:
        """What `measured` is, in words."""
        return "share of unequal integers" if self.is_share else "RMS relative L2 error"


@dataclass(frozen=True, slots=True)
class Ranking:
    """All layers of a model, worst first."""

    model: ModelIdentity
    """Which model."""

    precision: str
    """Name of the low precision: `fp16`, `bf16`, or `qdq` for the pairs of a quantised model."""

    conditions: RunConditions
    """How it was measured."""

    output_error: OutputError
    """The error with every layer lowered."""

    layers: tuple[RankedLayer, ...]
    """Measured layers, worst first."""

    unmeasured: tuple[UnmeasuredLayer, ...]
    """Layers that were not measured, in graph order."""

    nonfinite_origins: tuple[NonFiniteOrigin, ...]
    """Where infinities and NaN start, in graph order."""

    stability: float | None
    """Spearman rank correlation of the impacts between two samples, the mean over all pairs, in
    [-1, 1]; None with fewer than two samples."""

    warnings: tuple[str, ...]
    """What the reader must know, in words."""

    decision: Decision | None = None
    """What was decided when it was made; None where nothing was measured for it."""

    @property
    def layer_count(self) -> int:
        """Layers of the model, those among them that were not measured."""
        return max(len(self.layers), self.model.layer_count or 0)
