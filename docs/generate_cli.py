"""Writes `docs/reference/cli.md` from the parsers of the command line.

Usage: python docs/generate_cli.py
"""  # noqa: INP001

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polygraphy
from polygraphy.tools.run.run import Run

from polygraphy_layerprec.tools.layerprec import Layerprec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["PAGE", "main", "render_page"]

PAGE: Final = Path(__file__).with_name("reference") / "cli.md"

_ONCE: Final = "Logging"
_COMMANDS: Final = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
_MARKUP: Final = re.compile(r"(`[^`]*`)|([\\*_\[\]<>{])")
_INTRODUCTION: Final = """\
# Command line

Every verb with every option, made by `python docs/generate_cli.py` from the parsers that
`polygraphy layerprec VERB -h` shows, and `--help-engines` for what builds engines. Groups that
Polygraphy brings, such as `Data Loader`, stand as in Polygraphy {version}; another version may have
other options there.

`python -m polygraphy_layerprec VERB` is the same tool without the `polygraphy` command.
[Exit codes](exit-codes.md) are the same for all verbs.
"""

_RUN_PREFIX: Final = "--layerprec"
_RUN_INTRODUCTION: Final = """\
## polygraphy run

Options that this package adds to `polygraphy run`.
"""


def main() -> None:
    """Writes the page."""
    PAGE.write_text(render_page(), encoding="utf-8")


def render_page() -> str:
    """Returns the page in Markdown: same options, same text."""
    verbs = _verb_parsers()
    shared = next(iter(verbs.values()))
    parts = [
        _INTRODUCTION.format(version=polygraphy.__version__),
        *(_render_verb(name, parser) for name, parser in verbs.items()),
        "## Options of every verb\n",
        *(_render_group(group) for group in _groups(shared) if group.title == _ONCE),
        _render_run_options(),
    ]
    return "\n".join(parts)


def _verb_parsers() -> dict[str, argparse.ArgumentParser]:
    """Returns the parser of each verb by its name, in the order of `-h`."""
    tool = argparse.ArgumentParser(prog="polygraphy layerprec")
    Layerprec().add_parser_args(tool)
    return next(
        dict(action.choices)
        for action in tool._actions  # noqa: SLF001 - argparse has no other way to its verbs
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
    )


def _render_verb(name: str, parser: argparse.ArgumentParser) -> str:
    positionals = " ".join(
        str(action.metavar or action.dest)
        for group in _groups(parser)
        for action in _shown(group)
        if not action.option_strings
    )
    return "\n".join(
        [
            f"## {name}\n",
            _fenced(f"polygraphy layerprec {name} [options] {positionals}"),
            _describe(parser) + "\n",
            *(_render_group(group) for group in _groups(parser) if group.title != _ONCE),
        ]
    )


def _describe(parser: argparse.ArgumentParser) -> str:
    """Returns the description; its commands, which are indented, as blocks of their own."""
    text = textwrap.dedent(parser.description or "").strip()
    return _COMMANDS.sub(
        lambda found: _fenced(textwrap.dedent(found[0]).rstrip()), text + "\n"
    ).rstrip()


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _render_run_options() -> str:
    tools = argparse.ArgumentParser().add_subparsers()
    Run().setup_parser(tools)
    options = [
        _render_option(action)
        for group in _groups(tools.choices["run"])
        for action in _shown(group)
        if any(name.startswith(_RUN_PREFIX) for name in action.option_strings)
    ]
    return "\n".join([_RUN_INTRODUCTION, *options]) + "\n"


def _groups(parser: argparse.ArgumentParser) -> Iterator[Any]:
    """Yields the groups of options that have any but `-h`."""
    return (group for group in parser._action_groups if _shown(group))  # noqa: SLF001


def _shown(group: Any) -> list[argparse.Action]:
    hidden = argparse._HelpAction  # noqa: SLF001
    actions: Iterable[argparse.Action] = group._group_actions  # noqa: SLF001
    return [a for a in actions if not isinstance(a, hidden) and a.help != argparse.SUPPRESS]


def _render_group(group: Any) -> str:
    lines = [f"### {group.title}\n"]
    if group.description:
        lines.append(_escape(_one_line(group.description)) + "\n")
    return "\n".join([*lines, *map(_render_option, _shown(group))]) + "\n"


def _render_option(action: argparse.Action) -> str:
    return f"- {_invocation(action)}: {_escape(_one_line(_help(action)))}"


def _invocation(action: argparse.Action) -> str:
    """Returns its names with what they take, as code."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    taken = argparse.HelpFormatter("")._format_args(action, action.dest.upper())  # noqa: SLF001
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return f"{names} `{taken}`" if taken else names


def _help(action: argparse.Action) -> str:
    return argparse.HelpFormatter("")._expand_help(action)  # noqa: SLF001


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escape(text: str) -> str:
    """Returns `text` so that Markdown shows it as it is, code in backticks aside."""
    return _MARKUP.sub(lambda found: found[1] or f"\\{found[2]}", text)


if __name__ == "__main__":
    main()
