"""Paths of files to write, checked before any work begins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.files.atomic_file import check_writable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_output_path"]


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
