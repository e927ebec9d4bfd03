"""Signals that ask a command to end: it tidies up, as after Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from polygraphy_layerprec.native_work import resume_native_work, stop_native_work

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import FrameType

__all__ = ["Terminated", "tidy_termination"]

_DEFAULT_HANDLERS: Final = {
    getattr(signal, name): handler
    for name, handler in (
        ("SIGTERM", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
        ("SIGINT", signal.default_int_handler),
    )
    if hasattr(signal, name)
}
"""What handles the signals unless somebody else does, by number."""


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

    Without, the process would be gone at once, and leave files that are not complete; and a second
    Ctrl-C would disturb the tidying up after the first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # the others may not
        return
    ours = [n for n, default in _DEFAULT_HANDLERS.items() if signal.getsignal(n) is default]
    for number in ours:
        signal.signal(number, _raise)
    try:
        with _native_work_hears(ours):
            yield
    finally:
        for number in ours:
            signal.signal(number, _DEFAULT_HANDLERS[number])


@contextmanager
def _native_work_hears(numbers: Collection[int]) -> Iterator[None]:
    """Stops native work on these signals, unless somebody listens to signals already.

    Python's own handlers run once native work has returned. The number of a signal reaches the
    wakeup descriptor at once, and another thread reads it there.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # as `set_wakeup_fd` wants it
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
        yield
        return
    listener = threading.Thread(target=_listen, args=(reading, {*numbers}), daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        os.close(writing)  # which ends the listener
        listener.join()
        os.close(reading)
        resume_native_work()


def _listen(descriptor: int, ending: set[int]) -> None:
    while heard := os.read(descriptor, 64):
        if not ending.isdisjoint(heard):
            stop_native_work()


def _raise(number: int, _frame: FrameType | None) -> NoReturn:
    for other in _DEFAULT_HANDLERS:  # the next one must not interrupt the tidying up
        if signal.getsignal(other) is _raise:
            signal.signal(other, signal.SIG_IGN)
    raise Terminated(number)
