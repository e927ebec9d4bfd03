"""What was chosen to stay in FP32, and what else there is to choose, as lines of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.columns import (
    Column,
    align_columns,
    printable,
    shorten,
    wrap_text,
)

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Criterion, Decision, Selection, SelectionCost

__all__ = [
    "describe_casts",
    "describe_choice",
    "describe_cost",
    "format_choices",
    "format_remedies",
    "format_selection",
    "rows_of_choices",
    "shown_criterion",
]

_LAYERS_SHOWN: Final = 10
_CRITERIA_SHOWN: Final = 2
_WORDS: Final = frozenset({"N", "Criterion"})


def format_selection(
    selection: Selection,
    total: int,
    *,
    refuted: bool = False,
    width: int = 80,
    layers_shown: int = _LAYERS_SHOWN,
) -> list[str]:
    """Returns the choice as lines of text without control characters.

    Args:
        selection: What was chosen.
        total: How many layers there were to choose from.
        refuted: Whether the ranking's forecast does not hold, so that none is an answer.
        width: Terminal cells in a line.
        layers_shown: How many layers to list; with 0, the others are not counted either.
    """
    head = f"{describe_choice(selection, total)}; {_error(selection, refuted=refuted)}"
    lines = wrap_text(head, width)
    for layer in selection.layers[:layers_shown]:
        name = shorten(printable(layer.name), 2 * width)
        text = f"{name} ({printable(layer.op)}) | {printable(layer.reason)}"
        lines += wrap_text(text, width, indent="  ")
    if 0 < layers_shown < len(selection.layers):
        lines.append(f"  and {len(selection.layers) - layers_shown} more")
    return lines + _plain_choice(selection, width)


def describe_choice(selection: Selection, total: int) -> str:
    """Returns how many of `total` layers were chosen and what they cost, in words."""
    cost = selection.cost
    stay = "stays" if total == 1 else "stay"
    what = f"{cost.layer_count} of {count_of(total, 'layer')} {stay} in FP32"
    if cost.layer_count == total:
        what = f"an FP32 build, {'the one layer' if total == 1 else f'all {total:,} layers'}"
    return f"Chosen: {what} | {describe_cost(cost)}"


def format_choices(decision: Decision, hint: str, *, width: int = 80) -> list[str]:
    """Returns the sets to choose from as lines of text; none where there is one alone.

    Args:
        decision: What was measured.
        hint: How to take another one; may be empty.
        width: Terminal cells in a line.
    """
    if len(decision.sets) < 2:
        return []
    head = f"Sets that were measured{' | ' if hint else ''}{printable(hint)}"
    titles, *rows = rows_of_choices(decision)
    columns = [
        Column(title, tuple(row[place] for row in rows), "left" if title in _WORDS else "right")
        for place, title in enumerate(titles)
    ]
    table = align_columns(columns, width=width - 2)
    return [*wrap_text(head, width), *(f"  {line}" for line in table)]


def rows_of_choices(decision: Decision) -> list[tuple[str, ...]]:
    """Returns titles, and a row for each of the sets to choose from; a star is at the chosen.

    There is a column for each criterion that is the worst of any set.
    """
    shown = _deciding_criteria(decision)
    metrics = (criterion.metric_of_outputs for criterion in shown)
    titles = (metric[:1].upper() + metric[1:] for metric in metrics)
    of_pairs = decision.sets[0].cost.pair_count is not None if decision.sets else False
    changes = "Pairs removed" if of_pairs else "Casts"
    rows: list[tuple[str, ...]] = [("N", "Layers", "Operations", changes, *titles, "Criterion")]
    for number, found in enumerate(decision.sets, start=1):
        rows.append(
            (
                f"{number}{' *' * (number == decision.chosen)}",
                str(found.cost.layer_count),
                f"{100 * found.cost.flops_fraction:.1f}%",
                str(found.cost.pair_count if of_pairs else found.cost.cast_count),
                *(found.outcome.of(criterion).number for criterion in shown),
                "met" if found.outcome.passed else "not met",
            )
        )
    return rows


def shown_criterion(decision: Decision) -> Criterion:
    """Returns what low precision misses by most, or else what it comes nearest to missing."""
    missed = {j.criterion: j.excess for j in decision.lowered.judgements}
    criteria = [judgement.criterion for judgement in decision.outcome.judgements]
    told = [criterion for criterion in criteria if not criterion.finiteness] or criteria
    finite = {criterion: missed.get(criterion, 0.0) for criterion in told}
    if math.inf in finite.values():  # with NaN, each of them may be infinite
        shown = decision.outcome.headline.criterion
        return told[0] if shown.finiteness else shown
    return max(told, key=lambda criterion: finite[criterion])


def _deciding_criteria(decision: Decision) -> list[Criterion]:
    """The criteria that are the worst of any set: those that the sets differ by."""
    outcomes = (decision.outcome, decision.lowered, *(found.outcome for found in decision.sets))
    worst = (outcome.headline.criterion for outcome in outcomes)
    others = (criterion for criterion in worst if not criterion.finiteness)
    return [*dict.fromkeys([shown_criterion(decision), *others])][:_CRITERIA_SHOWN]


def format_remedies(decision: Decision, *, width: int = 80) -> list[str]:
    """Returns what can be done to the model instead, as lines of text; maybe none.

    Args:
        decision: What was decided.
        width: Terminal cells in a line.
    """
    if not decision.remedies:
        return []
    lines = ["Or change the model:"]
    for remedy in decision.remedies:
        lines += wrap_text(f"- {printable(remedy.text)}", width, indent="  ")
    return lines


def describe_cost(cost: SelectionCost) -> str:
    """Returns what a set costs, in words."""
    parts = [f"{100 * cost.flops_fraction:.1f}% of the operations"]
    nodes = cost.layer_count if cost.node_count is None else cost.node_count
    if cost.pair_count is None and nodes != cost.layer_count:
        parts.append(f"{count_of(nodes, 'node')} with what moves values between them")
    return ", ".join(filter(None, (*parts, describe_casts(cost))))


def describe_casts(cost: SelectionCost) -> str:
    """Returns how many tensors a set casts, in words; about how many where no plan counted them.

    Of a quantised model, how many pairs it removes; nothing where that is not known.
    """
    if cost.pair_count is not None:
        gone = "is" if cost.pair_count == 1 else "are"
        return f"{count_of(cost.pair_count, 'pair')} {gone} removed"
    if cost.node_count is None and not cost.cast_count:
        return ""
    verb = "is" if cost.cast_count == 1 else "are"
    about = "about " if cost.node_count is None else ""
    return f"{about}{count_of(cost.cast_count, 'tensor')} {verb} cast"


def _plain_choice(selection: Selection, width: int) -> list[str]:
    """What taking layers in the ranking's order would cost, where it meets the same criterion."""
    plain = selection.plain_cost
    if plain is None or plain == selection.cost:
        return []
    text = (
        f"The first of the ranking that meet the same: {count_of(plain.layer_count, 'layer')} | "
        f"{describe_cost(plain)}"
    )
    return wrap_text(text, width)


def _error(selection: Selection, *, refuted: bool) -> str:
    if selection.decision is not None:
        return selection.decision.outcome.headline.text
    forecast = f"forecast {selection.forecast_error:.2g}"
    if refuted:
        forecast = f"unknown: the {forecast} is refuted by what was measured"
    return f"RMS relative L2 error: {forecast}"
