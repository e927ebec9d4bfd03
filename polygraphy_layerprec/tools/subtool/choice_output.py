"""How `rank` and `constrain` show what was found and chosen: in one look, or in tables."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.terminal_output import lines_logged, log_width, wrapped

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from polygraphy_layerprec.records import Ranking, Selection
    from polygraphy_layerprec.tools.args import CriterionArgs, RankingReportArgs, ReportFileArgs

__all__ = [
    "explain_failure",
    "how_to_choose",
    "is_refuted",
    "lines_of_files",
    "refuse_verdict",
    "show_in_one_look",
    "show_markdown",
    "show_tables",
]

_SENTENCE_END: Final = re.compile(r"(?<=\.)\s+(?=[A-Z])|\n")
_LAST: Final = 1  # the command again
_FAILURE: Final = 3
_WARNING_LINES: Final = 5


def how_to_choose(ranking_path: str) -> str:
    """Returns how to take another set of a list that a ranking holds."""
    command = f"constrain {shlex.quote(ranking_path)} --choose N"
    return f"another: `{command}`"


def is_refuted(ranking: Ranking, selection: Selection) -> bool:
    """Returns whether a measurement refutes the forecast, of the choice or else of the whole."""
    from polygraphy_layerprec.ranking.order import errors_agree, forecast_is_refuted

    if selection.measured_error is None or ranking.output_error.forecast_of_loss:
        return forecast_is_refuted(ranking)
    return not errors_agree(selection.forecast_error, selection.measured_error)


def refuse_verdict(criterion: CriterionArgs, files: ReportFileArgs, *, was_tried: bool) -> None:
    """Stops, before a file is written, where a verdict is wanted though nothing was measured.

    Args:
        criterion: Says whether one is to be saved.
        files: Say whether one is to be shown.
        was_tried: Whether there is a model, so that measuring failed.
    """
    wishes = {"--save-verdict": criterion.verdict_path is not None, "--format json": files.is_json}
    wish = next((option for option, is_wanted in wishes.items() if is_wanted), None)
    if wish is None:
        return
    advice = (
        f"No set of layers could be measured, as is said above: leave out `{wish}`."
        if was_tried
        else "Measure it: give the model and its inputs, for example "
        "`--model model.onnx --load-inputs inputs.npz`."
    )
    G_LOGGER.critical(f"`{wish}`: there is no verdict, for nothing was measured.\n{advice}")


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
        others: Lines that saved files and the commands to go on with will take.
    """
    from polygraphy_layerprec.ranking.doubts import FORECAST_REFUTED
    from polygraphy_layerprec.report.summary import LINES_SHOWN, format_summary

    width = log_width()
    taken = lines_logged() + _LAST + (others if selection.reached else _FAILURE)
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
    lines = format_selection(selection, ranking.layer_count, refuted=refuted, width=width)
    if selection.decision is not None:
        lines += format_choices(selection.decision, hint, width=width)
        lines += format_remedies(selection.decision, width=width)
    G_LOGGER.info("\n".join(lines))


def show_markdown(
    ranking: Ranking, selection: Selection, report: RankingReportArgs, files: ReportFileArgs
) -> None:
    """Writes the layers as Markdown, alone on standard output."""
    from polygraphy_layerprec.report.markdown import format_ranking_markdown

    lines = format_ranking_markdown(
        replace(ranking, decision=selection.decision),
        top=report.top,
        sort_by=report.sort_by,
        kept={layer.name for layer in selection.layers},
    )
    files.show_markdown(lines)


def explain_failure(ranking: Ranking, selection: Selection, *, is_saved: bool) -> str:
    """Returns why no criterion is met, how near the best set comes, and what to do."""
    if selection.decision is None and ranking.output_error.measured == math.inf:
        return wrapped(
            "An output becomes NaN or infinite with every layer lowered, and nothing says that "
            "this choice cures it: no criterion is met.\n"
            "Have it measured: give the model and its inputs."
        )
    saved = ", which was saved," if is_saved else ""
    asked = f"a relative L2 error of at most {selection.tolerance or 0.0:.5g}"
    best = f"is forecast to have {selection.forecast_error:.5g}"
    if selection.decision is not None:
        found = selection.decision.outcome.headline
        asked, best = found.criterion.text, f"has {found.text}"
    return wrapped(
        f"No set of layers meets the criterion: {asked}.\n"
        f"Note: The best that was found{saved} {best} with "
        f"{count_of(selection.cost.layer_count, 'layer')} in FP32.\n"
        f"Relax the criterion, allow more layers, or see what the ranking could not measure."
    )


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
