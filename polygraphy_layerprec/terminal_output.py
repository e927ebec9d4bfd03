"""What a terminal is shown, whatever files say, and what becomes of a command that cannot show it.

Messages quote models, rankings, scripts and inputs, and these may come from anybody.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.report.columns import printable_lines, wrap_text
from polygraphy_layerprec.report.styled_lines import StyledLines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from polygraphy_layerprec.report.styled_lines import Style

__all__ = [
    "flush_output",
    "lines_logged",
    "log_width",
    "printable_log",
    "results_alone",
    "terminal_text",
    "wrapped",
    "write_output",
]

_COLOURS: Final[dict[Style, int]] = {"good": 92, "doubtful": 93, "bad": 91, "chosen": 96}
"""SGR codes, those that Polygraphy takes for success, warnings, errors and starts."""

_LOG_PREFIX_WIDTH: Final = 4  # "[I] "
_PIPE_SIZE: Final = (120, 24)
_INFO: Final = 20  # what Polygraphy's log and Python's show by default

_logged = {"lines": 0}
_results: list[TextIO] = []
"""Where results go while the log goes elsewhere; the innermost is last."""


def terminal_text(text: str) -> str:
    """Returns lines that a terminal shows as they are, whatever they quote and however it encodes.

    Control characters and those that change the direction of writing are spelt out.
    """
    encoding = sys.stdout.encoding or "utf-8"
    return printable_lines(text).encode(encoding, "backslashreplace").decode(encoding)


def log_width() -> int:
    """Returns how many terminal cells a message may take in a line of Polygraphy's log.

    In a pipe, which has no width, the variable `COLUMNS` still counts.
    """
    return shutil.get_terminal_size(_PIPE_SIZE).columns - _LOG_PREFIX_WIDTH


def wrapped(text: str) -> str:
    """Returns prose on lines that fit the log."""
    lines = [part for line in text.splitlines() for part in wrap_text(line, log_width())]
    return "\n".join(lines)


def lines_logged() -> int:
    """Returns how many lines this command has logged so far, details aside."""
    return _logged["lines"]


@contextlib.contextmanager
def printable_log() -> Iterator[None]:
    """Keeps control characters out of the log meanwhile, whoever writes to it, and counts lines.

    What is logged may raise `OSError`, as in `write_output`.
    """
    logger: Any = G_LOGGER
    log = logger.log
    _logged["lines"] = 0

    def log_printable(
        message: object, severity: int, *arguments: object, stack_depth: int = 2, **options: object
    ) -> None:
        text: object = terminal_text(str(message))
        if severity >= max(_INFO, logger.module_severity.get()):
            _logged["lines"] += 1 + str(text).count("\n")
        if isinstance(message, StyledLines) and _has_colours():
            text = _painted(str(text), message.styles)
        if callable(message):  # of messages that are not shown, Polygraphy never asks the text
            text = lambda: terminal_text(str(message()))  # noqa: E731
        try:
            log(text, severity, *arguments, stack_depth=stack_depth + 1, **options)
        except OSError as error:
            raise _output_error(error) from error

    logger.log = log_printable
    try:
        yield
    finally:
        logger.log = log


@contextlib.contextmanager
def results_alone() -> Iterator[None]:
    """Sends the log to standard error meanwhile, so that what `write_output` writes is alone."""
    _results.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results.pop()


def write_output(text: str) -> None:
    """Writes lines to standard output without a prefix of the log, as `terminal_text` has them.

    Raises:
        BrokenPipeError: If nobody reads them any more.
        OSError: If they cannot be written, for example to a full disk; the file name says where.
    """
    stream = _results[-1] if _results else sys.stdout
    try:
        stream.write(terminal_text(text))
        stream.flush()
    except OSError as error:
        raise _output_error(error, stream) from error


def flush_output() -> None:
    """Writes what was shown so far.

    Raises:
        OSError: As `write_output`.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _output_error(error) from error


def _has_colours() -> bool:
    """Whether Polygraphy's log has colours now."""
    if os.environ.get("NO_COLOR") or not getattr(G_LOGGER, "colors", False):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def _painted(text: str, styles: Sequence[Style | None]) -> str:
    lines = zip(text.split("\n"), styles, strict=True)
    return "\n".join(
        line if style is None else f"\x1b[{_COLOURS[style]}m{line}\x1b[0m" for line, style in lines
    )


def _output_error(error: OSError, stream: TextIO | None = None) -> OSError:
    # What is still to be logged would fail like this again, and so would Python's flush at exit.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, (stream or sys.stdout).fileno())
    os.close(null)
    return OSError(error.errno, error.strerror, "standard output")
