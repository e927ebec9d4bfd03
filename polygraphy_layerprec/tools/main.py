"""The second door: what `python -m polygraphy_layerprec` runs."""

from __future__ import annotations

import argparse
import textwrap
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
    try:
        args, unknown = _make_parser().parse_known_args(arguments)
        if unknown:
            G_LOGGER.error(f"Unrecognized Options: {unknown}")
            return 1
        args.subcommand.parse(args)
        return int(args.subcommand.run(args))
    except PolygraphyException:  # logged already
        return 1


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
