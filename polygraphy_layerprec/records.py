"""The nouns of the data path: what each stage hands to the next. All are immutable.

Errors are relative L2 norms: 0 is best, 1 is as large as the reference itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AskedPrecisions",
    "Constraint",
    "EngineMeasurement",
    "ImpactMethod",
    "ModelIdentity",
    "NetworkScript",
    "NonFiniteOrigin",
    "ObtainedPrecisions",
    "OutputDivergence",
    "OutputError",
    "RankedLayer",
    "Ranking",
    "RunConditions",
    "Selection",
    "SelectionCost",
    "UnmeasuredLayer",
    "Verification",
    "VerifiedOutput",
]

ImpactMethod = Literal["adjoint", "gain", "exact"]


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
    candidate's shape differs from the reference's, so that they cannot be compared."""

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
    """The kind of trouble: `overflow`, `benign overflow`, `underflow`, `cancellation`,
    `long reduction`, `rounding` or `exact`."""

    reason: str
    """The kind with the figures behind it, in words."""

    weight_share: float = 0.0
    """Share of the squared impact that is due to rounded weights and inputs, in [0, 1]; the rest
    is due to the rounded output."""

    readers: tuple[tuple[str, float], ...] = ()
    """The layers that take its output, by unique name, each with the share of the output's squared
    impact that passes through it, in [0, 1]; what is left goes straight to a model output."""

    flops: float = 0.0
    """Floating-point operations of one sample, on average; 2 for a multiply and add."""


@dataclass(frozen=True, slots=True)
class UnmeasuredLayer:
    """A layer that could not be measured."""

    name: str
    """Unique name, as in `RankedLayer`."""

    op: str
    """ONNX operator."""

    outputs: tuple[str, ...]
    """ONNX names of the output tensors."""

    reason: str
    """What went wrong, in words."""


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

    error: float | None
    """Relative L2 error, root mean square over the samples; None for integer outputs or where
    shapes differ."""

    max_abs_error: float | None
    """Largest |candidate - reference|; None as for `error`."""

    nonfinite_count: int
    """Elements finite in the reference and NaN or infinite in the candidate."""

    mismatch_fraction: float
    """Share of elements that are not equal, in [0, 1]; tells the story of integer outputs."""


@dataclass(frozen=True, slots=True)
class OutputError:
    """The output error with every layer in low precision, measured and foretold."""

    measured: float
    """Relative L2 error, root mean square over outputs and samples. A NaN counts as the loss of
    its element, an infinity as the largest finite number."""

    forecast: float
    """The same from the impacts: the root of the sum of their squares."""

    outputs: tuple[OutputDivergence, ...]
    """One for each model output, in the model's order."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model a ranking is about."""

    name: str
    """File name without folders, empty for a model in memory."""

    digest: str
    """SHA-256 of the model's structure and weights' sizes and small values, in hex."""

    node_count: int
    """Nodes of the main graph, after local functions were inlined."""

    opset: int
    """Operator-set version of the default domain."""


@dataclass(frozen=True, slots=True)
class RunConditions:
    """How a ranking was measured."""

    backend: str
    """`onnxruntime-emulated` or `tensorrt`."""

    versions: tuple[tuple[str, str], ...]
    """Package names and versions, sorted by name."""

    sample_count: int
    """Input samples that were measured."""

    inputs: str
    """Where the samples came from, in words: `generated` or `user`."""

    impact: ImpactMethod
    """How impacts were asked to be found."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """All layers of a model, worst first."""

    model: ModelIdentity
    """Which model."""

    precision: str
    """Name of the low precision: `fp16` or `bf16`."""

    conditions: RunConditions
    """How it was measured."""

    output_error: OutputError
    """The error with every layer lowered."""

    layers: tuple[RankedLayer, ...]
    """Measured layers, worst first."""

    unmeasured: tuple[UnmeasuredLayer, ...]
    """Layers that could not be measured, in graph order."""

    nonfinite_origins: tuple[NonFiniteOrigin, ...]
    """Where infinities and NaN start, in graph order."""

    stability: float | None
    """Spearman rank correlation of the impacts between the two halves of the samples, in
    [-1, 1]; None with fewer than two samples."""

    warnings: tuple[str, ...]
    """What the reader must know, in words."""


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


@dataclass(frozen=True, slots=True)
class NetworkScript:
    """What the literals of an emitted script say; the script was not run."""

    model_name: str
    """File name of the model it was made for; may be empty."""

    model_digest: str
    """Digest of that model, as in `ModelIdentity`; may be empty."""

    precision: str
    """Name of the low precision: `fp16` or `bf16`."""

    io_precision: str
    """Type of the engine's float inputs and outputs: `fp32` or `low`."""

    allow_unmatched: bool
    """Whether a constraint that matches nothing is a mere warning in a build."""

    constraints: tuple[Constraint, ...]
    """The layers it keeps in FP32, in its order."""

    altered: bool
    """Whether anything in the file differs from what this version writes for the same literals."""


@dataclass(frozen=True, slots=True)
class AskedPrecisions:
    """Which layers a script, a ranking or a mixed-precision model keeps in FP32."""

    source: str
    """Where this was read, in words: `the script 'constraints.py'`; empty if nothing was given."""

    precision: str
    """Name of the low precision of all other layers: `fp16` or `bf16`."""

    constraints: tuple[Constraint, ...]
    """The layers that stay in FP32."""

    warnings: tuple[str, ...]
    """What the reader must know, in words."""


@dataclass(frozen=True, slots=True)
class VerifiedOutput:
    """How far one model output is from the reference, in each candidate."""

    name: str
    """ONNX name of the output."""

    fp32: OutputDivergence | None
    """The FP32 model on the backend; None if it was not measured."""

    lowered: OutputDivergence | None
    """Every layer lowered; None if it was not measured."""

    constrained: OutputDivergence | None
    """The constrained layers in FP32, all others lowered; None if it was not measured."""

    recovered: float | None
    """Share of the error of `lowered` that the constraints take away; at most 1, negative if they
    make it worse; None where there is no error to recover."""


@dataclass(frozen=True, slots=True)
class ObtainedPrecisions:
    """What became of the precisions asked for, as far as an engine tells."""

    asked_count: int
    """Layers that were to stay in FP32."""

    fp32_count: int
    """How many of them compute in FP32, to all that the engine shows."""

    lowered: tuple[str, ...]
    """Those that give low-precision tensors, by node name or else by first output."""

    unseen_count: int
    """Those that the engine does not show: fused into others, or not named."""

    low_tensor_fraction: float | None
    """Share of the float tensors between layers that are narrower than FP32, in [0, 1]; None if
    the engine shows no float tensor."""


@dataclass(frozen=True, slots=True)
class EngineMeasurement:
    """One engine that was built and run."""

    name: Literal["fp32", "lowered", "constrained"]
    """Which model it is made of, as in `VerifiedOutput`."""

    size_bytes: int
    """Size when serialised."""

    latency_seconds: float
    """Median time of an inference, copies to and from the GPU included."""

    obtained: ObtainedPrecisions | None
    """What the engine says about its layers; None if it says nothing that can be read."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a constrained model holds what its makers hope for."""

    model: ModelIdentity
    """Which model."""

    precision: str
    """Name of the low precision: `fp16` or `bf16`."""

    backend: str
    """`onnxruntime-emulated` or `tensorrt`."""

    sample_count: int
    """Input samples that were measured."""

    inputs: str
    """Where the samples came from, in words: `generated` or `user`."""

    source: str
    """Where the constraints were read, as in `AskedPrecisions`."""

    kept_count: int
    """Layers that stay in FP32."""

    layer_count: int
    """Layers of the model."""

    fp32_error: float | None
    """Relative L2 error of the FP32 model on the backend, root mean square over outputs and
    samples; None if it was not measured, or no output is of a float type."""

    lowered_error: float | None
    """The same with every layer lowered."""

    constrained_error: float | None
    """The same with the constrained layers in FP32."""

    recovered: float | None
    """Share of `lowered_error` that the constraints take away, as in `VerifiedOutput`."""

    outputs: tuple[VerifiedOutput, ...]
    """One for each output that counts, in the model's order."""

    tolerance: float | None
    """Largest `constrained_error` that passes; None if none was given."""

    failures: tuple[str, ...]
    """Why it does not pass, in words; empty if it does, or if there was nothing to pass."""

    engines: tuple[EngineMeasurement, ...]
    """The engines; empty where nothing was built."""

    warnings: tuple[str, ...]
    """What the reader must know, in words."""

    @property
    def passed(self) -> bool | None:
        """Whether it passes; None without a tolerance to judge by."""
        if self.failures:
            return False
        return None if self.tolerance is None else True
