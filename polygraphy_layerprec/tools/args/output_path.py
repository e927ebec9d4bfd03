"""Paths of files to write, checked before any work begins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.files.atomic_file import check_writable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

__all__ = ["check_output_path", "check_replaced_files"]

_UPDATED: Final = frozenset(["save_timing_cache"])


def check_output_path(path: str | None, *, option: str, suffixes: Sequence[str] = ()) -> None:
    """Stops with a critical error unless `path` is None, or can be written.

    Args:
        path: Where the file will be.
        option: The option that gave the path, for the message.
        suffixes: Endings that its name may have, in lower case; any if there are none.
    """
    if path is None:
        return
    if suffixes and os.path.splitext(path)[1].lower() not in suffixes:
        G_LOGGER.critical(
            f"Cannot write {path!r}: its name must end in {' or '.join(suffixes)}.\n"
            f"Change the value of `{option}`."
        )
    try:
        check_writable(path)
    except UserError as error:
        G_LOGGER.critical(f"{error}\nNote: The path was given with `{option}`.")


def check_replaced_files(args: argparse.Namespace) -> None:
    """Stops with a critical error where a file that is saved is read, or saved by two options."""
    values = vars(args).items()
    read = {os.path.realpath(p) for n, v in values if not _saves(n) for p in _paths(v)}
    savers: dict[str, str] = {}
    for name, path in values:
        if not _saves(name) or not isinstance(path, str) or name in _UPDATED:
            continue
        option, place = f"`--{name.replace('_', '-')}`", os.path.realpath(path)
        if place in read:
            G_LOGGER.critical(
                f"{option} would replace {path!r}, which is read.\nGive another path."
            )
        if place in savers:
            G_LOGGER.critical(
                f"{savers[place]} and {option} would both save {path!r}.\n"
                f"Give each a path of its own."
            )
        savers[place] = option


def _saves(name: str) -> bool:
    return name.startswith("save_")


def _paths(value: Any) -> Iterator[str]:
    """Yields the files among the words of an option, which may have a function behind them."""
    for word in value if isinstance(value, list) else [value]:
        if isinstance(word, str):
            yield from filter(os.path.isfile, {word, word.rpartition(":")[0]})
