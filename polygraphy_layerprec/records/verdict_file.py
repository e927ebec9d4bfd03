"""A verdict for programs: what `--save-verdict` holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polygraphy_layerprec.records.criterion import Outcome
from polygraphy_layerprec.records.decision import HeldOut, VerdictKind
from polygraphy_layerprec.records.model_identity import ModelIdentity

__all__ = ["SavedVerdict"]


@dataclass(frozen=True, slots=True)
class SavedVerdict:
    """What a command decided, for those who act on it."""

    verb: Literal["rank", "constrain", "verify"]
    """Which command."""

    passed: bool
    """Whether all criteria are met by what was chosen or asked for."""

    verdict: VerdictKind
    """How it ends."""

    sentence: str
    """The same in words."""

    model: ModelIdentity
    """Which model."""

    precision: str
    """Name of the low precision: `fp16` or `bf16`."""

    backend: str
    """What the outputs come from: `onnxruntime-emulated` or `tensorrt`."""

    inputs: str
    """Where the samples came from, in words: `generated` or `user`."""

    sample_count: int
    """Samples that were measured, those held out aside."""

    layer_count: int
    """Layers of the model."""

    chosen_count: int
    """Layers that stay in FP32."""

    node_count: int | None
    """Nodes in FP32, with those that only move values between these layers; null for engines."""

    cast_count: int | None
    """Casts, one for each tensor and type that it is read in; null for engines."""

    lowered: Outcome
    """With every layer lowered."""

    outcome: Outcome
    """With the chosen layers in FP32."""

    held_out: HeldOut | None
    """What other samples say; null where none were held out."""

    failures: tuple[str, ...]
    """Why it does not pass, in words."""
