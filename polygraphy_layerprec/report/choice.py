"""What was chosen to stay in FP32, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.report.columns import printable, shorten, wrap_text

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Selection

__all__ = ["format_selection"]

_LAYERS_SHOWN: Final = 10


def format_selection(
    selection: Selection, total: int, *, refuted: bool = False, width: int = 80
) -> list[str]:
    """Returns the choice as lines of text without control characters.

    Args:
        selection: What was chosen.
        total: How many layers there were to choose from.
        refuted: Whether the ranking's forecast does not hold, so that none is an answer.
        width: Terminal cells in a line.
    """
    cost = selection.cost
    head = (
        f"Chosen: {cost.layer_count} of {total} layers stay in FP32 | "
        f"{100 * cost.flops_fraction:.1f}% of the operations, {cost.cast_count} tensors are cast; "
        f"output error: {_error(selection, refuted=refuted)}"
    )
    lines = wrap_text(head, width)
    for layer in selection.layers[:_LAYERS_SHOWN]:
        name = shorten(printable(layer.name), 60)
        text = f"{name} ({printable(layer.op)}) | {printable(layer.reason)}"
        lines += wrap_text(text, width, indent="  ")
    if len(selection.layers) > _LAYERS_SHOWN:
        lines.append(f"  and {len(selection.layers) - _LAYERS_SHOWN} more")
    return lines + _plain_choice(selection, width)


def _plain_choice(selection: Selection, width: int) -> list[str]:
    """What taking layers in the ranking's order would cost, where it meets the same error."""
    plain = selection.plain_cost
    if plain is None:
        return []
    text = (
        f"The first of the ranking that meet the same error: {plain.layer_count} layers | "
        f"{100 * plain.flops_fraction:.1f}% of the operations, {plain.cast_count} tensors are cast"
    )
    return wrap_text(text, width)


def _error(selection: Selection, *, refuted: bool) -> str:
    forecast = f"forecast {selection.forecast_error:.2g}"
    if selection.measured_error is None:
        return f"unknown: the {forecast} is refuted by what was measured" if refuted else forecast
    measured = f"measured {selection.measured_error:.3g}"
    return measured if refuted else f"{measured}, {forecast}"
