"""Inputs made up for a model when the user gives none.

Random data mislead: ids beyond an embedding table crash, masks of noise hide whole sequences. So
the graph and the names of the inputs are asked what an input means, and the model itself whether
it takes such shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.execution.samples.given import SampleError, check_fits, describe_input
from polygraphy_layerprec.execution.samples.plausible_shapes import propose_shapes
from polygraphy_layerprec.execution.samples.plausible_values import (
    PlausibleValues,
    draw_values,
    plan_values,
)
from polygraphy_layerprec.execution.samples.trial_run import TrialRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.execution.samples.plausible_shapes import ResolvedShape
    from polygraphy_layerprec.execution.samples.trial_run import Refusal
    from polygraphy_layerprec.model import Graph

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
    """Axes whose extent was made up: not fixed, not given, and following from nothing that is."""


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

    Where an extent is made up, the model is run, and other extents are tried until it takes them.

    Args:
        graph: The model.
        shapes: Shapes by input name. An extent given for a named axis holds for every axis of that
            name, in sums as well.
        val_range: Smallest and largest value by input name; under an empty name, for every input
            that is not listed.

    Raises:
        SampleError: If a name is unknown, a shape does not fit, the model takes none of the shapes
            that were tried, or data of the input's type cannot be made up.
    """
    _check_names(graph, shapes, val_range)
    trial = None
    refusals = []
    for resolved in propose_shapes(graph, shapes):
        plan = _plan(graph, resolved, val_range)
        if not any(planned.assumed_axes for planned in plan):
            return plan
        trial = trial or TrialRun(graph)
        (sample,) = draw_samples(plan)
        refusal = trial.refusal(sample)
        if refusal is None:
            return plan
        refusals.append((plan, refusal))
    raise _shapes_wanted(graph, refusals)


def draw_samples(
    plan: Sequence[PlausibleInput], *, seed: int = DEFAULT_SEED, iterations: int = 1
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yields `iterations` samples; the same seed gives the same samples.

    Sample `i` of seed `s` is sample `0` of seed `s + i`, so that more iterations only add some.
    Raises `SampleError` where the inputs are too large for this machine's memory.
    """
    # Numbers are drawn in 64 bits.
    check_fits({p.name: (p.shape, max(p.dtype.itemsize, 8)) for p in plan})
    for index in range(iterations):
        generator = np.random.default_rng(seed + index)
        yield {
            planned.name: draw_values(planned.values, planned.shape, planned.dtype, generator)
            for planned in plan
        }


def _check_names(
    graph: Graph,
    shapes: Mapping[str, Sequence[int]],
    val_range: Mapping[str, tuple[float, float]],
) -> None:
    names = [graph_input.name for graph_input in graph.inputs]
    for option, given in (("--input-shapes", shapes), ("--val-range", val_range)):
        unknown = [name for name in given if name and name not in names]
        if unknown:
            raise SampleError(
                f"`{option}` names {unknown[0]!r}, which is no input of the model.\n"
                f"Note: Its inputs are: {'; '.join(map(describe_input, graph.inputs))}."
            )


def _plan(
    graph: Graph,
    resolved: Mapping[str, ResolvedShape],
    val_range: Mapping[str, tuple[float, float]],
) -> tuple[PlausibleInput, ...]:
    extents = {name: shape.extents for name, shape in resolved.items()}
    plan = []
    for graph_input in graph.inputs:
        limits = val_range.get(graph_input.name, val_range.get(""))
        values = (
            plan_values(graph, graph_input, extents)
            if limits is None
            else PlausibleValues(*limits, "uniform", "values as asked for")
        )
        shape = resolved[graph_input.name]
        plan.append(
            PlausibleInput(
                graph_input.name, graph_input.dtype, shape.extents, values, shape.assumed_axes
            )
        )
    return tuple(plan)


def _shapes_wanted(
    graph: Graph, refusals: Sequence[tuple[Sequence[PlausibleInput], Refusal]]
) -> SampleError:
    """The error where the model refuses all that was tried: it cannot propose a shape."""
    plan, refusal = refusals[0]
    tried = ", ".join(f"{planned.name}: {list(planned.shape)}" for planned in plan if planned.shape)
    template = " ".join(
        f"{graph_input.name}:[{','.join(map(str, _placeholders(graph_input.shape)))}]"
        for graph_input in graph.inputs
        if graph_input.shape is None or not all(isinstance(e, int) for e in graph_input.shape)
    )
    return SampleError(
        f"The model's inputs have dynamic shapes, none were given, and it takes none of the "
        f"{len(refusals)} that were tried.\n"
        f"Note: With {tried}, {refusal.node.name!r} ({refusal.node.op_type}) fails: "
        f"{refusal.reason}\n"
        f"Give real data with `--load-inputs`, or shapes, with numbers in place of names: "
        f"`--input-shapes {template}`."
    )


def _placeholders(shape: Sequence[int | str | None] | None) -> list[int | str]:
    if shape is None:
        return ["EXTENT", "..."]
    return [extent or f"EXTENT{axis}" for axis, extent in enumerate(shape)]
