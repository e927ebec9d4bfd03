"""Making up inputs, and telling the user what was made up and how to do better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.execution.samples.plausible import plan_inputs
from polygraphy_layerprec.report.columns import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from polygraphy_layerprec.execution.samples.plausible import PlausibleInput
    from polygraphy_layerprec.model import Graph, GraphInput

__all__ = ["plan_and_tell"]


def plan_and_tell(
    graph: Graph,
    shapes: Mapping[str, Sequence[int]],
    val_range: Mapping[str, tuple[float, float]],
) -> tuple[PlausibleInput, ...]:
    """Returns what to draw for each input, as `plan_inputs` does, and logs it.

    What shapes were made up is a warning: other shapes may find other layers.

    Args:
        graph: The model.
        shapes: Shapes that were given, by input name.
        val_range: Ranges that were given, as `plan_inputs` takes them.

    Raises:
        SampleError: As `plan_inputs` does.
    """
    plan = plan_inputs(graph, shapes=shapes, val_range=val_range)
    for planned in plan:
        text = f"{planned.name}: {list(planned.shape)} | {planned.values.meaning}"
        G_LOGGER.info(printable(f"Made-up input: {text}"))
    assumed = dict(
        assumption
        for graph_input, planned in zip(graph.inputs, plan, strict=True)
        for assumption in _assumptions(graph_input, planned)
    )
    if assumed:
        extents = ", ".join(f"{axis} = {extent}" for axis, extent in assumed.items())
        shapes_option = " ".join(
            f"{planned.name}:[{','.join(map(str, planned.shape))}]"
            for planned in plan
            if planned.assumed_axes
        )
        arrays = ", ".join(f"{planned.name}=..." for planned in plan)
        G_LOGGER.warning(
            f"Shapes were made up, as the values were: {printable(extents)}.\n"
            f"What overflows or cancels depends on the data, so this misleads.\n"
            f"Give real data: `numpy.savez('inputs.npz', {printable(arrays)})`, then "
            f"`--load-inputs inputs.npz`; or at least their shapes, as in "
            f"`--input-shapes {printable(shapes_option)}`."
        )
    return plan


def _assumptions(graph_input: GraphInput, planned: PlausibleInput) -> Iterator[tuple[str, int]]:
    """What was assumed, each symbol once: pairs of an axis in words and its extent."""
    for axis in planned.assumed_axes:
        symbol = graph_input.shape[axis] if graph_input.shape else None
        known = isinstance(symbol, str) and any(map(str.isalnum, symbol))
        name = str(symbol) if known else f"axis {axis} of {graph_input.name}"
        yield name, planned.shape[axis]
