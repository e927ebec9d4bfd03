"""Two scripts or two verdicts, before and after a change, side by side."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.files.record_codec import to_json_value
from polygraphy_layerprec.records import Constraint
from polygraphy_layerprec.records.model_identity import are_different
from polygraphy_layerprec.report.columns import (
    Column,
    align_columns,
    display_width,
    printable,
    shorten,
    wrap_text,
)
from polygraphy_layerprec.report.markdown_syntax import code_span, escape_markdown, markdown_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import NetworkScript, Outcome, SavedVerdict

__all__ = [
    "COMPARISON_SCHEMA_VERSION",
    "FileComparison",
    "compare_scripts",
    "compare_verdicts",
    "format_comparison",
    "format_comparison_json",
    "format_comparison_markdown",
]

COMPARISON_SCHEMA_VERSION: Final = 1
"""Version of the JSON layout of `format_comparison_json`."""

_INDENT: Final = "  "
_GAP: Final = 2  # between columns
_LAYERS_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class FileComparison:
    """What changed between two files of one kind."""

    what: str
    """What they are, in the plural: `scripts`."""

    sentence: str
    """What changed, in one sentence."""

    rows: tuple[tuple[str, str, str], ...]
    """What is compared, with what the first and the second say of it."""

    lost: tuple[Constraint, ...] = ()
    """Layers that only the first keeps in FP32."""

    gained: tuple[Constraint, ...] = ()
    """Layers that only the second keeps in FP32."""

    warnings: tuple[str, ...] = ()
    """What makes the comparison doubtful."""


def compare_scripts(first: NetworkScript, second: NetworkScript) -> FileComparison:
    """Returns which layers only one of two scripts keeps in FP32."""
    kept = [{_identity(c): c for c in script.constraints} for script in (first, second)]
    lost = tuple(c for identity, c in kept[0].items() if identity not in kept[1])
    gained = tuple(c for identity, c in kept[1].items() if identity not in kept[0])
    shared = len(kept[0]) - len(lost)
    sentence = (
        f"Both keep {_layers(shared)} in FP32; {len(lost)} only the first, "
        f"{len(gained)} only the second."
    )
    if not lost and not gained:
        sentence = f"Both keep the same {_layers(shared)} in FP32."
    rows = (
        ("Model", first.model_name, second.model_name),
        ("Precision", first.precision.upper(), second.precision.upper()),
        ("Layers in FP32", str(len(first.constraints)), str(len(second.constraints))),
        ("Inputs and outputs", first.io_precision, second.io_precision),
    )
    return FileComparison(
        "scripts", sentence, rows, lost, gained, _doubts(first.model_digest, second.model_digest)
    )


def compare_verdicts(first: SavedVerdict, second: SavedVerdict) -> FileComparison:
    """Returns what changed from one verdict to another, by every criterion of either."""
    ends = {True: "passed", False: "failed"}
    sentence = f"Both {ends[first.passed]}."
    if first.passed != second.passed:
        sentence = f"The first {ends[first.passed]}, the second {ends[second.passed]}."
    rows = [
        ("Result", ends[first.passed], ends[second.passed]),
        ("Verdict", first.sentence, second.sentence),
        ("Model", first.model.name, second.model.name),
        ("Precision", first.precision.upper(), second.precision.upper()),
        ("Samples", str(first.sample_count), str(second.sample_count)),
        ("Layers in FP32", _share_of_layers(first), _share_of_layers(second)),
        ("Casts", _number(first.cast_count), _number(second.cast_count)),
    ]
    for title, outcome in (("all lowered", "lowered"), ("as chosen", "outcome")):
        numbers = [_numbers(getattr(verdict, outcome)) for verdict in (first, second)]
        rows += [
            (f"{text}, {title}", numbers[0].get(text, "-"), numbers[1].get(text, "-"))
            for text in dict.fromkeys([*numbers[0], *numbers[1]])
        ]
    warnings = list(_doubts(first.model.digest, second.model.digest))
    if first.inputs != second.inputs:
        warnings.append("One was measured with made-up inputs, the other with given ones.")
    return FileComparison("verdicts", sentence, tuple(rows), warnings=tuple(warnings))


def format_comparison(
    found: FileComparison, first: str, second: str, *, width: int = 80
) -> list[str]:
    """Returns a comparison as lines of text without control characters.

    Args:
        found: What changed.
        first: Path of the first file.
        second: Path of the second file.
        width: Terminal cells in a line.
    """
    head = f"Comparison of {found.what}: {printable(first)} | {printable(second)}"
    lines = [*wrap_text(head, width), *wrap_text(found.sentence, width)]
    short, long = _fitting_rows(found.rows, width - len(_INDENT))
    columns = [
        Column(title, tuple(row[place] for row in short))
        for place, title in enumerate(("", "First", "Second"))
    ]
    lines += [_INDENT + line for line in align_columns(columns, width=width - len(_INDENT))]
    for title, *texts in long:
        for which, text in zip(("first", "second"), texts, strict=True):
            lines += wrap_text(f"{title}, {which}: {printable(text)}", width, indent=_INDENT)
    for which, layers in (("first", found.lost), ("second", found.gained)):
        lines += _format_layers(which, layers, width)
    return lines


def format_comparison_json(found: FileComparison, first: str, second: str) -> str:
    """Returns a comparison as JSON; arguments as in `format_comparison`."""
    content = {
        "schema_version": COMPARISON_SCHEMA_VERSION,
        "first": first,
        "second": second,
        **to_json_value(found),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def format_comparison_markdown(found: FileComparison, first: str, second: str) -> list[str]:
    """Returns a comparison in Markdown, as lines; arguments as in `format_comparison`."""
    rows = [[escape_markdown(cell, longest=None) for cell in row] for row in found.rows]
    lines = [
        f"**{escape_markdown(found.sentence, longest=None)}**",
        "",
        *markdown_table(["", code_span(first), code_span(second)], rows, "lll"),
    ]
    for which, layers in (("first", found.lost), ("second", found.gained)):
        if layers:
            cells = [
                [code_span(_name(c)), code_span(c.op), escape_markdown(c.reason)] for c in layers
            ]
            lines += ["", f"Only in the {which}:", ""]
            lines += markdown_table(["Layer", "Op", "Why"], cells, "lll")
    return lines


def _fitting_rows(
    rows: Sequence[tuple[str, str, str]], width: int
) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """The rows that fit beside each other, and those that are too long, which are not cut."""
    fitting, long = [*rows], []
    while fitting and _widths(fitting) > width:
        longest = max(fitting, key=lambda row: sum(map(display_width, row)))
        fitting.remove(longest)
        long.append(longest)
    return fitting, [row for row in rows if row in long]


def _widths(rows: Sequence[tuple[str, str, str]]) -> int:
    """How wide three columns of these are."""
    return 2 * _GAP + sum(max(display_width(printable(row[i])) for row in rows) for i in range(3))


def _format_layers(which: str, layers: Sequence[Constraint], width: int) -> list[str]:
    if not layers:
        return []
    lines = [f"Only in the {which}:"]
    for layer in layers[:_LAYERS_SHOWN]:
        name = shorten(printable(_name(layer)), 2 * width)
        text = f"{name} ({printable(layer.op)}) | {printable(layer.reason)}"
        lines += wrap_text(text, width, indent=_INDENT)
    if len(layers) > _LAYERS_SHOWN:
        lines.append(f"{_INDENT}and {len(layers) - _LAYERS_SHOWN} more")
    return lines


def _identity(constraint: Constraint) -> tuple[str, ...]:
    """What a layer is known by; names may be missing, and outputs are unique."""
    return tuple(constraint.outputs) or (constraint.name,)


def _name(constraint: Constraint) -> str:
    return constraint.name or next(filter(None, constraint.outputs), "")


def _doubts(first: str, second: str) -> tuple[str, ...]:
    if not (first and second) or first == second:
        return ()
    if not are_different(first, second):
        doubt = (
            "Their versions have digests of different kinds: nothing says that the model is one."
        )
        return (doubt,)
    return ("They are about different models: structure or weights are not the same.",)


def _share_of_layers(verdict: SavedVerdict) -> str:
    return f"{verdict.chosen_count} of {verdict.layer_count}"


def _numbers(outcome: Outcome) -> dict[str, str]:
    """What was measured by each criterion, with the worst value that passes."""
    numbers = {}
    for judgement in outcome.judgements:
        criterion = judgement.criterion
        if criterion.finiteness:
            numbers["NaN or infinite"] = judgement.number
        else:
            words = judgement.text.removeprefix(criterion.metric).strip()
            numbers[criterion.metric_of_outputs] = words
    return numbers


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _layers(count: int) -> str:
    return f"{count} layer" + "s" * (count != 1)
