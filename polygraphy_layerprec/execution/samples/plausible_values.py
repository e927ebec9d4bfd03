"""Values that an input's name, type and use suggest, and how they are drawn."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from polygraphy_layerprec.execution.samples.axis_roles import is_sample_rate
from polygraphy_layerprec.execution.samples.given import SampleError, describe_input

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.model import Graph, GraphInput, Node

__all__ = ["PlausibleValues", "draw_values", "plan_values"]

_KEEPS_IDS: Final = frozenset(
    "Cast Expand Flatten Identity Reshape Slice Squeeze Transpose Unsqueeze".split()
)
_KEEPS_ROWS: Final = frozenset(["Cast", "DequantizeLinear", "Identity"])
_IMAGE_CHANNELS: Final = frozenset([1, 3, 4])
_SAMPLE_RATE_HZ: Final = 16000
_IMAGE_SIZE: Final = re.compile(r"im(?:age|g)?_?(?:size|shape)|orig.*size", re.IGNORECASE)
_SCALE: Final = re.compile(r"scale|temperature|speed", re.IGNORECASE)
_TIME_STEP: Final = re.compile(r"time_?step", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PlausibleValues:
    """How the values of one input are drawn."""

    low: float
    """Smallest value; the mean of normally distributed values."""

    high: float
    """Largest value, included for integers; the standard deviation of normal values."""

    distribution: Literal["uniform", "normal", "range"]
    """`range` is 0, 1, 2, ... along the last axis, at most `high`."""

    meaning: str
    """What the input was taken for, in words: `ids of a table with 30522 rows`."""


def plan_values(
    graph: Graph, graph_input: GraphInput, shapes: Mapping[str, Sequence[int]]
) -> PlausibleValues:
    """Returns how to draw the values of an input.

    Args:
        graph: The model.
        graph_input: The input.
        shapes: The shape of each input.

    Raises:
        SampleError: If data of the input's type cannot be made up.
    """
    name, kind, shape = graph_input.name.lower(), graph_input.dtype.kind, shapes[graph_input.name]
    if kind in "OSUc":
        raise SampleError(
            f"Data for the input {describe_input(graph_input)} cannot be made up.\n"
            f"Give it with `--load-inputs` or `--data-loader-script`."
        )
    if kind == "b" or "mask" in name:
        return _constant(1, "a mask of ones")
    told = _plan_by_name(name, shape, shapes)
    if told is not None:
        return told
    if kind in "iu":
        return _plan_integers(graph, graph_input, shapes)
    if "image" in name or "pixel" in name or (len(shape) == 4 and shape[1] in _IMAGE_CHANNELS):
        return PlausibleValues(0, 1, "uniform", "an image, values from 0 to 1")
    return PlausibleValues(0, 1, "normal", "features, normally distributed")


def draw_values(
    values: PlausibleValues,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    generator: np.random.Generator,
) -> npt.NDArray[Any]:
    """Returns an array of this shape and type."""
    if values.distribution == "range":
        steps = np.minimum(np.arange(shape[-1] if shape else 1), values.high)
        return np.broadcast_to(steps.reshape(tuple(shape[-1:])), shape).astype(dtype)
    if values.distribution == "normal":
        return np.asarray(generator.normal(values.low, values.high, shape)).astype(dtype)
    if dtype.kind in "biu":
        low, high = int(values.low), int(values.high)
        return np.asarray(generator.integers(low, high, shape, endpoint=True)).astype(dtype)
    return np.asarray(generator.uniform(values.low, values.high, shape)).astype(dtype)


def _constant(value: float, meaning: str) -> PlausibleValues:
    return PlausibleValues(value, value, "uniform", meaning)


def _plan_by_name(
    name: str, shape: Sequence[int], shapes: Mapping[str, Sequence[int]]
) -> PlausibleValues | None:
    """Settings of which a random value would make no sense, whatever their type."""
    if is_sample_rate(name):
        return _constant(_SAMPLE_RATE_HZ, "a sample rate of 16 kHz")
    if _TIME_STEP.search(name):
        return _constant(500, "a step of a diffusion, 500")
    if _IMAGE_SIZE.search(name):
        side = max((other[-1] for other in shapes.values() if len(other) >= 3), default=224)
        return _constant(side, f"the size of an image, {side}")
    if len(shape) <= 2 and _SCALE.search(name):
        return _constant(1, "a scale of 1")
    return None


def _plan_integers(
    graph: Graph, graph_input: GraphInput, shapes: Mapping[str, Sequence[int]]
) -> PlausibleValues:
    name, dtype = graph_input.name, graph_input.dtype
    lower = name.lower()
    rows = _table_rows(graph, name)
    length = max((shape[1] for shape in shapes.values() if len(shape) >= 2), default=1)
    if "token_type" in lower or "segment" in lower:
        return _constant(0, "token types, all zero")
    if "position" in lower:
        last = length - 1 if rows is None else rows - 1
        return PlausibleValues(0, last, "range", "positions from 0")
    if rows is not None:
        return PlausibleValues(0, rows - 1, "uniform", f"ids of a table with {rows} rows")
    if "length" in lower or lower.endswith("_len"):
        return _constant(length, f"lengths, all {length}")
    if dtype == np.uint8 and len(shapes[name]) >= 3:
        return PlausibleValues(0, 255, "uniform", "an image, values from 0 to 255")
    return PlausibleValues(0, 1, "uniform", "whole numbers from 0 to 1")


def _table_rows(graph: Graph, name: str) -> int | None:
    """Returns how many rows the smallest table has that the ids `name` index; None for no table."""
    rows = []
    pending, seen = [name], {name}
    while pending:
        tensor = pending.pop()
        for node in graph.consumers.get(tensor, ()):
            count = _classes_at(graph, node, tensor)
            if count is not None:
                rows.append(count)
            elif node.op_type in _KEEPS_IDS and node.inputs[0] == tensor:
                pending += [output for output in node.outputs if output not in seen]
                seen.update(node.outputs)
    return min(rows, default=None)


def _classes_at(graph: Graph, node: Node, ids: str) -> int | None:
    """How many values `ids` may have where `node` takes them; None where it does not say."""
    if node.op_type == "Gather" and node.inputs[1] == ids:
        shape = _table_shape(graph, node.inputs[0])
        return shape[node.attributes.get("axis", 0)] if shape else None
    if node.op_type == "OneHot" and node.inputs[0] == ids:
        depth = graph.weights.get(node.inputs[1])
        return None if depth is None else int(depth.read().reshape(-1)[0])
    if node.op_type == "Equal":  # JAX and TensorFlow compare with each class in turn
        weights = [graph.weights[other] for other in node.inputs if other in graph.weights]
        classes = weights[0].read().reshape(-1) if weights else np.empty(0)
        counts_up = classes.size > 1 and np.array_equal(classes, np.arange(classes.size))
        return int(classes.size) if counts_up else None
    return None


def _table_shape(graph: Graph, name: str) -> tuple[int, ...] | None:
    while name not in graph.weights:
        producer = graph.producers.get(name)
        if producer is None or producer.op_type not in _KEEPS_ROWS:
            return None
        name = producer.inputs[0]
    return graph.weights[name].shape
