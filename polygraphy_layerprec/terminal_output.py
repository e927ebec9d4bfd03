"""What a terminal is shown, whatever files say, and what becomes of a command that cannot show it.

Messages quote models, rankings, scripts and inputs, and these may come from anybody.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.report.columns import printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["flush_output", "printable_log", "terminal_text", "write_output"]


def terminal_text(text: str) -> str:
    """Returns lines that a terminal shows as they are, whatever they quote and however it encodes.

    Control characters and those that change the direction of writing are spelt out.
    """
    encoding = sys.stdout.encoding or "utf-8"
    return printable_lines(text).encode(encoding, "backslashreplace").decode(encoding)


@contextlib.contextmanager
def printable_log() -> Iterator[None]:
    """Keeps control characters out of the log meanwhile, whoever writes to it.

    What is logged may raise `OSError`, as in `write_output`.
    """
    logger: Any = G_LOGGER
    log = logger.log

    def log_printable(
        message: object, *arguments: object, stack_depth: int = 2, **options: object
    ) -> None:
        text: object = terminal_text(str(message))
        if callable(message):  # of messages that are not shown, Polygraphy never asks the text
            text = lambda: terminal_text(str(message()))  # noqa: E731
        try:
            log(text, *arguments, stack_depth=stack_depth + 1, **options)
        except OSError as error:
            raise _output_error(error) from error

    logger.log = log_printable
    try:
        yield
    finally:
        logger.log = log


def write_output(text: str) -> None:
    """Writes lines to standard output without a prefix of the log, as `terminal_text` has them.

    Raises:
        BrokenPipeError: If nobody reads them any more.
        OSError: If they cannot be written, for example to a full disk; the file name says where.
    """
    try:
        sys.stdout.write(terminal_text(text))
    except OSError as error:
        raise _output_error(error) from error
    flush_output()


def flush_output() -> None:
    """Writes what was shown so far.

    Raises:
        OSError: As `write_output`.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _output_error(error) from error


def _output_error(error: OSError) -> OSError:
    # What is still to be logged would fail like this again, and so would Python's flush at exit.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return OSError(error.errno, error.strerror, "standard output")
