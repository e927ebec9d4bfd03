"""Aligned columns of text that fit a terminal, whatever stands in the names."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Column",
    "align_columns",
    "display_width",
    "narrowest_width",
    "printable",
    "printable_lines",
    "shorten",
    "wrap_text",
]

_ELLIPSIS: Final = "..."
_TAB: Final = 4


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    """Text above it."""

    cells: tuple[str, ...]
    """One text for each row."""

    align: Literal["left", "right"] = "left"
    """Side on which the texts line up."""

    minimum: int | None = None
    """Width down to which it may be shortened, in terminal cells; None if it must not be."""

    cut: Literal["middle", "end"] = "middle"
    """What shortening leaves out."""


def align_columns(columns: Sequence[Column], *, width: int, gap: int = 2) -> list[str]:
    """Returns a line of titles and one for each row, at most `width` terminal cells wide.

    Where the columns cannot shrink enough, lines are wider than `width`.

    Args:
        columns: The table, from left to right.
        width: Terminal cells in a line.
        gap: Blanks between columns.
    """
    texts = [[printable(text) for text in (column.title, *column.cells)] for column in columns]
    natural = [max(map(display_width, column)) for column in texts]
    widths = _fit(natural, columns, width - gap * (len(columns) - 1))
    padded = [
        [_pad(shorten(text, size, cut=column.cut), size, column.align) for text in cells]
        for column, cells, size in zip(columns, texts, widths, strict=True)
    ]
    return [(" " * gap).join(row).rstrip() for row in zip(*padded, strict=True)]


def narrowest_width(columns: Sequence[Column], *, gap: int = 2) -> int:
    """Returns the width below which `align_columns` cannot shrink `columns`."""
    total = gap * (len(columns) - 1)
    for column in columns:
        natural = max(display_width(printable(text)) for text in (column.title, *column.cells))
        total += natural if column.minimum is None else min(natural, column.minimum)
    return total


def printable(text: str) -> str:
    r"""Returns `text` on one line, control and direction-changing characters as `\n`, `\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )


def printable_lines(text: str) -> str:
    """Returns `text` with its line ends and tabs, all else as `printable` has it."""
    return "\n".join(map(printable, text.expandtabs(_TAB).split("\n")))


def display_width(text: str) -> int:
    """Returns how many terminal cells `text` takes: two for wide characters, none for accents."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


@cache
def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 1 + (unicodedata.east_asian_width(character) in "WF")


def shorten(text: str, width: int, *, cut: Literal["middle", "end"] = "middle") -> str:
    """Returns `text` in at most `width` terminal cells, with dots for what was left out.

    Names differ most at their ends, so that is what `middle` keeps.
    """
    if display_width(text) <= width:
        return text
    kept = max(width - len(_ELLIPSIS), 0)
    tail = kept // 2 if cut == "middle" else 0
    end = _prefix(text[::-1], tail)[::-1]
    return (_prefix(text, kept - tail) + _ELLIPSIS + end)[: max(width, 0)]


def wrap_text(text: str, width: int, *, indent: str = "") -> list[str]:
    """Returns `text` on lines of at most `width` terminal cells, broken at blanks if it can be.

    Unlike `textwrap`, it knows that some characters are two cells wide.
    """
    room = width - len(indent)
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and display_width(line) + 1 + display_width(word) <= room:
            line += " " + word
            continue
        lines += [line] if line else []
        while display_width(word) > room:
            start = _prefix(word, room) or word[0]
            lines.append(start)
            word = word[len(start) :]  # noqa: PLW2901 - what is left of it
        line = word
    return [indent + line for line in [*lines, line] if line]


def _prefix(text: str, width: int) -> str:
    if text.isascii():
        return text[: max(width, 0)]
    taken = 0
    for index, character in enumerate(text):
        taken += _character_width(character)
        if taken > width:
            return text[:index]
    return text


def _fit(natural: list[int], columns: Sequence[Column], width: int) -> list[int]:
    widths = list(natural)
    excess = sum(widths) - width
    # What may lose its end gives way first: names are what rows are looked up by.
    for index in sorted(range(len(widths)), key=lambda i: (columns[i].cut != "end", -widths[i])):
        minimum = columns[index].minimum
        if excess <= 0 or minimum is None:
            continue
        cut = max(min(excess, widths[index] - minimum), 0)
        widths[index] -= cut
        excess -= cut
    return widths


def _pad(text: str, width: int, align: Literal["left", "right"]) -> str:
    blanks = " " * (width - display_width(text))
    return blanks + text if align == "right" else text + blanks
