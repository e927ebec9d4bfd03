"""How two rankings agree, as lines of text for a terminal, and as a file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.files.atomic_file import write_text_file
from polygraphy_layerprec.files.record_codec import to_json_value
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.columns import (
    Column,
    align_columns,
    narrowest_width,
    printable,
    shorten,
    wrap_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import (
        LayerMove,
        RankedSide,
        RankingAgreement,
        UnsharedLayer,
    )

__all__ = ["AGREEMENT_SCHEMA_VERSION", "format_agreement", "save_agreement"]

AGREEMENT_SCHEMA_VERSION: Final = 1
"""Version of the JSON layout of `save_agreement`."""

_INDENT: Final = "  "
_NAME_WIDTH: Final = 40
_TEXT_WIDTH: Final = 60
_LAYERS_SHOWN: Final = 5


def save_agreement(agreement: RankingAgreement, path: str | os.PathLike[str]) -> None:
    """Writes everything that is known of the agreement to the JSON file `path`.

    The same agreement gives the same bytes. The file appears complete or not at all.

    Raises:
        UserError: If a number is not finite, or `path` cannot be written.
        OSError: If writing fails half-way.
    """
    write_text_file(os.fspath(path), format_agreement_json(agreement))


def format_agreement_json(agreement: RankingAgreement) -> str:
    """Returns what `save_agreement` writes.

    Raises:
        UserError: If a number is not finite.
    """
    content = {"schema_version": AGREEMENT_SCHEMA_VERSION, **to_json_value(agreement)}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def format_agreement(agreement: RankingAgreement, *, top: int = 10, width: int = 80) -> list[str]:
    """Returns the agreement as lines of text without control characters.

    Args:
        agreement: What two rankings have in common.
        top: How many of the layers that moved to list, at least 1.
        width: Terminal cells in a line; lines fit from 72 on.
    """
    sections = [
        _format_sides(agreement, width),
        _format_differences(agreement, width),
        _format_correlations(agreement, width),
        _format_outputs(agreement, width),
        _format_moves(agreement, top, width),
        _format_unshared("first", agreement.only_first, width),
        _format_unshared("second", agreement.only_second, width),
    ]
    return [line for section in sections for line in section]


def _format_sides(agreement: RankingAgreement, width: int) -> list[str]:
    sides = (("First", agreement.first), ("Second", agreement.second))
    return [line for which, side in sides for line in _format_side(which, side, width)]


def _format_side(which: str, side: RankedSide, width: int) -> list[str]:
    samples = count_of(side.conditions.sample_count, "sample")
    return wrap_text(
        f"{which}: {shorten(printable(side.label), _TEXT_WIDTH)} | "
        f"{count_of(side.layer_count, 'layer')} of {printable(side.model.name) or 'a model'} in "
        f"{printable(side.precision).upper()}, {printable(side.conditions.backend)}; {samples}",
        width,
    )


def _format_differences(agreement: RankingAgreement, width: int) -> list[str]:
    if not agreement.differences:
        return ["Conditions: alike"]
    columns = [
        Column("Condition", tuple(d.name for d in agreement.differences), minimum=12, cut="end"),
        Column("First", tuple(d.first for d in agreement.differences), minimum=12),
        Column("Second", tuple(d.second for d in agreement.differences), minimum=12),
    ]
    return ["Conditions that differ:", *_indent(align_columns(columns, width=width - len(_INDENT)))]


def _format_correlations(agreement: RankingAgreement, width: int) -> list[str]:
    overlaps = ", ".join(
        f"{overlap.shared_count} of the worst {overlap.count}" for overlap in agreement.overlaps
    )
    head = f"Agreement: {count_of(agreement.shared_count, 'layer')} in both"
    figures = (
        f"rank correlation of the order {_correlation(agreement.rank_correlation)}, impact "
        f"{_correlation(agreement.impact_correlation)}, introduced error "
        f"{_correlation(agreement.introduced_correlation)}, cumulative error "
        f"{_correlation(agreement.cumulative_correlation)}"
    )
    lines = wrap_text(f"{head} | {figures}", width)
    return [*lines, *wrap_text(f"In both: {overlaps}", width)] if overlaps else lines


def _format_outputs(agreement: RankingAgreement, width: int) -> list[str]:
    first, second, outputs = agreement.first, agreement.second, agreement.outputs
    columns = [
        Column(
            "Output error",
            (*(output.name for output in outputs), "(all, measured)", "(all, forecast)"),
            minimum=16,
        ),
        Column(
            "First",
            (
                *(_error(output.first_error) for output in outputs),
                _error(first.measured_error),
                _error(first.forecast_error),
            ),
            "right",
        ),
        Column(
            "Second",
            (
                *(_error(output.second_error) for output in outputs),
                _error(second.measured_error),
                _error(second.forecast_error),
            ),
            "right",
        ),
    ]
    return _indent(align_columns(columns, width=width - len(_INDENT)))


def _format_moves(agreement: RankingAgreement, top: int, width: int) -> list[str]:
    moved = [move for move in agreement.layers if move.shift]
    if not moved:
        return ["Moved: no layer" if agreement.layers else "Moved: there is no layer in both"]
    shown = moved[:top]
    most = f", the {len(shown)} that moved most" if len(shown) < len(moved) else ""
    head = f"Moved: {len(moved)} of {count_of(len(agreement.layers), 'layer')}{most}"
    return [*wrap_text(head, width), *_move_table(shown, width)]


def _move_table(moves: Sequence[LayerMove], width: int) -> list[str]:
    """A row for each layer; what does not fit beside the figures stands below them."""
    figures = [
        Column("First", tuple(str(move.first_rank) for move in moves), "right"),
        Column("Second", tuple(str(move.second_rank) for move in moves), "right"),
        Column("Shift", tuple(f"{move.shift:+d}" for move in moves), "right"),
        Column("Op", tuple(move.op for move in moves), minimum=8, cut="end"),
    ]
    names = Column("Layer", tuple(move.name for move in moves), minimum=_NAME_WIDTH)
    reasons = Column("Why", tuple(move.reason for move in moves), minimum=32, cut="end")
    if narrowest_width([*figures, names, reasons]) + len(_INDENT) <= width:
        return _indent(align_columns([*figures, names, reasons], width=width - len(_INDENT)))
    titles, *rows = _indent(align_columns(figures, width=width - len(_INDENT)))
    lines = [titles]
    for row, move in zip(rows, moves, strict=True):
        text = f"{shorten(printable(move.name), 2 * width)} | {printable(move.reason)}"
        lines += [row, *wrap_text(text, width, indent=4 * _INDENT)]
    return lines


def _format_unshared(which: str, layers: Sequence[UnsharedLayer], width: int) -> list[str]:
    if not layers:
        return []
    lines = [f"Only in the {which}: {count_of(len(layers), 'layer')}"]
    for layer in layers[:_LAYERS_SHOWN]:
        name = shorten(printable(layer.name), _TEXT_WIDTH)
        text = f"{layer.rank} {name} ({printable(layer.op)}) | {printable(layer.reason)}"
        lines += wrap_text(text, width, indent=_INDENT)
    if len(layers) > _LAYERS_SHOWN:
        lines.append(f"{_INDENT}and {len(layers) - _LAYERS_SHOWN} more")
    return lines


def _indent(lines: Sequence[str]) -> list[str]:
    return [_INDENT + line for line in lines]


def _correlation(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
