"""A ranking as lines of text for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

from polygraphy_layerprec.precision import lowered_to
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.columns import (
    Column,
    align_columns,
    narrowest_width,
    printable,
    shorten,
    wrap_text,
)
from polygraphy_layerprec.report.digits import certain_digits, describe_forecast, describe_stability
from polygraphy_layerprec.report.roll_up import roll_up_by_block, roll_up_by_op

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import NonFiniteOrigin, RankedLayer, Ranking
    from polygraphy_layerprec.report.roll_up import LayerGroup

__all__ = [
    "SORT_KEYS",
    "SortKey",
    "format_ranking",
    "format_unmeasured",
    "sort_layers",
]

SortKey = Literal["impact", "introduced", "cumulative", "name"]
"""What the layers of a table are ordered by."""

SORT_KEYS: Final[tuple[SortKey, ...]] = ("impact", "introduced", "cumulative", "name")
"""All orders."""

_INDENT: Final = "  "
_GROUPS_SHOWN: Final = 8
_UNMEASURED_SHOWN: Final = 3
_PATH_STEPS_SHOWN: Final = 3
_NAME_WIDTH: Final = 48
_LEGEND: Final = (
    "Impact: output error by rounding it alone; Share: its part of the squared error; "
    "Introd., Cumul.: error of its own output, by itself and with all before it"
)
_SURE_OF_A_THOUSANDTH: Final = 0.005


def format_ranking(
    ranking: Ranking, *, top: int = 20, sort_by: SortKey = "impact", width: int = 80
) -> list[str]:
    """Returns `ranking` as lines of text without control characters.

    Args:
        ranking: What was measured.
        top: How many layers to list, at least 1.
        sort_by: The order of the list. `impact` is the ranking's own, the others are descending,
            names ascending; equal layers stay in the ranking's order.
        width: Terminal cells in a line; lines fit from 72 on.
    """
    sections = [
        _format_layers(ranking, top, sort_by, width),
        _format_output_error(ranking, width),
        _format_groups("operator", roll_up_by_op(ranking.layers), width),
        _format_groups("block", roll_up_by_block(ranking.layers), width),
        _format_origins(ranking.nonfinite_origins, width),
        format_unmeasured(ranking, width),
    ]
    return [line for section in sections for line in section]


def sort_layers(layers: Sequence[RankedLayer], sort_by: SortKey) -> list[RankedLayer]:
    """Returns the layers in the order of a list, as in `format_ranking`."""
    if sort_by == "name":
        return sorted(layers, key=lambda layer: (layer.name, layer.rank))
    if sort_by == "introduced":
        return sorted(layers, key=lambda layer: (-layer.introduced_error, layer.rank))
    if sort_by == "cumulative":
        return sorted(
            layers, key=lambda layer: (-_number_or(layer.cumulative_error, -math.inf), layer.rank)
        )
    return sorted(layers, key=lambda layer: layer.rank)


def _format_layers(ranking: Ranking, top: int, sort_by: SortKey, width: int) -> list[str]:
    layers = sort_layers(ranking.layers, sort_by)[:top]
    total = ranking.layer_count
    shown = (
        count_of(total, "layer") if len(layers) == total else f"{len(layers)} of {total:,} layers"
    )
    order = "worst first" if sort_by == "impact" else f"by {sort_by}"
    samples = count_of(ranking.conditions.sample_count, "sample")
    head = (
        f"Ranking: {printable(ranking.model.name) or 'model'} | {shown} in "
        f"{ranking.precision.upper()}, {order}; {samples}"
    )
    lines = [*wrap_text(head, width), *_layer_table(layers, ranking.conditions.impact, width)]
    lines += wrap_text(_LEGEND, width, indent=_INDENT)
    if any(layer.impact_method != ranking.conditions.impact for layer in layers):
        lines.append(f"{_INDENT}~ estimated by another method than the one asked for")
    return lines


def _layer_table(layers: Sequence[RankedLayer], method: str, width: int) -> list[str]:
    """Lines with a row for each layer; what does not fit beside the figures stands below them.

    Names are shortened only where they are longer than any line: they differ in the middle, and
    two that look alike are no use.
    """
    ranks = Column("#", tuple(str(layer.rank) for layer in layers), "right")
    longest = max((len(printable(layer.name)) for layer in layers), default=0)
    room = min(longest, _NAME_WIDTH)
    names = Column("Layer", tuple(layer.name for layer in layers), minimum=room)
    figures = [
        Column("Op", tuple(layer.op for layer in layers), minimum=8, cut="end"),
        Column("Impact", tuple(_impact(layer, method) for layer in layers), "right"),
        Column("Share", tuple(_share(layer) for layer in layers), "right"),
        Column("Introd.", tuple(_error(layer.introduced_error) for layer in layers), "right"),
        Column("Cumul.", tuple(_error(layer.cumulative_error) for layer in layers), "right"),
        Column("Max |x|", tuple(_error(_largest(layer)) for layer in layers), "right"),
    ]
    reasons = Column("Reason", tuple(layer.reason for layer in layers), minimum=32, cut="end")
    in_a_row = [ranks, names, *figures, reasons]
    if narrowest_width(in_a_row) + len(_INDENT) <= width:
        return _indent(align_columns(in_a_row, width=width - len(_INDENT)))
    titles, *rows = _indent(align_columns([ranks, *figures], width=width - len(_INDENT)))
    lines = [titles]
    for row, layer in zip(rows, layers, strict=True):
        name = shorten(printable(layer.name), 2 * width)
        text = f"{name} | {printable(layer.reason)}"
        lines += [row, *wrap_text(text, width, indent=4 * _INDENT)]
    return lines


def _format_output_error(ranking: Ranking, width: int) -> list[str]:
    error, low = ranking.output_error, lowered_to(ranking.precision)
    outputs = error.outputs
    # Integer outputs have no relative error: the share of their unequal elements stands for it.
    known = error.measured > 0.0 or any(
        output.error is not None or not output.mismatch_fraction for output in outputs
    )
    measured = f"{error.measured:.3g}" if known else "unknown"
    head = f"{error.metric[:1].upper()}{error.metric[1:]}: every layer {low} | measured: {measured}"
    forecast = describe_forecast(error)
    if error.is_share or error.forecast_of_loss:
        others = wrap_text(f"{forecast[:1].upper()}{forecast[1:]}", width)
    else:
        head, others = f"{head}, {forecast}", []
    columns = [
        Column("Output", tuple(output.name for output in outputs), minimum=16),
        Column("RMS L2 error", tuple(_error(output.error) for output in outputs), "right"),
        Column("Max |diff|", tuple(_error(output.max_abs_error) for output in outputs), "right"),
        Column("NaN/Inf", tuple(str(output.nonfinite_count) for output in outputs), "right"),
        Column("Unequal", tuple(_percent(o.mismatch_fraction) for o in outputs), "right"),
    ]
    lines = [
        *wrap_text(head, width),
        *others,
        *wrap_text(f"Stability of the order: {describe_stability(ranking)}", width),
    ]
    return lines + _indent(align_columns(columns, width=width - len(_INDENT)))


def _format_groups(kind: str, groups: Sequence[LayerGroup], width: int) -> list[str]:
    # One group says nothing that the list of layers does not.
    if len(groups) < 2:
        return []
    shown = groups[:_GROUPS_SHOWN]
    columns = [
        Column(kind.capitalize(), tuple(g.name or "(top level)" for g in shown), minimum=16),
        Column("Layers", tuple(str(group.layer_count) for group in shown), "right"),
        Column("Share", tuple(_group_share(group) for group in shown), "right"),
        Column("Worst impact", tuple(_group_impact(group) for group in shown), "right"),
        Column("Overflows", tuple(str(group.overflow_count) for group in shown), "right"),
    ]
    lines = [f"By {kind}: share of the output error"]
    lines += _indent(align_columns(columns, width=width - len(_INDENT)))
    if len(shown) < len(groups):
        lines.append(f"{_INDENT}and {len(groups) - len(shown)} more with smaller shares")
    return lines


def _format_origins(origins: Sequence[NonFiniteOrigin], width: int) -> list[str]:
    lines = []
    for origin in origins:
        word = {"inf": "Infinity", "nan": "NaN"}[origin.value]
        whose = "in the FP32 reference already" if origin.in_reference else "in low precision only"
        text = f"{word}: starts in {printable(origin.name)} ({printable(origin.op)}) | {whose}"
        lines += wrap_text(text, width)
        lines += wrap_text(f"path: {_path(origin.path)}", width, indent=2 * _INDENT)
    return lines


def _path(names: Sequence[str]) -> str:
    steps = [shorten(printable(name), 40) for name in names]
    left_out = len(steps) - 2 * _PATH_STEPS_SHOWN
    if left_out > 0:
        steps[_PATH_STEPS_SHOWN:-_PATH_STEPS_SHOWN] = [f"({left_out} more)"]
    return " -> ".join(steps)


def format_unmeasured(ranking: Ranking, width: int) -> list[str]:
    """Returns lines with the layers that were not measured, and why; maybe none."""
    layers = ranking.unmeasured
    if not layers:
        return []
    lines = [f"Unmeasured: {count_of(len(layers), 'layer')}"]
    by_reason: dict[str, list[str]] = {}
    for layer in layers:
        by_reason.setdefault(layer.reason, []).append(f"{layer.name} ({layer.op})")
    for reason, names in by_reason.items():
        shown = ", ".join(shorten(printable(name), 60) for name in names[:_UNMEASURED_SHOWN])
        more = len(names) - _UNMEASURED_SHOWN
        text = f"{shown} and {more} more" if more > 0 else shown
        lines += wrap_text(f"{text} | {printable(reason)}", width, indent=2 * _INDENT)
    return lines


def _indent(lines: Sequence[str]) -> list[str]:
    return [_INDENT + line for line in lines]


def _largest(layer: RankedLayer) -> float:
    return max(layer.max_abs_input, layer.max_abs)


def _impact(layer: RankedLayer, method: str) -> str:
    if layer.lost:
        return layer.lost
    digits = certain_digits(layer.impact_uncertainty)
    return f"{layer.impact:.{digits - 1}e}" + ("" if layer.impact_method == method else "~")


def _share(layer: RankedLayer) -> str:
    if layer.lost:
        return layer.lost
    # Shares go with the square of the impact: their relative error is twice as large.
    uncertainty = 2.0 * (layer.impact_uncertainty or 0.0) * layer.share
    return f"{100 * layer.share:.{1 if uncertainty <= _SURE_OF_A_THOUSANDTH else 0}f}%"


def _group_share(group: LayerGroup) -> str:
    return group.lost if group.share_says_nothing else _percent(group.share)


def _group_impact(group: LayerGroup) -> str:
    return group.lost or _error(group.largest_impact)


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


def _number_or(value: float | None, default: float) -> float:
    return default if value is None else value
