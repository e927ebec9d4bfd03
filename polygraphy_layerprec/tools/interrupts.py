"""Signals that ask a command to end: it tidies up, as after Ctrl-C."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Terminated", "tidy_termination"]

_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Terminated(KeyboardInterrupt):
    """The process is asked to end; whoever tidies up after Ctrl-C does so after this as well."""

    def __init__(self, number: int) -> None:
        """Stores which signal it was."""
        super().__init__(number)
        self.status = 128 + number
        """Exit code, as shells report it."""


@contextmanager
def tidy_termination() -> Iterator[None]:
    """Raises `Terminated` on the first such signal, unless somebody handles it already.

    Without, the process would be gone at once, and leave files that are not complete.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # the others may not
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    for other in _SIGNALS:  # the next one must not interrupt the tidying up
        if signal.getsignal(other) is _raise:
            signal.signal(other, signal.SIG_IGN)
    raise Terminated(number)
