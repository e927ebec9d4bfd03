"""What the subtools share: how mistakes and interrupts reach the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy.tools.base import Tool

from polygraphy_layerprec._native import G_LOGGER

if TYPE_CHECKING:
    import argparse

__all__ = ["INTERRUPTED_STATUS", "LayerprecSubtool"]

INTERRUPTED_STATUS: Final = 130
"""Exit code after Ctrl-C, as shells report it: 128 + SIGINT."""


class LayerprecSubtool(Tool):
    """Base of the subtools: reports what the user can mend in words, without a traceback."""

    def run_job(self, args: argparse.Namespace) -> int:
        """Does the work and returns the exit code; implemented by each subtool."""
        raise NotImplementedError

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

    return (ExecutionError, ModelError, SampleError, OSError)
