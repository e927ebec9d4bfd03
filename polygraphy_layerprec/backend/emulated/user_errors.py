"""How what the user can fix reaches the user of Polygraphy's loaders and runners."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.terminal_output import printable_log

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["critical_errors"]


@contextlib.contextmanager
def critical_errors() -> Iterator[None]:
    """Makes errors that the user can fix critical, and so without a traceback.

    Raises:
        PolygraphyException: In place of such an error.
    """
    try:
        yield
    except (UserError, OSError) as error:
        with printable_log():
            G_LOGGER.critical(str(error))
