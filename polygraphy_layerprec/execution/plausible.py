"""Inputs made up for a model when the user gives none.

Random data mislead: ids beyond an embedding table crash, masks of noise hide whole sequences. So
the graph and the names of the inputs are asked what an input means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from polygraphy_layerprec.execution.samples import SampleError, check_fits, describe_input

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.model import Graph, GraphInput

__all__ = [
    "DEFAULT_SEED",
    "PlausibleInput",
    "PlausibleValues",
    "draw_samples",
    "plan_inputs",
    "plausible_samples",
]

DEFAULT_SEED: Final = 1
"""Seed of the first sample, Polygraphy's own default."""

_KEEPS_IDS: Final = frozenset(
    "Cast Expand Flatten Identity Reshape Slice Squeeze Transpose Unsqueeze".split()
)
_KEEPS_ROWS: Final = frozenset(["Cast", "DequantizeLinear", "Identity"])
_IMAGE_CHANNELS: Final = frozenset([1, 3, 4])


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


@dataclass(frozen=True, slots=True)
class PlausibleInput:
    """What will be drawn for one input."""

    name: str
    """ONNX name."""

    dtype: np.dtype[Any]
    """Element type."""

    shape: tuple[int, ...]
    """Shape of each sample."""

    values: PlausibleValues
    """How its values are drawn."""

    assumed_axes: tuple[int, ...]
    """Axes of unknown extent that were taken to be 1."""


def plausible_samples(
    graph: Graph,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = DEFAULT_SEED,
    iterations: int = 1,
    val_range: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[dict[str, npt.NDArray[Any]], ...]:
    """Returns `iterations` samples, as `plan_inputs` and `draw_samples` make them."""
    plan = plan_inputs(graph, shapes=shapes or {}, val_range=val_range or {})
    return tuple(draw_samples(plan, seed=seed, iterations=iterations))


def plan_inputs(
    graph: Graph,
    *,
    shapes: Mapping[str, Sequence[int]],
    val_range: Mapping[str, tuple[float, float]],
) -> tuple[PlausibleInput, ...]:
    """Returns what to draw for each input of `graph`, in its order.

    Args:
        graph: The model.
        shapes: Shapes by input name. An extent given for a named axis holds for every input with
            an axis of that name. An unknown first axis is taken for a batch of 1.
        val_range: Smallest and largest value by input name; under an empty name, for every input
            that is not listed.

    Raises:
        SampleError: If a name is unknown, a shape does not fit or is not known, or data of the
            input's type cannot be made up.
    """
    names = [graph_input.name for graph_input in graph.inputs]
    for option, given in (("--input-shapes", shapes), ("--val-range", val_range)):
        unknown = [name for name in given if name and name not in names]
        if unknown:
            raise SampleError(
                f"`{option}` names {unknown[0]!r}, which is no input of the model.\n"
                f"Note: Its inputs are: {'; '.join(map(describe_input, graph.inputs))}."
            )
    resolved = _resolve_shapes(graph.inputs, shapes)
    length = max((shape[1] for shape, _ in resolved.values() if len(shape) >= 2), default=1)
    plans = []
    for graph_input in graph.inputs:
        shape, assumed_axes = resolved[graph_input.name]
        limits = val_range.get(graph_input.name, val_range.get(""))
        values = (
            _plan_values(graph, graph_input, shape, length)
            if limits is None
            else PlausibleValues(*limits, "uniform", "values as asked for")
        )
        plan = PlausibleInput(graph_input.name, graph_input.dtype, shape, values, assumed_axes)
        plans.append(plan)
    return tuple(plans)


def draw_samples(
    plan: Sequence[PlausibleInput], *, seed: int = DEFAULT_SEED, iterations: int = 1
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yields `iterations` samples; the same seed gives the same samples.

    Sample `i` of seed `s` is sample `0` of seed `s + i`, so that more iterations only add some.
    Raises `SampleError` where an input is larger than this machine's memory.
    """
    for index in range(iterations):
        generator = np.random.default_rng(seed + index)
        yield {planned.name: _draw(planned, generator) for planned in plan}


def _resolve_shapes(
    inputs: Sequence[GraphInput], shapes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Returns each input's shape and the axes that were taken to be 1."""
    named: dict[str, int] = {}
    for graph_input in inputs:
        if graph_input.name in shapes:
            given = shapes[graph_input.name]
            _check_shape(given, graph_input)
            named.update(
                (axis, extent)
                for axis, extent in zip(graph_input.shape or (), given, strict=False)
                if isinstance(axis, str)
            )
    resolved = {}
    unresolved = []
    for graph_input in inputs:
        extents, assumed = _resolve_shape(graph_input, shapes.get(graph_input.name), named)
        if extents is None or any(extent is None for extent in extents):
            unresolved.append(graph_input)
        else:
            resolved[graph_input.name] = (tuple(int(e) for e in extents if e is not None), assumed)
    if unresolved:
        raise _shapes_wanted(unresolved)
    return resolved


def _resolve_shape(
    graph_input: GraphInput, given: Sequence[int] | None, named: Mapping[str, int]
) -> tuple[list[int | None] | None, tuple[int, ...]]:
    if given is not None:
        return list(given), ()
    if graph_input.shape is None:
        return None, ()
    extents = [
        extent if isinstance(extent, int) else named.get(extent or "")
        for extent in graph_input.shape
    ]
    if extents and extents[0] is None and _is_batch(graph_input.shape[0]):
        return [1, *extents[1:]], (0,)
    return extents, ()


def _is_batch(axis: int | str | None) -> bool:
    # Exporters leave the batch axis without a name, or give it one of these.
    if not isinstance(axis, str):
        return True
    return axis.lower() in {"b", "n", "bs"} or "batch" in axis.lower() or axis.startswith("unk__")


def _check_shape(given: Sequence[int], graph_input: GraphInput) -> None:
    fixed = graph_input.shape
    fits = fixed is None or (
        len(given) == len(fixed)
        and all(e == f for e, f in zip(given, fixed, strict=True) if isinstance(f, int))
    )
    if not fits or any(not isinstance(extent, int) or extent < 1 for extent in given):
        raise SampleError(
            f"Wrong shape for the input {graph_input.name!r} in `--input-shapes`: {list(given)}.\n"
            f"Note: The model wants: {describe_input(graph_input)}.\n"
            f"Give a positive whole number for each axis."
        )


def _shapes_wanted(inputs: Sequence[GraphInput]) -> SampleError:
    example = " ".join(
        f"{graph_input.name}:[{','.join(_example_extent(e) for e in graph_input.shape or (None,))}]"
        for graph_input in inputs
    )
    return SampleError(
        f"The model's inputs have dynamic shapes, and none were given for: "
        f"{'; '.join(map(describe_input, inputs))}.\n"
        f"Give them, for example: `--input-shapes {example}`.\n"
        f"Better still, give real data with `--load-inputs`."
    )


def _example_extent(extent: int | str | None) -> str:
    if isinstance(extent, int):
        return str(extent)
    return "1" if isinstance(extent, str) and _is_batch(extent) else "128"


def _plan_values(
    graph: Graph, graph_input: GraphInput, shape: tuple[int, ...], sequence_length: int
) -> PlausibleValues:
    name, kind = graph_input.name.lower(), graph_input.dtype.kind
    if kind in "OSUc":
        raise SampleError(
            f"Data for the input {describe_input(graph_input)} cannot be made up.\n"
            f"Give it with `--load-inputs` or `--data-loader-script`."
        )
    if kind == "b" or "mask" in name:
        return PlausibleValues(1, 1, "uniform", "a mask of ones")
    if kind in "iu":
        return _plan_integers(graph, graph_input.name, sequence_length)
    if "image" in name or "pixel" in name or (len(shape) == 4 and shape[1] in _IMAGE_CHANNELS):
        return PlausibleValues(0, 1, "uniform", "an image, values from 0 to 1")
    return PlausibleValues(0, 1, "normal", "features, normally distributed")


def _plan_integers(graph: Graph, name: str, sequence_length: int) -> PlausibleValues:
    lower = name.lower()
    rows = _table_rows(graph, name)
    if "token_type" in lower or "segment" in lower:
        return PlausibleValues(0, 0, "uniform", "token types, all zero")
    if "position" in lower:
        last = sequence_length - 1 if rows is None else rows - 1
        return PlausibleValues(0, last, "range", "positions from 0")
    if rows is not None:
        return PlausibleValues(0, rows - 1, "uniform", f"ids of a table with {rows} rows")
    if "length" in lower or lower.endswith("_len"):
        text = f"lengths, all {sequence_length}"
        return PlausibleValues(sequence_length, sequence_length, "uniform", text)
    return PlausibleValues(0, 1, "uniform", "whole numbers from 0 to 1")


def _table_rows(graph: Graph, name: str) -> int | None:
    """Returns how many rows the smallest table has that the ids `name` index; None for no table."""
    rows = []
    pending, seen = [name], {name}
    while pending:
        tensor = pending.pop()
        for node in graph.consumers.get(tensor, ()):
            if node.op_type == "Gather" and node.inputs[1] == tensor:
                shape = _table_shape(graph, node.inputs[0])
                rows += [shape[node.attributes.get("axis", 0)]] if shape else []
            elif node.op_type in _KEEPS_IDS and node.inputs[0] == tensor:
                pending += [output for output in node.outputs if output not in seen]
                seen.update(node.outputs)
    return min(rows, default=None)


def _table_shape(graph: Graph, name: str) -> tuple[int, ...] | None:
    while name not in graph.weights:
        producer = graph.producers.get(name)
        if producer is None or producer.op_type not in _KEEPS_ROWS:
            return None
        name = producer.inputs[0]
    return graph.weights[name].shape


def _draw(planned: PlausibleInput, generator: np.random.Generator) -> npt.NDArray[Any]:
    values, shape, dtype = planned.values, planned.shape, planned.dtype
    check_fits(planned.name, shape, max(dtype.itemsize, 8))  # numbers are drawn in 64 bits
    if values.distribution == "range":
        steps = np.minimum(np.arange(shape[-1] if shape else 1), values.high)
        return np.broadcast_to(steps.reshape(shape[-1:]), shape).astype(dtype)
    if values.distribution == "normal":
        return np.asarray(generator.normal(values.low, values.high, shape)).astype(dtype)
    if dtype.kind in "biu":
        low, high = int(values.low), int(values.high)
        return np.asarray(generator.integers(low, high, shape, endpoint=True)).astype(dtype)
    return np.asarray(generator.uniform(values.low, values.high, shape)).astype(dtype)
