"""What the subtools share: how mistakes and interrupts reach the user."""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import TYPE_CHECKING, Final

from polygraphy.tools.base import Tool

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.user_script import UserScriptError

if TYPE_CHECKING:
    import argparse

__all__ = ["BROKEN_PIPE_STATUS", "INTERRUPTED_STATUS", "LayerprecSubtool"]

INTERRUPTED_STATUS: Final = 130
"""Exit code after Ctrl-C, as shells report it: 128 + SIGINT."""

BROKEN_PIPE_STATUS: Final = 141
"""Exit code when nobody reads on, as after `| head`: 128 + SIGPIPE."""


class LayerprecSubtool(Tool):
    """Base of the subtools: reports what the user can mend in words, without a traceback."""

    def run_job(self, args: argparse.Namespace) -> int:
        """Does the work and returns the exit code; implemented by each subtool."""
        raise NotImplementedError

    def parse(self, args: argparse.Namespace) -> None:
        """Reads the options; comes before anything is logged."""
        _escape_what_stdout_lacks()
        super().parse(args)

    def show_start_end_logging_impl(self, args: argparse.Namespace) -> bool:  # noqa: ARG002
        """Returns that the log says when the tool starts and ends."""
        return True

    def run_impl(self, args: argparse.Namespace) -> int:
        """Runs the job; what the user can mend becomes a critical error, exit code 1."""
        try:
            return self.run_job(args)
        except KeyboardInterrupt:
            G_LOGGER.error("Interrupted. Files that were not complete were not written.")
            return INTERRUPTED_STATUS
        except BrokenPipeError:
            _leave_stdout()
            return BROKEN_PIPE_STATUS
        except UserScriptError as error:
            if error.__cause__ is not None:
                G_LOGGER.verbose("".join(traceback.format_exception(error.__cause__)))
            G_LOGGER.critical(str(error))
        except OSError as error:
            G_LOGGER.critical(_told_by_file(error))
        except _mendable_errors() as error:
            G_LOGGER.critical(str(error))
        except MemoryError:
            G_LOGGER.critical(
                "Out of memory.\n"
                "Use fewer or smaller samples, `--impact gain`, or a lower `--max-memory`."
            )


def _mendable_errors() -> tuple[type[Exception], ...]:
    # Found out only once something has been raised: `polygraphy -h` must not import onnx.
    from polygraphy_layerprec.execution.errors import ExecutionError
    from polygraphy_layerprec.execution.samples import SampleError
    from polygraphy_layerprec.model import ModelError

    return (ExecutionError, ModelError, SampleError)


def _escape_what_stdout_lacks() -> None:
    # Names are any Unicode, and what was measured must not be lost to one of them. Python treats
    # stderr like this anyway.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _leave_stdout() -> None:
    # What is still to be logged, and Python's own flush at exit, would fail like this again.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _told_by_file(error: OSError) -> str:
    if error.filename is None:
        return str(error)
    return f"{error.filename!r} cannot be used: {error.strerror}.\nCheck the path."
