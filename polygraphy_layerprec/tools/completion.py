"""Completion of `polygraphy` commands in a shell, from the parsers themselves."""

from __future__ import annotations

import argparse
from typing import Final

from polygraphy_layerprec._native import G_LOGGER

__all__ = ["SHELLS", "render_completion"]

SHELLS: Final = ("bash", "zsh")
"""Shells that can be told how to complete."""


def render_completion(shell: str) -> str:
    """Returns a script for `shell` that completes `polygraphy`: all of its tools, ours included.

    Where nothing else fits, files are offered.
    """
    try:
        import shtab
    except ImportError:
        G_LOGGER.critical(
            "Completion needs the package shtab.\n"
            "Install it, for example with: pip install 'polygraphy-layerprec[completion]'."
        )
    parser = _polygraphy_parser()
    for action in _all_actions(parser):
        if action.choices is None and action.nargs != 0:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell)
    return script


def _polygraphy_parser() -> argparse.ArgumentParser:
    from polygraphy.tools.registry import TOOL_REGISTRY

    from polygraphy_layerprec.tools.layerprec import Layerprec

    parser = argparse.ArgumentParser("polygraphy")
    subparsers = parser.add_subparsers(dest="tools")
    others = [tool for tool in TOOL_REGISTRY if tool.name != "layerprec"]
    for tool in (*others, Layerprec()):
        tool.setup_parser(subparsers)
    return parser


def _all_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    actions = []
    for action in parser._actions:  # noqa: SLF001 - argparse tells them in no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for nested in dict.fromkeys(action.choices.values()):
                actions += _all_actions(nested)
        else:
            actions.append(action)
    return actions
