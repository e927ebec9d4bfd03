"""Results as Markdown, to paste into an issue or a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.precision import lowered_to
from polygraphy_layerprec.ranking.order import forecast_holds
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.agreement_headline import judge_agreement
from polygraphy_layerprec.report.choice import rows_of_choices
from polygraphy_layerprec.report.digits import describe_stability
from polygraphy_layerprec.report.headline import judge_ranking, judge_verification
from polygraphy_layerprec.report.markdown_syntax import (
    code_block,
    code_span,
    escape_markdown,
    markdown_table,
)
from polygraphy_layerprec.report.numbers import (
    format_error,
    format_magnitude,
    format_percent,
)
from polygraphy_layerprec.report.series import largest_magnitude
from polygraphy_layerprec.report.table import sort_layers
from polygraphy_layerprec.report.verification import rows_of_criteria

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from polygraphy_layerprec.records import (
        Constraint,
        Decision,
        NetworkScript,
        OutputDivergence,
        OutputError,
        RankedLayer,
        Ranking,
        RankingAgreement,
        Verification,
    )
    from polygraphy_layerprec.report.headline import Verdict
    from polygraphy_layerprec.report.ranking_report import RankingReport
    from polygraphy_layerprec.report.table import SortKey

__all__ = [
    "format_agreement_markdown",
    "format_ranking_markdown",
    "format_report_markdown",
    "format_script_markdown",
    "format_verification_markdown",
]

_LAYERS_SHOWN: Final = 20


def format_report_markdown(report: RankingReport) -> list[str]:
    """Returns a verdict, the worst layers, and what to run, as lines."""
    kept = {layer.name for layer in report.selection.layers}
    lines = [
        *_verdict(judge_ranking(report)),
        "",
        *_choices(report.selection.decision),
        *_ranking(report.ranking, top=_LAYERS_SHOWN, sort_by="impact", kept=kept),
    ]
    for command in report.commands:
        lines += ["", escape_markdown(command.purpose), "", *code_block(command.line)]
    return lines


def format_ranking_markdown(
    ranking: Ranking,
    *,
    top: int = _LAYERS_SHOWN,
    sort_by: SortKey = "impact",
    kept: Collection[str] = (),
) -> list[str]:
    """Returns a ranking as lines: its verdict, a table of its layers, and how it was measured.

    Args:
        ranking: What was measured.
        top: How many layers to list.
        sort_by: The order of the list, as in `format_ranking`.
        kept: Unique names of the layers that stay in FP32.
    """
    decision = ranking.decision
    verdict = (
        [] if decision is None else [f"**{escape_markdown(decision.sentence, longest=None)}**", ""]
    )
    layers = _ranking(ranking, top=top, sort_by=sort_by, kept=kept)
    return [*verdict, *_choices(decision), *layers]


def _choices(decision: Decision | None) -> list[str]:
    """The sets to choose from as a table, and a blank line; nothing where there is one alone."""
    if decision is None or len(decision.sets) < 2:
        return []
    titles, *rows = [[*map(escape_markdown, row)] for row in rows_of_choices(decision)]
    criteria = "; ".join(j.criterion.text for j in decision.outcome.judgements)
    told = f"Sets to choose from, the chosen one with a star. Criterion: {criteria}."
    figures = "r" * (len(titles) - 2)
    return [escape_markdown(told), "", *markdown_table(titles, rows, f"l{figures}l"), ""]


def _ranking(ranking: Ranking, *, top: int, sort_by: SortKey, kept: Collection[str]) -> list[str]:
    layers = sort_layers(ranking.layers, sort_by)[:top]
    error = ranking.output_error
    head = (
        f"**{code_span(ranking.model.name or 'model')}**: {len(layers)} of "
        f"{count_of(ranking.layer_count, 'layer')} {lowered_to(ranking.precision)}; "
        f"{_measured(error)}"
    )
    titles = ["#", "Layer", "Op", "Impact", "Share", "Introduced", "Cumulative", "Max |x|", "Why"]
    rows = [_layer_cells(layer, is_kept=layer.name in kept) for layer in layers]
    lines = [
        head,
        "",
        *markdown_table([title.replace("|", "\\|") for title in titles], rows, "rllrrrrrl"),
    ]
    lines += [f"\n> {escape_markdown(warning)}" for warning in ranking.warnings]
    return [*lines, "", f"<sub>{_conditions(ranking)}</sub>"]


def _measured(error: OutputError) -> str:
    """What was measured, with the forecast beside it where that is of the same metric."""
    measured = f"{error.metric} {format_error(error.measured)} measured"
    refuted = "" if forecast_holds(error) else ", refuted"
    if error.is_share or error.forecast_of_loss:
        return measured
    return f"{measured}, {format_error(error.forecast)} forecast{refuted}"


def format_script_markdown(script: NetworkScript) -> list[str]:
    """Returns what a script keeps in FP32, and why, as lines."""
    head = (
        f"**{code_span(script.model_name or 'model')}**: "
        f"{count_of(len(script.constraints), 'layer')} in FP32, all others in "
        f"{script.precision.upper()}"
    )
    return [head, "", *_constraints(script.constraints)]


def _constraints(constraints: Sequence[Constraint]) -> list[str]:
    rows = [
        [
            code_span(constraint.name or next(filter(None, constraint.outputs), "")),
            code_span(constraint.op),
            escape_markdown(constraint.reason),
        ]
        for constraint in constraints
    ]
    return markdown_table(["Layer", "Op", "Why"], rows, "lll")


def format_verification_markdown(verification: Verification) -> list[str]:
    """Returns a verdict, the model, the criteria, the outputs' errors and the layers, as lines."""
    low = verification.precision.upper()
    titles = ["Output", "FP32", f"All {low}", "Constrained", "Recovered"]
    rows = [
        [
            code_span(output.name),
            _divergence(output.fp32),
            _divergence(output.lowered),
            _divergence(output.constrained),
            format_percent(output.recovered),
        ]
        for output in verification.outputs
    ]
    lines = [*_verdict(judge_verification(verification)), "", _verified_model(verification), ""]
    criteria_titles, *criteria = [
        [*map(escape_markdown, row)] for row in rows_of_criteria(verification)
    ]
    if criteria:
        lines += [*markdown_table(criteria_titles, criteria, "lrrl"), ""]
    lines += markdown_table(titles, rows, "lrrrr")
    kept = verification.constraints
    if kept:
        lines += ["", *_constraints(kept[:_LAYERS_SHOWN])]
    if len(kept) > _LAYERS_SHOWN:
        lines += ["", f"and {count_of(len(kept) - _LAYERS_SHOWN, 'layer')} more"]
    return lines + [f"\n> {escape_markdown(warning)}" for warning in verification.warnings]


def _verified_model(verification: Verification) -> str:
    asked = verification.source or "no constraints: every layer is lowered"
    where = "on TensorRT engines" if verification.backend == "tensorrt" else "emulated"
    kept = f"{verification.kept_count} of {count_of(verification.layer_count, 'layer')} in FP32"
    return (
        f"**{code_span(verification.model.name or 'model')}**: {kept}, "
        f"{escape_markdown(asked)}; {verification.precision.upper()} {where}, "
        f"{count_of(verification.sample_count, 'sample')}; "
        f"digest {escape_markdown(verification.model.digest[:16])}"
    )


def format_agreement_markdown(agreement: RankingAgreement, *, top: int = 10) -> list[str]:
    """Returns how two rankings agree, and the layers that moved most, as lines.

    Args:
        agreement: What two rankings have in common.
        top: How many of the layers that moved to list.
    """
    moved = [move for move in agreement.layers if move.shift][:top]
    titles = ["Layer", "Op", "First", "Second", "Impact 1", "Impact 2", "Why"]
    rows = [
        [
            code_span(move.name),
            code_span(move.op),
            str(move.first_rank),
            str(move.second_rank),
            move.first_lost or format_error(move.first_impact),
            move.second_lost or format_error(move.second_impact),
            escape_markdown(move.reason),
        ]
        for move in moved
    ]
    lines = [*_verdict(judge_agreement(agreement)), "", *markdown_table(titles, rows, "llrrrrl")]
    return lines + [f"\n> {escape_markdown(warning)}" for warning in agreement.warnings]


def _verdict(verdict: Verdict) -> list[str]:
    sentences = [f"**{escape_markdown(verdict.headline, longest=None)}**"]
    return sentences + [escape_markdown(text, longest=None) for text in verdict.sentences]


def _layer_cells(layer: RankedLayer, *, is_kept: bool) -> list[str]:
    return [
        str(layer.rank),
        code_span(layer.name) + (" **FP32**" if is_kept else ""),
        code_span(layer.op),
        layer.lost or format_error(layer.impact),
        layer.lost or format_percent(layer.share),
        format_error(layer.introduced_error),
        format_error(layer.cumulative_error),
        format_magnitude(largest_magnitude(layer)),
        escape_markdown(layer.reason),
    ]


def _conditions(ranking: Ranking) -> str:
    conditions = ranking.conditions
    inputs = "made up" if conditions.inputs == "generated" else "of the user"
    versions = ", ".join(f"{name} {version}" for name, version in conditions.versions)
    text = (
        f"{count_of(conditions.sample_count, 'sample')} {inputs}; "
        f"stability of the order {describe_stability(ranking)}; {conditions.backend}, impact by "
        f"{conditions.impact}; digest {ranking.model.digest[:16]}; {versions}"
    )
    return escape_markdown(text, longest=None)


def _divergence(divergence: OutputDivergence | None) -> str:
    return format_error(None if divergence is None else divergence.error)
