"""Text of strangers as Markdown: what stands in it calls nobody, links nowhere, and is no HTML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.report.columns import printable, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["code_block", "code_span", "escape_markdown", "markdown_table"]

_NAME_WIDTH: Final = 120
_REASON_WIDTH: Final = 200


def code_span(text: str) -> str:
    """Returns `text` as code within a table: it mentions nobody, links nowhere, and is no HTML.

    Nothing can be escaped within such code but a bar, so the quotes are longer than any in it.
    """
    shown = shorten(printable(text), _NAME_WIDTH).replace("|", "\\|")
    if not shown.strip():
        return ""
    longest = max(map(len, re.findall("`+", shown)), default=0)
    quotes = "`" * (longest + 1)
    padding = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{quotes}{padding}{shown}{padding}{quotes}"


def escape_markdown(text: str, *, longest: int | None = _REASON_WIDTH) -> str:
    """Returns `text` with everything escaped that Markdown or HTML would take for its own.

    Args:
        text: Any text.
        longest: Characters beyond which it is shortened; None for as it is.
    """
    # An @ or # that is followed by a letter or number would call a person or name an issue.
    shown = printable(text) if longest is None else shorten(printable(text), longest)
    escaped = re.sub(r"([\\`*_{}\[\]<>|~$&])", r"\\\1", shown)
    return re.sub(r"([@#])(?=\w)", "\\1\N{ZERO WIDTH NON-JOINER}", escaped)


def markdown_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], alignment: str
) -> list[str]:
    """Returns a table as lines.

    Args:
        titles: What stands above the columns, escaped.
        rows: A cell for each column, escaped.
        alignment: `l` or `r` for each column.
    """
    rules = {"l": ":--", "r": "--:"}
    lines = [titles, [rules[side] for side in alignment], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def code_block(text: str) -> list[str]:
    """Returns a command as a block of code, as lines."""
    shown = printable(text)
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * max(longest + 1, 3)
    return [f"{fence}sh", shown, fence]
