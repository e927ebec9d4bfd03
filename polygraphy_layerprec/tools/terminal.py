"""How much room a line of the log has."""

from __future__ import annotations

import shutil
from typing import Final

from polygraphy_layerprec.report.columns import wrap_text

__all__ = ["log_width", "wrapped"]

_LOG_PREFIX_WIDTH: Final = 4  # "[I] "
_PIPE_SIZE: Final = (120, 24)


def log_width() -> int:
    """Returns how many terminal cells a message may take in a line of Polygraphy's log.

    In a pipe, which has no width, the variable `COLUMNS` still counts.
    """
    return shutil.get_terminal_size(_PIPE_SIZE).columns - _LOG_PREFIX_WIDTH


def wrapped(text: str) -> str:
    """Returns prose on lines that fit the log."""
    lines = [part for line in text.splitlines() for part in wrap_text(line, log_width())]
    return "\n".join(lines)
