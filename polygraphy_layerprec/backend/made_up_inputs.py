"""Telling the user what inputs were made up, and how to do better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.report.columns import printable
from polygraphy_layerprec.terminal_output import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from polygraphy_layerprec.execution.samples.plausible import PlausibleInput
    from polygraphy_layerprec.model import Graph, GraphInput

__all__ = ["tell_made_up"]

_INPUTS_SHOWN: Final = 3


def tell_made_up(graph: Graph, plan: Sequence[PlausibleInput]) -> None:
    """Logs what is drawn for each input, as `plan_inputs` returned it.

    What shapes were made up is a warning: other shapes may find other layers.

    Args:
        graph: The model.
        plan: What is drawn, for each of its inputs.
    """
    _tell_values(plan)
    assumed = dict(
        assumption
        for graph_input, planned in zip(graph.inputs, plan, strict=True)
        for assumption in _assumptions(graph_input, planned)
    )
    if assumed:
        extents = ", ".join(f"{axis} = {extent}" for axis, extent in assumed.items())
        likely = [
            f"{planned.name}:[{','.join(map(str, planned.shape))}]"
            for planned in plan
            if planned.assumed_axes
        ]
        arrays = [f"{planned.name}=..." for planned in plan]
        text = (
            f"Shapes were made up, as the values were: {extents}.\n"
            f"Give real data: `numpy.savez('inputs.npz', {_some(arrays, ', ')})`, then "
            f"`--load-inputs inputs.npz`; or at least their shapes: "
            f"`--input-shapes {_some(likely, ' ')}`."
        )
        G_LOGGER.warning(wrapped("\n".join(map(printable, text.split("\n")))))


def _tell_values(plan: Sequence[PlausibleInput]) -> None:
    """Logs what was made up, of a few inputs; of the others in the detailed log."""
    shown = len(plan) if len(plan) <= _INPUTS_SHOWN else _INPUTS_SHOWN - 1
    for place, planned in enumerate(plan):
        text = f"{planned.name}: {list(planned.shape)} | {planned.values.meaning}"
        log = G_LOGGER.info if place < shown else G_LOGGER.verbose
        log(printable(f"Made-up input: {text}"))
    if shown < len(plan):
        G_LOGGER.info(f"Made-up inputs: {len(plan) - shown} more | `-v` lists them")


def _some(words: Sequence[str], separator: str) -> str:
    """Returns the first words, which show how it is written, and dots for the others."""
    more = ["..."] * (len(words) > _INPUTS_SHOWN)
    return separator.join([*words[:_INPUTS_SHOWN], *more])


def _assumptions(graph_input: GraphInput, planned: PlausibleInput) -> Iterator[tuple[str, int]]:
    """What was assumed, each symbol once: pairs of an axis in words and its extent."""
    for axis in planned.assumed_axes:
        symbol = graph_input.shape[axis] if graph_input.shape else None
        known = isinstance(symbol, str) and any(map(str.isalnum, symbol))
        name = str(symbol) if known else f"axis {axis} of {graph_input.name}"
        yield name, planned.shape[axis]
