"""How `rank` and `constrain` show what was found and chosen: in one look, or in tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.terminal import log_width, wrapped

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from polygraphy_layerprec.records import Ranking, Selection
    from polygraphy_layerprec.tools.args import RankingReportArgs

__all__ = ["lines_of_files", "show_in_one_look", "show_tables"]

_SENTENCE_END: Final = re.compile(r"(?<=\.)\s+(?=[A-Z])|\n")
_FRAME: Final = 2  # the first and the last line, with the command
_NEXT: Final = 2
_FAILURE: Final = 3
_WARNING_LINES: Final = 5


def show_in_one_look(
    ranking: Ranking, selection: Selection, *, hint: str, refuted: bool, others: int
) -> None:
    """Logs culprits, choice, sets and remedies on as many lines as are left.

    What was measured needs no forecast, so that nothing is said of it then.

    Args:
        ranking: The ranked layers.
        selection: What was chosen of them.
        hint: How to take another set of the list; may be empty.
        refuted: Whether a measurement refutes the forecast.
        others: Lines that notes, saved files and commands for them take.
    """
    from polygraphy_layerprec.ranking.doubts import FORECAST_REFUTED
    from polygraphy_layerprec.report.summary import (
        LINES_SHOWN,
        format_summary,
        format_verdict_line,
    )

    width = log_width()
    taken = _FRAME + others + (_NEXT if selection.reached else _FAILURE)
    if selection.decision is not None:
        taken += len(format_verdict_line(selection.decision, width=width).splitlines())
    warnings = _fitting_warnings(
        [
            warning
            for warning in ranking.warnings
            if selection.decision is None or not warning.startswith(FORECAST_REFUTED)
        ]
    )
    found, choice = format_summary(
        ranking,
        selection,
        hint=hint,
        refuted=refuted,
        width=width,
        room=LINES_SHOWN - taken - sum(len(warning.splitlines()) for warning in warnings),
    )
    G_LOGGER.info(found)
    for warning in warnings:
        G_LOGGER.warning(warning)
    G_LOGGER.info(choice)


def show_tables(
    ranking: Ranking,
    selection: Selection,
    report: RankingReportArgs,
    *,
    hint: str,
    refuted: bool,
) -> None:
    """Logs the layers, what the reader must know, and the whole choice."""
    from polygraphy_layerprec.report.choice import (
        format_choices,
        format_remedies,
        format_selection,
    )

    width = log_width()
    report.show(ranking)
    for warning in ranking.warnings:
        G_LOGGER.warning(wrapped(warning))
    lines = format_selection(selection, len(ranking.layers), refuted=refuted, width=width)
    if selection.decision is not None:
        lines += format_choices(selection.decision, hint, width=width)
        lines += format_remedies(selection.decision, width=width)
    G_LOGGER.info("\n".join(lines))


def lines_of_files(args: argparse.Namespace) -> int:
    """Returns how many lines it takes to say which files were saved."""
    return sum(bool(value) for name, value in vars(args).items() if name.startswith("save_"))


def _fitting_warnings(warnings: Sequence[str]) -> list[str]:
    """What the first warnings say before they explain it, and how many there are beside them."""
    shown: list[str] = []
    taken = 0
    for warning in (wrapped(_SENTENCE_END.split(text, maxsplit=1)[0]) for text in warnings):
        taken += len(warning.splitlines())
        if shown and taken > _WARNING_LINES:
            break
        shown.append(warning)
    left_out = len(warnings) - len(shown)
    if left_out:
        noun = "warning" if left_out == 1 else "warnings"
        shown.append(f"{left_out} more {noun}: `--show 1` shows all")
    return shown
