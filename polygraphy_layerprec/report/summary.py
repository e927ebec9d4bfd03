"""What was found and chosen in one look: what a terminal is shown unless it is asked for more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.precision import lowered_to
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.choice import (
    describe_choice,
    format_choices,
    format_selection,
)
from polygraphy_layerprec.report.columns import printable, shorten, wrap_text
from polygraphy_layerprec.report.culprits import CulpritGroup, find_culprits, scope_of
from polygraphy_layerprec.report.sections import Section, fit_sections
from polygraphy_layerprec.report.styled_lines import StyledLines
from polygraphy_layerprec.report.table import format_unmeasured

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from polygraphy_layerprec.records import (
        Decision,
        RankedLayer,
        Ranking,
        Selection,
        VerdictKind,
    )
    from polygraphy_layerprec.report.styled_lines import Style

__all__ = ["LINES_SHOWN", "format_sentence", "format_summary", "format_verdict_line"]

LINES_SHOWN: Final = 25
"""Lines of a terminal that a command takes, whatever the model."""

_INDENT: Final = "  "
_NAMES_SHOWN: Final = 6
_LONGEST: Final = 240  # characters of one place, however narrow the terminal
_MUCH_WORSE: Final = 3.0
_BAD: Final = frozenset({"broken", "unreachable"})


def format_verdict_line(decision: Decision, *, width: int = 80) -> StyledLines:
    """Returns the verdict on lines that fit, in the colour of how it ends."""
    passed = decision.outcome.passed
    return format_sentence(decision.sentence, decision.verdict, passed=passed, width=width)


def format_sentence(
    sentence: str, verdict: VerdictKind, *, passed: bool, width: int = 80
) -> StyledLines:
    """Returns a verdict on lines that fit, in the colour of how it ends.

    Args:
        sentence: The verdict in words.
        verdict: How it ends.
        passed: Whether all criteria are met.
        width: Terminal cells in a line.
    """
    lines = wrap_text(f"Verdict: {printable(sentence)}", width)
    style: Style = "good" if verdict == "fine" else "doubtful"
    if verdict in _BAD or not passed:
        style = "bad"
    return StyledLines(lines, [style] * len(lines))


def format_summary(
    ranking: Ranking,
    selection: Selection,
    *,
    hint: str = "",
    refuted: bool = False,
    width: int = 80,
    room: int = LINES_SHOWN,
) -> tuple[StyledLines, ...]:
    """Returns two messages without control characters: the culprits, and the choice with the rest.

    What does not fit is counted.

    Args:
        ranking: The ranked layers.
        selection: What was chosen of them.
        hint: How to take another set of the list; may be empty.
        refuted: Whether the ranking's forecast does not hold, so that none is an answer.
        width: Terminal cells in a line.
        room: How many lines there are; the verdict is not among them.
    """
    groups = find_culprits(ranking, {layer.name for layer in selection.layers})
    told = {layer.name for group in groups for layer in group.layers}
    sections = [
        _culprits(ranking, selection, groups, width),
        _unmeasured(ranking, width),
        _chosen(selection, ranking.layer_count, told, width, refuted=refuted),
        _sets(selection.decision, hint, width),
        _remedies(selection.decision, width),
    ]
    culprits, unmeasured, chosen, sets, remedies = fit_sections(sections, room, width=width)
    broken = {line for g in groups if g.is_broken for line in _group_lines(g.text, width)}
    found = [*culprits, *unmeasured]
    choice = [*chosen, *sets, *remedies]
    return (
        StyledLines(found, _styles(found, broken, "bad")),
        StyledLines(choice, _styles(choice, {*chosen}, "chosen")),
    )


def _styles(lines: Sequence[str], marked: Collection[str], style: Style) -> list[Style | None]:
    return [style if line in marked else None for line in lines]


def _culprits(
    ranking: Ranking, selection: Selection, groups: Sequence[CulpritGroup], width: int
) -> Section:
    count = ranking.conditions.sample_count
    is_fine = selection.decision is not None and selection.decision.verdict == "fine"
    name = shorten(printable(ranking.model.name), 40) or "model"
    head = (
        f"{'Largest shares of the error' if is_fine else 'Culprits'}: {name}, "
        f"{count_of(ranking.layer_count, 'layer')} {lowered_to(ranking.precision)}, "
        f"{count_of(count, 'sample')} | `--show N` lists N layers"
    )
    if selection.decision is not None:
        head += _what_decides(ranking, selection.decision)
    items = tuple(tuple(_group_lines(group.text, width)) for group in groups)
    return Section(tuple(wrap_text(head, width)), items, "place", "places", least=2)


def _what_decides(ranking: Ranking, decision: Decision) -> str:
    """Where a part of the outputs fails by far more than all of them: of what the shares are."""
    found, error = decision.lowered.headline, ranking.output_error.measured
    is_alike = found.criterion.metric == "relative L2 error" and not math.isinf(error)
    if found.passed or not is_alike or found.value is None or math.isinf(found.value):
        return ""
    if found.value < _MUCH_WORSE * error:
        return ""
    what = "a group of channels in a sample" if found.channels else "a sample"
    return (
        f" | shares of the RMS error of all outputs, {error:.2g}; {what} of "
        f"{shorten(printable(found.place), 40)} has {found.value:.2g}"
    )


def _unmeasured(ranking: Ranking, width: int) -> Section:
    head, *lines = format_unmeasured(ranking, width) or [""]
    if not head:
        return Section(())
    return Section((head,), tuple((line,) for line in lines), "line", "lines", least=3)


def _group_lines(text: str, width: int) -> list[str]:
    return wrap_text(shorten(text, max(3 * width, _LONGEST)), width, indent=_INDENT)


def _chosen(
    selection: Selection, total: int, culprits: Collection[str], width: int, *, refuted: bool
) -> Section:
    """The choice with a line for each part of the model; of culprits, the reason stands above."""
    bare = format_selection(selection, total, refuted=refuted, width=width, layers_shown=0)
    if selection.decision is not None:  # whose errors the verdict has said
        bare = wrap_text(describe_choice(selection, total), width)
    members: dict[str, list[RankedLayer]] = {}
    for layer in selection.layers:
        members.setdefault(scope_of(layer) or layer.name, []).append(layer)
    items = [
        _chosen_lines(place, layers, width, is_told=layers[0].name in culprits)
        for place, layers in members.items()
    ]
    return Section(tuple(bare), tuple(map(tuple, items)), "place", "places", least=2)


def _chosen_lines(
    place: str, layers: Sequence[RankedLayer], width: int, *, is_told: bool
) -> list[str]:
    names = [printable(layer.name.rpartition("/")[2] or layer.op) for layer in layers]
    more = len(names) - _NAMES_SHOWN
    shown = ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    where = f"{shorten(printable(place), width)}: {shorten(shown, width)}"
    if len(layers) == 1:
        where = f"{shorten(printable(layers[0].name), 2 * width)} ({printable(layers[0].op)})"
    kinds = ", ".join(dict.fromkeys(layer.kind for layer in layers))
    reason = printable(kinds if is_told else layers[0].reason)
    text = f"{where} | {shorten(reason, 2 * width, cut='end')}"
    return wrap_text(shorten(text, max(3 * width, _LONGEST)), width, indent=_INDENT)


def _sets(decision: Decision | None, hint: str, width: int) -> Section:
    lines = [] if decision is None else format_choices(decision, hint, width=width)
    if decision is None or not lines:
        return Section(())
    count = len(decision.sets)
    head, rows = lines[:-count], lines[-count:]
    nearest = sorted(range(count), key=lambda place: abs(place - (decision.chosen - 1)))
    return Section(
        tuple(head),
        tuple((row,) for row in rows),
        "set",
        "sets",
        least=2,
        order=tuple(nearest),
    )


def _remedies(decision: Decision | None, width: int) -> Section:
    if decision is None or not decision.remedies:
        return Section(())
    items = [
        tuple(wrap_text(f"- {printable(remedy.text)}", width, indent=_INDENT))
        for remedy in decision.remedies
    ]
    return Section(("Or change the model:",), tuple(items), "remedy", "remedies", least=1)
