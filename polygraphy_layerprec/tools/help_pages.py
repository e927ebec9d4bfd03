"""Help that fits the job: what only engines take stands on a page of its own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ENGINE_HELP_OPTION", "arrange_help"]

ENGINE_HELP_OPTION: Final = "--help-engines"
"""The option that shows how engines are built."""

_LAST: Final = (
    "Saved Outputs",
    "Device",
    "Threads",
    "Workers",
    "Partial Rankings",
    "Engines",
    "Logging",
)


def arrange_help(parser: argparse.ArgumentParser, engine_groups: Sequence[Any] = ()) -> None:
    """Makes the help of a verb short: usage on one line, and what few need at the end.

    Args:
        parser: The parser of the verb, with all its options.
        engine_groups: Groups of options that only building engines takes, for a page of their own.
    """
    names = [
        str(action.metavar or action.dest)
        for action in parser._get_positional_actions()  # noqa: SLF001 - argparse has no other way
    ]
    parser.usage = " ".join(["%(prog)s [options]", *names])
    if engine_groups:
        parser.add_argument(
            ENGINE_HELP_OPTION,
            help="Show the options about how TensorRT builds engines, and exit.",
            action=_EngineHelp,
            nargs=0,
            default=argparse.SUPPRESS,
            groups=engine_groups,
        )
    everything = parser._action_groups  # noqa: SLF001 - as above
    shown = [group for group in everything if group not in engine_groups]
    ordered = sorted(
        shown, key=lambda group: _LAST.index(group.title) if group.title in _LAST else -1
    )
    parser.format_help = lambda: _format_groups(parser, ordered)  # type: ignore[method-assign]


class _EngineHelp(argparse.Action):
    """An option that shows groups that `-h` leaves out."""

    def __init__(self, *arguments: Any, groups: Sequence[Any], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.groups = groups

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002 - as argparse calls it
        values: Any,  # noqa: ARG002 - as above
        option_string: str | None = None,  # noqa: ARG002 - as above
    ) -> None:
        """Prints them and ends the program."""
        print(_format_groups(parser, self.groups, description=""), end="")  # noqa: T201 - it is what was asked for
        parser.exit()


def _format_groups(
    parser: argparse.ArgumentParser, groups: Sequence[Any], *, description: str | None = None
) -> str:
    """Returns what `format_help` makes of these groups."""
    formatter = parser._get_formatter()  # noqa: SLF001 - as `format_help` does
    formatter.add_usage(parser.usage, [], [])
    formatter.add_text(parser.description if description is None else description)
    for group in groups:
        formatter.start_section(group.title)
        formatter.add_text(group.description)
        formatter.add_arguments(group._group_actions)  # noqa: SLF001 - as above
        formatter.end_section()
    return formatter.format_help()
