"""Precisions on the command line: all that the library knows."""

from __future__ import annotations

from polygraphy_layerprec._native import G_LOGGER

__all__ = ["check_precision_name"]


def check_precision_name(name: str, *, option: str) -> None:
    """Stops unless there is a precision called `name`.

    Not `choices` of the option: these would load numpy for every `polygraphy` command.
    """
    from polygraphy_layerprec.precision import PRECISIONS

    if name not in PRECISIONS:
        G_LOGGER.critical(f"`{option}` must be one of {', '.join(PRECISIONS)}, got: {name!r}.")
