"""The reports: a ranking, a verification or a comparison, as one page each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.precision import QDQ, lowered_to, precision_named
from polygraphy_layerprec.report.agreement_headline import judge_agreement, move_data
from polygraphy_layerprec.report.choice import rows_of_choices
from polygraphy_layerprec.report.error_curve import curve_of_report
from polygraphy_layerprec.report.headline import (
    Verdict,
    judge_ranking,
    judge_verification,
    scale_positions,
)
from polygraphy_layerprec.report.html.agreement_chart import AGREEMENT_AXES, draw_agreement
from polygraphy_layerprec.report.html.bokeh_embedding import bokeh_script, embedded_figures
from polygraphy_layerprec.report.html.layer_table import layer_data, layer_rows
from polygraphy_layerprec.report.html.page import render_page
from polygraphy_layerprec.report.html.ranking_charts import DEPTH_AXES, draw_ranking
from polygraphy_layerprec.report.kind_styles import KIND_STYLES, drawn_kind
from polygraphy_layerprec.report.roll_up import roll_up_by_block, roll_up_by_op
from polygraphy_layerprec.report.series import largest_magnitude, magnitude_axis
from polygraphy_layerprec.report.verification import rows_of_criteria

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import ModelIdentity, RankingAgreement, Verification
    from polygraphy_layerprec.report.before_after import FileComparison
    from polygraphy_layerprec.report.ranking_report import RankingReport
    from polygraphy_layerprec.report.roll_up import LayerGroup

__all__ = [
    "render_agreement_report",
    "render_comparison_report",
    "render_ranking_report",
    "render_verification_report",
]

_GROUPS_SHOWN: Final = 12


def render_ranking_report(report: RankingReport) -> str:
    """Returns a page about a ranking, which needs no other file; same report, same text."""
    ranking = report.ranking
    precision = precision_named(ranking.precision)
    kinds = {drawn_kind(layer.kind, layer.lost) for layer in ranking.layers}
    magnitudes = [largest_magnitude(layer) for layer in ranking.layers]
    (_, magnitude_end), shows_limit = magnitude_axis(magnitudes, precision)
    low = precision.name.upper()
    content = {
        **_head(f"{low} ranking", ranking.model, judge_ranking(report), ranking.warnings),
        "low": low,
        "lowered": lowered_to(low),
        "of_pairs": precision == QDQ,
        "report": report,
        "ranking": ranking,
        "precision": precision,
        "shows_limit": shows_limit,
        "largest": max(magnitudes, default=0.0),
        "magnitude_end": magnitude_end,
        "curve": curve_of_report(report),
        "rows": layer_rows(report),
        "kinds": [kind for kind in KIND_STYLES if kind in kinds],
        "groups": _groups(report),
        "choices": _choices(report),
        "data": layer_data(report),
        "charts": embedded_figures(draw_ranking(report), DEPTH_AXES),
        "bokeh": bokeh_script(),
    }
    return render_page("ranking.html", content)


def render_verification_report(verification: Verification) -> str:
    """Returns a page about a verification, which needs no other file; same record, same text."""
    low = verification.precision.upper()
    verdict = judge_verification(verification)
    content = {
        **_head(f"{low} verification", verification.model, verdict, verification.warnings),
        "low": low,
        "verification": verification,
        "criteria": rows_of_criteria(verification),
    }
    return render_page("verification.html", content)


def render_comparison_report(found: FileComparison, first: str, second: str) -> str:
    """Returns a page about two scripts or two verdicts; same files, same text.

    Args:
        found: What changed.
        first: Path of the first file.
        second: Path of the second file.
    """
    content = {
        "title": f"Comparison of {found.what}",
        "model": {"name": f"{first} and {second}"},
        "verdict": Verdict("neutral", found.sentence, (), ()),
        "scale": [],
        "warnings": found.warnings,
        "found": found,
        "only": (("first", found.lost), ("second", found.gained)),
    }
    return render_page("comparison.html", content)


def render_agreement_report(agreement: RankingAgreement) -> str:
    """Returns a page about two rankings, which needs no other file; same record, same text."""
    verdict = judge_agreement(agreement)
    content = {
        **_head("Comparison of rankings", agreement.first.model, verdict, agreement.warnings),
        "agreement": agreement,
        "data": move_data(agreement),
        "charts": embedded_figures(draw_agreement(agreement), AGREEMENT_AXES),
        "bokeh": bokeh_script(),
    }
    return render_page("agreement.html", content)


def _head(
    title: str, model: ModelIdentity, verdict: Verdict, warnings: Sequence[str]
) -> dict[str, Any]:
    """What stands on top of every page."""
    positions = scale_positions([mark.error for mark in verdict.marks])
    return {
        "title": title,
        "model": model,
        "verdict": verdict,
        "scale": list(zip(verdict.marks, positions, strict=True)),
        "warnings": warnings,
    }


def _choices(report: RankingReport) -> list[tuple[str, ...]]:
    """Titles, and a row for each of the sets to choose from; nothing where there is one alone."""
    decision = report.selection.decision
    return [] if decision is None or len(decision.sets) < 2 else rows_of_choices(decision)


def _groups(report: RankingReport) -> list[tuple[str, str, tuple[LayerGroup, ...], int]]:
    """Title, column, the groups with the largest shares, and how many are left out."""
    layers = report.ranking.layers
    by = (
        ("By operator", "op", roll_up_by_op(layers)),
        ("By block", "block", roll_up_by_block(layers)),
    )
    return [
        (title, column, groups[:_GROUPS_SHOWN], max(len(groups) - _GROUPS_SHOWN, 0))
        for title, column, groups in by
    ]
