"""What was measured of a model, and the order that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polygraphy_layerprec.records.decision import Decision
from polygraphy_layerprec.records.model_identity import ModelIdentity
from polygraphy_layerprec.records.numbers import MaybeInfinite
from polygraphy_layerprec.records.ranked_layer import ImpactMethod, RankedLayer, UnmeasuredLayer

__all__ = [
    "NonFiniteOrigin",
    "OutputDivergence",
    "OutputError",
    "Ranking",
    "RunConditions",
]


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

    device: str = ""
    """Name of the GPU that nodes ran on; empty for the CPU."""


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
