"""The values that flow along one tensor while a model is compared."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.arrays import is_same, largest_of, library_of, smallest_of
from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.ort_tensors import (
    fed_tensor,
    placed_tensor,
    tensor_of,
    value_of,
)
from polygraphy_layerprec.rounding import round_to_precision

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision

__all__ = [
    "Extent",
    "Streams",
    "can_carry_error",
    "entering_streams",
    "hands_on_fed",
    "is_float",
    "largest_finite",
    "look_at",
    "rounded_tensor",
    "shape_of",
    "streams_of",
    "union_of_overflows",
    "writable_array",
]

_FLOAT_TYPES = frozenset({"tensor(float)", "tensor(double)"})


@dataclass(slots=True)
class Streams:
    """One tensor in several worlds; a world that is like the reference shares its value."""

    reference: ort.OrtValue
    """In FP32."""

    candidate: ort.OrtValue
    """With every layer lowered."""

    saturated: ort.OrtValue
    """In FP32, but infinite where the precision's range ends: shows what overflow alone does."""

    constant: bool = False
    """Whether it depends on constants alone."""

    fed: bool = False
    """Whether values from outside low precision are among it, fed by the user or computed in FP32:
    beyond the range these become infinite, whereas constants are clipped when converted."""

    computed: bool = False
    """Whether a layer made it, if only by way of nodes that move values: else the layer that takes
    it counts its rounding with that of weights."""

    max_abs: float = 0.0
    """Largest finite magnitude in the reference; an upper bound behind nodes that move values."""

    overflows: frozenset[int] = frozenset()
    """Indices of the nodes whose overflow `saturated` carries."""

    nonfinite_from: int | None = None
    """Index of the node that handed a NaN or infinity on to here."""

    rounded: ort.OrtValue | None = None
    """The candidate as a lowered layer takes it, once one did."""

    @property
    def shared(self) -> bool:
        """Whether the candidate is the reference."""
        return self.candidate is self.reference

    def enter(self, precision: Precision) -> ort.OrtValue:
        """Returns the candidate rounded, as it is cast; constants are clipped when converted."""
        if self.rounded is None:
            self.rounded = rounded_tensor(self.candidate, precision, saturate=self.constant)
        return self.rounded


def entering_streams(
    graph: Graph, sample: Mapping[str, np.ndarray[Any, Any]]
) -> dict[str, Streams]:
    """Returns what is there before any node runs: what is fed, and constants that are outputs.

    Raises:
        ExecutionError: If ONNX-Runtime has no tensors of an input's type.
    """
    streams = {}
    for name, values in sample.items():
        tensor = fed_tensor(name, values)
        if is_float(tensor):
            largest = largest_finite(values)
            streams[name] = Streams(tensor, tensor, tensor, fed=True, max_abs=largest)
        else:
            streams[name] = Streams(tensor, tensor, tensor)
    for name in graph.outputs:
        if name in graph.weights:
            with contextlib.suppress(NodeError):  # as an output that cannot be computed
                constant = placed_tensor(graph.weights[name].read())
                streams[name] = Streams(constant, constant, constant, constant=True)
    return streams


def is_float(tensor: ort.OrtValue) -> bool:
    """Whether a value is a tensor of FP32 or FP64, the types that are measured."""
    return tensor.data_type() in _FLOAT_TYPES


def can_carry_error(tensor: ort.OrtValue | None) -> bool:
    """Whether an error can be among the values: floats of any width, alone or in a sequence."""
    return tensor is not None and any(kind in tensor.data_type() for kind in ("float", "double"))


def rounded_tensor(
    tensor: ort.OrtValue, precision: Precision, *, saturate: bool = False
) -> ort.OrtValue:
    """Returns a rounded copy, or `tensor` itself where rounding changes nothing.

    Any type but FP32 and FP64 comes back as it is.
    """
    if not is_float(tensor):
        return tensor
    values = value_of(tensor)
    rounded = round_to_precision(values, precision, saturate=saturate)
    return tensor if is_same(rounded, values) else tensor_of(rounded)


def writable_array(tensor: ort.OrtValue) -> tuple[np.ndarray[Any, Any], ort.OrtValue]:
    """Returns the elements of a tensor and the tensor that changes with them.

    Newer ONNX-Runtimes share their memory, older ones hand out a copy.
    """
    values = value_of(tensor)
    if library_of(values) is not None or values.ctypes.data == tensor.data_ptr() or not values.size:
        return values, tensor
    return values, tensor_of(values)


def shape_of(tensor: ort.OrtValue | None) -> tuple[int, ...] | None:
    """Returns the shape of a tensor, None for a sequence, an optional or nothing."""
    if tensor is None or not tensor.data_type().startswith("tensor"):
        return None
    return tuple(tensor.shape())


def largest_finite(values: np.ndarray[Any, Any]) -> float:
    """Returns the largest finite magnitude, 0 where there is none."""
    return look_at(values).largest_finite


@dataclass(frozen=True, slots=True)
class Extent:
    """How far the values of a float array reach."""

    largest_finite: float
    """Largest finite magnitude, 0 where there is none."""

    is_finite: bool
    """Whether all are finite."""


def look_at(values: np.ndarray[Any, Any]) -> Extent:
    """Returns how far values reach."""
    if not values.size:
        return Extent(0.0, is_finite=True)
    largest = max(largest_of(values), -smallest_of(values))
    if math.isfinite(largest):
        return Extent(largest, is_finite=True)
    finite = values[np.isfinite(values)]
    return Extent(largest_of(np.abs(finite)) if finite.size else 0.0, is_finite=False)


def hands_on_fed(node: Node, floats: Sequence[Streams]) -> bool:
    """Whether a node that moves values hands on some from outside low precision; see `fed`.

    Numbers that a Cast makes of integers are such: nothing clips them.
    """
    return any(stream.fed for stream in floats) or (not floats and node.op_type == "Cast")


def union_of_overflows(streams: Mapping[str, Streams]) -> frozenset[int]:
    """Returns the nodes whose overflow any of the tensors carries."""
    return frozenset().union(*(stream.overflows for stream in streams.values()))


def streams_of(
    references: Sequence[ort.OrtValue | None],
    candidates: Sequence[ort.OrtValue | None],
    saturated: Sequence[ort.OrtValue | None],
) -> list[Streams | None]:
    """Returns the streams of a node's outputs; None for absent ones."""
    return [
        None if a is None or b is None or c is None else Streams(a, b, c)
        for a, b, c in zip(references, candidates, saturated, strict=True)
    ]
