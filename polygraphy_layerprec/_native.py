"""The border to Polygraphy: its names, with the types that it does not declare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

import polygraphy.logger
import polygraphy.mod
import polygraphy.util

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import TypeVar

    _T = TypeVar("_T")

__all__ = ["G_LOGGER", "Logger", "check_called_by", "export", "shows_progress"]


class Logger(Protocol):
    """What is used of Polygraphy's logger. Severities below the chosen one are not shown."""

    def verbose(self, message: str) -> None:
        """Logs a choice that was made."""

    def info(self, message: str) -> None:
        """Logs a step that the user sees."""

    def start(self, message: str) -> None:
        """Logs that a task begins."""

    def finish(self, message: str) -> None:
        """Logs that a task has ended well."""

    def warning(self, message: str) -> None:
        """Logs what the user should know, but need not act on."""

    def error(self, message: str) -> None:
        """Logs what went wrong, and goes on."""

    def critical(self, message: str) -> NoReturn:
        """Logs a mistake of the user, and raises `PolygraphyException`: exit code 1."""

    def indent(self) -> AbstractContextManager[object]:
        """Indents what is logged within the context."""

    @property
    def module_severity(self) -> Any:
        """Polygraphy's severities by path."""


# Casts rather than wrappers: a wrapper's frame would hide the caller from `--log-format line-info`.
G_LOGGER = cast("Logger", polygraphy.logger.G_LOGGER)
export = cast("Callable[[], Callable[[_T], _T]]", polygraphy.mod.export)
check_called_by = cast("Callable[[str], Callable[[_T], _T]]", polygraphy.util.check_called_by)

_INFO_SEVERITY: int = polygraphy.logger.G_LOGGER.INFO


def shows_progress() -> bool:
    """Returns whether the log is at its default severity: then a progress bar disturbs nobody."""
    return bool(G_LOGGER.module_severity.get() == _INFO_SEVERITY)
