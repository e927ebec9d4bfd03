"""What an engine is to be, before anything is built; knows no TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from polygraphy_layerprec.execution.errors import ExecutionError

__all__ = [
    "EngineError",
    "EngineKind",
    "EngineSpec",
    "Engines",
    "Infer",
    "Runtime",
    "Sample",
]

EngineKind = Literal["reference", "lowered", "one layer"]
"""In FP32, with every layer lowered, or with one layer lowered and all others in FP32."""

Sample = Mapping[str, np.ndarray[Any, Any]]
Infer = Callable[[Sample], Mapping[str, np.ndarray[Any, Any]]]
"""Returns the outputs of a sample, which hold until the next call."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine of the model that is ranked."""

    kind: EngineKind
    """What runs in low precision."""

    marked: tuple[str, ...] = ()
    """Tensors that are outputs beside those of the model."""

    layer: str = ""
    """An output tensor of the layer that is lowered, for `one layer`."""

    with_debug_tensors: bool = False
    """Whether every tensor that is not fused away is handed out as a debug tensor."""

    def describe(self) -> str:
        """Returns it in words, for messages."""
        kind = f"engine with {self.layer!r} alone lowered" if self.layer else f"{self.kind} engine"
        if self.with_debug_tensors:
            return f"{kind} with debug tensors"
        return f"{kind} with {len(self.marked)} marked tensors" if self.marked else kind


class EngineError(ExecutionError):
    """One engine cannot be built or run, others may; the text says why and what to do."""


class Engines(Protocol):
    """Builds the engines of one model."""

    def markable(self, names: Sequence[str]) -> Mapping[str, str]:
        """Returns why a tensor cannot be marked, by name; empty text where it can be."""

    def identity(self, spec: EngineSpec) -> Mapping[str, Any]:
        """Returns everything that decides what is built, as JSON values."""

    def build(self, spec: EngineSpec) -> bytes:
        """Returns a serialised engine, or raises `EngineError`."""


class Runtime(Protocol):
    """Runs engines."""

    def open(self, spec: EngineSpec, plan: bytes) -> AbstractContextManager[Infer]:
        """Gives a function that runs the engine on a sample; both may raise `EngineError`."""
