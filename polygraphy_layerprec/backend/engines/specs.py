"""What an engine is to be, and what builds and runs it; knows no TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.records import RequestedPrecisions

__all__ = [
    "EngineError",
    "EngineKind",
    "EngineSpec",
    "Engines",
    "RunningEngine",
    "Sample",
    "constrained_engine",
]

EngineKind = Literal["reference", "lowered", "constrained", "one layer"]
"""In FP32, with every layer lowered, with some layers kept in FP32 and all others lowered, or with
one layer lowered and all others in FP32."""

Sample = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine of a model."""

    kind: EngineKind
    """What runs in low precision."""

    marked: tuple[str, ...] = ()
    """Tensors that are outputs beside those of the model."""

    layer: str = ""
    """An output tensor of the layer that is lowered, for `one layer`."""

    with_debug_tensors: bool = False
    """Whether every tensor that is not fused away is handed out as a debug tensor."""

    asked: RequestedPrecisions | None = None
    """Which layers stay in FP32, for `constrained`."""

    mixed_path: str = ""
    """A mixed-precision form of the model to build as it is, for `constrained`."""

    def describe(self) -> str:
        """Returns it in words, for messages."""
        kind = f"engine with {self.layer!r} alone lowered" if self.layer else f"{self.kind} engine"
        if self.with_debug_tensors:
            return f"{kind} with debug tensors"
        return f"{kind} with {len(self.marked)} marked tensors" if self.marked else kind


def constrained_engine(asked: RequestedPrecisions, mixed_path: str | None = None) -> EngineSpec:
    """Returns the engine that keeps in FP32 what is asked for: the lowered one if that is nothing.

    Args:
        asked: Which layers stay in FP32.
        mixed_path: A mixed-precision form of the model to build instead of constraining it.
    """
    if mixed_path is None and not asked.constraints:
        return EngineSpec("lowered")
    return EngineSpec("constrained", asked=asked, mixed_path=mixed_path or "")


class EngineError(ExecutionError):
    """One engine cannot be built or run, others may; the text says why and what to do."""


class RunningEngine(Protocol):
    """An engine on the GPU; everything may raise `EngineError`."""

    def infer(self, sample: Sample) -> Sample:
        """Returns the outputs of a sample, which hold until the next call."""

    def latency_seconds(self, sample: Sample, *, runs: int) -> float:
        """Returns the median time of `runs` inferences, copies to and from the GPU included."""

    def layer_information(self) -> str:
        """Returns the engine inspector's JSON; empty where there is none."""


class Engines(Protocol):
    """Builds and runs the engines of one model."""

    @property
    def versions(self) -> tuple[tuple[str, str], ...]:
        """Names and versions of what builds and runs."""

    def markable(self, names: Sequence[str]) -> Mapping[str, str]:
        """Returns why a tensor cannot be marked, by name; empty text where it can be."""

    def identity(self, spec: EngineSpec) -> Mapping[str, Any]:
        """Returns everything that decides what is built, as JSON values."""

    def build(self, spec: EngineSpec, *, observe: Callable[[Any], None] | None = None) -> bytes:
        """Returns a serialised engine.

        Args:
            spec: What to build.
            observe: Called with the network, by the keyword `network`, as the builder gets it.

        Raises:
            EngineError: If the network cannot be lowered or constrained, or not be built.
        """

    def open(self, spec: EngineSpec, plan: bytes) -> AbstractContextManager[RunningEngine]:
        """Gives a serialised engine to run; may raise `EngineError`."""
