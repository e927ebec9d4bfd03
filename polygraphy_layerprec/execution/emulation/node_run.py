"""What one node did with one sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.divergence.compact_errors import CompactErrors
    from polygraphy_layerprec.divergence.metrics import DivergenceSums
    from polygraphy_layerprec.execution.streams import Streams
    from polygraphy_layerprec.model import Node

__all__ = ["NodeResult", "NodeRun"]


@dataclass(frozen=True, slots=True)
class NodeRun:
    """What one node did with one sample."""

    node: Node
    """The node."""

    inputs: Mapping[str, ort.OrtValue]
    """Reference inputs by tensor name, weights included (rounded, if the node is a layer). Once the
    next node runs, the memory of large weights is used again: their types and shapes stay."""

    outputs: Sequence[ort.OrtValue | None]
    """Reference outputs, None for absent ones."""

    introduced: Sequence[ort.OrtValue | None] | None = None
    """Outputs from exact inputs and rounded weights, not rounded; None if like `outputs`."""

    sums: DivergenceSums | None = None
    """Divergence over the float outputs; None if the node is no layer."""

    max_abs_input: float = 0.0
    """Largest finite magnitude among the float inputs, weights included."""

    largest_sum_of_terms: float = 0.0
    """Largest sum of the magnitudes of the terms of a reduction; 0 if it is surely in range."""

    harmful_overflows: frozenset[int] = frozenset()
    """Indices of nodes whose overflow was seen to do damage here."""

    nonfinite_from: int | None = None
    """Index of the node that handed on a NaN or infinity, if one is among the outputs too."""

    gains: Mapping[str, float] = field(default_factory=dict)
    """For each variable input, how much larger an error leaves the node than it came."""

    step_gain: float = 1.0
    """How much larger the candidate's error leaves a quantizer than it came; at least 1."""

    flipped_count: int = 0
    """Elements of integers, truth values and whole floats that differ in the candidate."""

    errors: Mapping[str, CompactErrors] = field(default_factory=dict)
    """Introduced error of each float output, as `measure_divergence` keeps it."""


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What comes of a node: at once for the nodes behind it, and later for those who observe."""

    streams: list[Streams | None]
    """The streams of its outputs, None for absent ones."""

    finish: Callable[[], NodeRun]
    """Returns what it did, summed up. For any thread, once."""

    nbytes: int = 0
    """Size of the arrays that are to be summed up."""
