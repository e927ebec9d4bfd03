from __future__ import annotations

import io
import time
from contextlib import redirect_stderr, redirect_stdout

import pytest
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.tools.progress import progress_bar


class Terminal(io.StringIO):
    """A text file that says that a person watches."""

    def isatty(self) -> bool:
        return True


def test_a_person_sees_how_far_it_is():
    screen = Terminal()
    with redirect_stdout(Terminal()), redirect_stderr(screen), progress_bar() as progress:
        for done in (1, 50, 100):
            time.sleep(0.11)  # it is drawn ten times a second at most
            progress(done, 100, "sample 1")
        progress(1, 100, "sample 2")
        progress(3, 0, "sets")

    assert "sample 1:  50%" in screen.getvalue()
    assert screen.getvalue().endswith("\r")  # the bar is gone at the end


@pytest.mark.parametrize(
    "severity", [G_LOGGER.VERBOSE, G_LOGGER.START, G_LOGGER.ERROR, G_LOGGER.CRITICAL]
)
def test_a_log_that_is_quieter_or_louder_than_usual_has_no_bar(severity):
    screen = Terminal()
    with (
        redirect_stdout(Terminal()),
        redirect_stderr(screen),
        G_LOGGER.verbosity(severity),
        progress_bar() as progress,
    ):
        assert progress is None

    assert screen.getvalue() == ""


@pytest.mark.parametrize(
    ("out", "error"), [(io.StringIO(), Terminal()), (Terminal(), io.StringIO())]
)
def test_a_pipe_has_no_bar(out, error):
    with redirect_stdout(out), redirect_stderr(error), progress_bar() as progress:
        assert progress is None

    assert error.getvalue() == ""
