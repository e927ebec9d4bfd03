"""Whether what was built holds what was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from polygraphy_layerprec.records.criterion import Outcome
from polygraphy_layerprec.records.decision import VerdictKind
from polygraphy_layerprec.records.model_identity import ModelIdentity
from polygraphy_layerprec.records.ranking import OutputDivergence
from polygraphy_layerprec.records.selection import Constraint, NetworkWidths

__all__ = [
    "EngineMeasurement",
    "LayerPrecision",
    "NetworkScript",
    "ObtainedPrecision",
    "ObtainedPrecisions",
    "RequestedPrecisions",
    "Verification",
    "VerifiedOutput",
]


@dataclass(frozen=True, slots=True)
class NetworkScript:
    """What the literals of an emitted script say; the script was not run."""

    model_name: str
    """File name of the model it was made for; may be empty."""

    model_digest: str
    """Digest of that model, as in `ModelIdentity`; may be empty."""

    precision: str
    """Name of the low precision: `fp16`, `bf16`, or `qdq` for the pairs of a quantised model."""

    io_precision: str
    """Type of the engine's float inputs and outputs: `fp32` or `low`."""

    allow_unmatched: bool
    """Whether a constraint that matches nothing is a mere warning in a build."""

    constraints: tuple[Constraint, ...]
    """The layers it keeps in FP32, in its order."""

    widths: NetworkWidths
    """What it says of other tensors; empty in scripts of earlier versions."""

    altered: bool
    """Whether anything in the file differs from what this version writes for the same literals."""


@dataclass(frozen=True, slots=True)
class RequestedPrecisions:
    """Which layers a script, a ranking or a mixed-precision model keeps in FP32."""

    source: str
    """Where this was read, in words: `the script 'constraints.py'`; empty if nothing was given."""

    precision: str
    """Name of the low precision of all other layers, as in `Ranking`."""

    constraints: tuple[Constraint, ...]
    """The layers that stay in FP32."""

    warnings: tuple[str, ...]
    """What the reader must know, in words."""

    target: str = "network-strong"
    """Whom the others are lowered for: a member of `plan.Target` by value."""

    opset: int | None = None
    """Opset of the mixed-precision model, whose schemas say what can be lowered; else None."""

    widths: NetworkWidths = field(default_factory=NetworkWidths)
    """What a plan says of other tensors, for a network; empty where that is left to the network."""


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


ObtainedPrecision = Literal["fp32", "low", "fused", "absent"]
"""What a layer obtained in an engine: all that shows is FP32; low precision; it is inside a fused
kernel that does not tell; or no kernel holds it, since it was folded, removed, or is not named."""


@dataclass(frozen=True, slots=True)
class LayerPrecision:
    """What one layer of the model was asked to compute in, and what it obtained."""

    name: str
    """Name of the node, or else its first output."""

    op: str
    """ONNX operator."""

    asked: Literal["fp32", "low"]
    """Whether it was to stay in FP32, or to be lowered."""

    obtained: ObtainedPrecision
    """What it computes in, as far as the engine tells."""

    kernels: tuple[str, ...]
    """Names of the engine layers that hold it."""

    types: str
    """Types of the floats these read and give, in words: `FP16 -> FP16, FP32`; may be empty."""

    @property
    def is_failure(self) -> bool:
        """Whether it was to stay in FP32 and does not."""
        return self.asked == "fp32" and self.obtained == "low"


@dataclass(frozen=True, slots=True)
class ObtainedPrecisions:
    """What became of the precisions asked for, as far as an engine tells."""

    layers: tuple[LayerPrecision, ...]
    """The layers that were asked for, in the model's order."""

    kernel_count: int
    """Layers of the engine."""

    low_tensor_fraction: float | None
    """Share of the float tensors between layers that are narrower than FP32, in [0, 1]; None if
    the engine shows no float tensor."""

    @property
    def kept(self) -> tuple[LayerPrecision, ...]:
        """The layers that were to stay in FP32."""
        return tuple(layer for layer in self.layers if layer.asked == "fp32")

    @property
    def failures(self) -> tuple[LayerPrecision, ...]:
        """Those that were to stay in FP32 and do not."""
        return tuple(layer for layer in self.layers if layer.is_failure)

    @property
    def not_lowered(self) -> tuple[LayerPrecision, ...]:
        """Those that were to be lowered and compute in FP32."""
        return tuple(x for x in self.layers if x.asked == "low" and x.obtained == "fp32")

    def count_kept(self, obtained: ObtainedPrecision) -> int:
        """Returns how many of the layers that were to stay in FP32 obtained this."""
        return sum(layer.obtained == obtained for layer in self.kept)


@dataclass(frozen=True, slots=True)
class EngineMeasurement:
    """One engine that was built, and run where there is a GPU."""

    name: Literal["fp32", "lowered", "constrained"]
    """Which model it is made of, as in `VerifiedOutput`."""

    size_bytes: int
    """Size when serialised."""

    latency_seconds: float | None
    """Median time of an inference, copies to and from the GPU included; None if it was not run."""

    obtained: ObtainedPrecisions | None
    """What the engine says about its layers; None if it says nothing that can be read."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a constrained model holds what its makers hope for."""

    model: ModelIdentity
    """Which model."""

    precision: str
    """Name of the low precision: `fp16`, `bf16`, or `qdq` for the pairs of a quantised model."""

    backend: str
    """`onnxruntime-emulated` or `tensorrt`."""

    sample_count: int
    """Input samples that were measured."""

    inputs: str
    """Where the samples came from, in words: `generated` or `user`."""

    source: str
    """Where the constraints were read, as in `RequestedPrecisions`."""

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

    failures: tuple[str, ...]
    """Why it does not pass, in words; empty if it does."""

    engines: tuple[EngineMeasurement, ...]
    """The engines; empty where nothing was built."""

    warnings: tuple[str, ...]
    """What the reader must know, in words."""

    left_in_fp32: tuple[Constraint, ...] = ()
    """Layers that a rule leaves in FP32 there, with the reason; empty for engines."""

    node_count: int | None = None
    """Nodes in FP32, with those that only move values between the layers; None for engines."""

    cast_count: int | None = None
    """Casts, one for each tensor and type that it is read in; None for engines."""

    pair_count: int | None = None
    """Pairs of a quantised model that are removed; None for other models."""

    verdict: VerdictKind | None = None
    """How it ends; None where engines do not agree in FP32."""

    sentence: str = ""
    """The verdict in one sentence; empty where engines do not agree in FP32."""

    lowered: Outcome | None = None
    """What every layer lowered makes of the criteria; None where it was not measured."""

    constraints: tuple[Constraint, ...] = ()
    """The layers that stay in FP32, as they were asked for."""

    outcome: Outcome | None = None
    """What the constrained layers in FP32 make of them; None where that was not measured."""

    @property
    def passed(self) -> bool:
        """Whether it passes."""
        return not self.failures
