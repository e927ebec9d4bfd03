"""How what the user can mend reaches the user of Polygraphy's loaders and runners."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.model import ModelError
from polygraphy_layerprec.terminal_output import printable_log

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["critical_errors"]


@contextlib.contextmanager
def critical_errors(*others: type[Exception]) -> Iterator[None]:
    """Makes errors of the model, the emulation and its files critical, and so without a traceback.

    Args:
        others: Further types whose text is meant for the user.

    Raises:
        PolygraphyException: In place of such an error.
    """
    mendable: tuple[type[Exception], ...] = (ExecutionError, ModelError, OSError, *others)
    try:
        yield
    except mendable as error:
        with printable_log():
            G_LOGGER.critical(str(error))
