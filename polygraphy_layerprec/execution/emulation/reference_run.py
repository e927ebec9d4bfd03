"""A node with what it takes, once its reference ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polygraphy_layerprec.execution.streams import Streams, is_float

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.model import Node

__all__ = ["ReferenceRun"]


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """A node with its inputs, after its reference ran."""

    node: Node
    """The node."""

    weights: Mapping[str, ort.OrtValue]
    """Its exact constants, by name."""

    streams: Mapping[str, Streams]
    """Its other sources, by name."""

    inputs: Mapping[str, ort.OrtValue]
    """Both, as the reference takes them."""

    outputs: Sequence[ort.OrtValue | None]
    """What the reference gave; None for absent outputs."""

    @property
    def is_random(self) -> bool:
        """Whether another run would draw other numbers, and tell nothing."""
        return self.node.is_random

    @property
    def max_abs_input(self) -> float:
        """Largest finite magnitude that arrives, constants apart."""
        return max((stream.max_abs for stream in self.streams.values()), default=0.0)

    @property
    def variable(self) -> list[str]:
        """Float inputs that an error can arrive by."""
        return [n for n, s in self.streams.items() if is_float(s.reference) and not s.constant]

    @property
    def nonfinite_from(self) -> int | None:
        """Index of a node that handed a NaN or infinity on to here."""
        origins = (stream.nonfinite_from for stream in self.streams.values())
        return next((origin for origin in origins if origin is not None), None)
