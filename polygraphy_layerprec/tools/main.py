"""The second door: what `python -m polygraphy_layerprec` runs."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from polygraphy.exception import PolygraphyException

import polygraphy_layerprec
from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.completion import SHELLS, render_completion
from polygraphy_layerprec.tools.layerprec import Layerprec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the tool as `polygraphy layerprec` does, and returns its exit code.

    Not `Tool.main`, which ignores subtools and shows tracebacks for mistakes of the user.

    Args:
        arguments: Those of the command line without the program's name; `sys.argv` by default.
    """
    start_time = time.monotonic()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        args, unknown = _make_parser().parse_known_args(arguments)
    except PolygraphyException:  # logged already
        return 1
    if unknown:
        G_LOGGER.error(f"Unrecognized Options: {unknown}")
        return 1
    command = " ".join([sys.argv[0], *arguments])
    logs_start_and_end = False
    try:
        args.subcommand.parse(args)
        logs_start_and_end = args.subcommand.show_start_end_logging(args)
        if logs_start_and_end:
            G_LOGGER.start(f"RUNNING | Command: {command}")
        status = int(args.subcommand.run(args))
    except PolygraphyException:  # logged already
        status = 1
    if logs_start_and_end:
        verdict, log = ("PASSED", G_LOGGER.finish) if status == 0 else ("FAILED", G_LOGGER.error)
        log(f"{verdict} | Runtime: {time.monotonic() - start_time:.3f}s | Command: {command}")
    return status


def _make_parser() -> argparse.ArgumentParser:
    tool = Layerprec()
    parser = argparse.ArgumentParser(
        prog="python -m polygraphy_layerprec",
        description=textwrap.dedent(tool.__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"polygraphy_layerprec | Version: {polygraphy_layerprec.__version__}"
    parser.add_argument("-v", "--version", action="version", version=version)
    parser.add_argument(
        "--print-completion",
        help="Print a script that completes `polygraphy` and its tools in a shell. "
        'For example: eval "$(python -m polygraphy_layerprec --print-completion bash)".',
        choices=SHELLS,
        action=_PrintCompletion,
    )
    tool.add_parser_args(parser)
    return parser


class _PrintCompletion(argparse.Action):
    """An option that needs no subtool, like `--version`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - as argparse calls it
        values: Any,
        option_string: str | None = None,  # noqa: ARG002 - as above
    ) -> None:
        """Prints the script and ends the program."""
        print(render_completion(values))  # noqa: T201 - it is what was asked for
        parser.exit()
