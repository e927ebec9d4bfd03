"""What the subtools share: how mistakes and interrupts reach the user."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
import time
from typing import TYPE_CHECKING, Final

from polygraphy.tools.base import Tool

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.terminal_output import flush_output, printable_log, results_alone
from polygraphy_layerprec.tools.args import SampleArgs
from polygraphy_layerprec.tools.args.output_path import check_replaced_files
from polygraphy_layerprec.tools.args.quantized import QuantizedModelArgs
from polygraphy_layerprec.tools.engine_groups import groups_of_builds
from polygraphy_layerprec.tools.help_pages import arrange_help
from polygraphy_layerprec.tools.interrupts import Terminated, tidy_termination
from polygraphy_layerprec.tools.mistyped_options import propose_options
from polygraphy_layerprec.tools.user_script import UserScriptError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["BROKEN_PIPE_STATUS", "INTERRUPTED_STATUS", "LayerprecSubtool", "own_arguments"]

INTERRUPTED_STATUS: Final = 130
"""Exit code after Ctrl-C, as shells report it: 128 + SIGINT."""

BROKEN_PIPE_STATUS: Final = 141
"""Exit code when nobody reads on, as after `| head`: 128 + SIGPIPE."""

_NO_ROOM: Final = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG])


class LayerprecSubtool(Tool):
    """Base of the subtools: reports what the user can fix in words, without a traceback."""

    def run_job(self, args: argparse.Namespace) -> int:
        """Does the work and returns the exit code; implemented by each subtool."""
        raise NotImplementedError

    def add_parser_args(self, parser: argparse.ArgumentParser) -> None:
        """Adds what belongs to no group, a short help, and proposals for mistyped options."""
        super().add_parser_args(parser)
        arrange_help(parser, groups_of_builds(self.arg_groups))
        propose_options(parser)

    def parse(self, args: argparse.Namespace) -> None:
        """Reads the options; comes before anything is logged."""
        _escape_what_stdout_lacks()
        try:
            super().parse(args)
            check_replaced_files(args)
        except UserError as error:
            G_LOGGER.critical(str(error))

    def show_start_end_logging_impl(self, args: argparse.Namespace) -> bool:  # noqa: ARG002
        """Returns that Polygraphy does not log when the tool starts and ends: `run_impl` does.

        Around it, nobody would notice that the output cannot be written.
        """
        return False

    def run(self, args: argparse.Namespace) -> int:
        """Runs the job; what the user can fix becomes a critical error, exit code 1.

        Not `run_impl`: Polygraphy logs before that, and there may be no reader by then.
        """
        run = super().run
        is_piped = getattr(args, "format", None) in {"markdown", "json"}
        log = results_alone() if is_piped else contextlib.nullcontext()
        with log, printable_log(), tidy_termination():
            try:
                return _told(lambda: int(run(args)))
            except BrokenPipeError:
                return BROKEN_PIPE_STATUS

    def run_impl(self, args: argparse.Namespace) -> int:
        """Runs the job, and says when it begins and ends."""
        return self._run_announced(args)

    def _run_announced(self, args: argparse.Namespace) -> int:
        """Runs the job between a first and a last line like those of Polygraphy's own tools."""
        start_time, status, command = time.monotonic(), 1, " ".join(sys.argv)
        G_LOGGER.start(f"RUNNING | Command: {command}")
        try:
            status = _told(lambda: self.run_job(args))
            return status
        finally:
            self.tell_what_ran()  # where there is no verdict, or it ended before
            verdict, log = (
                ("PASSED", G_LOGGER.finish) if status == 0 else ("FAILED", G_LOGGER.error)
            )
            seconds = time.monotonic() - start_time
            log(f"{verdict} | Runtime: {seconds:.3f}s | Command: {command}")
            flush_output()

    def tell_what_ran(self) -> None:
        """Logs what was ranked of a model and made up for it, once: behind the verdict."""
        if QuantizedModelArgs in self.arg_groups:
            self.arg_groups[QuantizedModelArgs].tell_pairs()
        if SampleArgs in self.arg_groups:
            self.arg_groups[SampleArgs].tell_made_up()


def _told(work: Callable[[], int]) -> int:
    """Returns the exit code of `work`; whatever ends it is told in words, without a traceback.

    Raises:
        PolygraphyException: If the user can fix it; it was logged.
        BrokenPipeError: If nobody is there to be told.
    """
    try:
        return work()
    except KeyboardInterrupt as interrupt:
        G_LOGGER.error("Interrupted. Files that were not complete were not written.")
        return interrupt.status if isinstance(interrupt, Terminated) else INTERRUPTED_STATUS
    except BrokenPipeError:
        raise
    except OSError as error:
        G_LOGGER.critical(_told_by_file(error))
    except UserScriptError as error:
        if error.traceback_text:
            G_LOGGER.verbose(error.traceback_text)
        G_LOGGER.critical(str(error))
    except UserError as error:
        G_LOGGER.critical(str(error))
    except MemoryError:
        G_LOGGER.critical(
            "Out of memory.\n"
            "Use fewer or smaller samples, `--impact gain`, or a lower `--max-memory`."
        )


def _escape_what_stdout_lacks() -> None:
    # Names are any Unicode, and what was measured must not be lost to one of them. Python treats
    # stderr like this anyway.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _told_by_file(error: OSError) -> str:
    if error.filename is None:
        return str(error)
    if error.errno in _NO_ROOM:
        return (
            f"{error.filename!r} cannot be written: {error.strerror}.\n"
            f"Make room there, or give a path on another disk."
        )
    return f"{error.filename!r} cannot be used: {error.strerror}.\nCheck the path."


def own_arguments(verb: str) -> list[str]:
    """Returns the arguments of this command from its verb on, whichever door it came through."""
    return sys.argv[sys.argv.index(verb) :] if verb in sys.argv else [verb]
