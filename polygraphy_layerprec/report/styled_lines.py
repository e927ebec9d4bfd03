"""Lines of text, each with what its colour would stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Style", "StyledLines"]

Style = Literal["good", "doubtful", "bad", "chosen"]
"""What a colour stands for."""


class StyledLines(str):
    """Lines for the log, with a style for each; as text, they are without."""

    __slots__ = ("styles",)

    styles: tuple[Style | None, ...]

    def __new__(  # noqa: PYI034 - `Self` is not in Python 3.10
        cls, lines: Sequence[str], styles: Sequence[Style | None]
    ) -> StyledLines:
        """Joins lines that hold no line ends."""
        text = super().__new__(cls, "\n".join(lines))
        text.styles = tuple(styles)
        return text
