"""Work on a thread of its own, in order, that nobody waits for until the end.

Numpy and ONNX-Runtime leave the interpreter to others while they compute, so that the sums of one
node are made while the next nodes run.
"""

from __future__ import annotations

import threading
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.execution.kernels.device import current_device
from polygraphy_layerprec.execution.kernels.sessions import session_threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Background", "background_for_host", "works_beside"]

_MOST_THREADS_WITHOUT: Final = 4
_MOST_WAITING: Final = 64
_MOST_BYTES: Final = 4 << 20
"""What is not done yet keeps its arrays alive."""


class Background:
    """Does what is handed over one after the other; leaving the block waits for all of it.

    What was chosen around the block, such as a device, holds for the work as well. After an error
    the rest is not done.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Callable[[], None], int]] = deque()
        self._held_bytes = 0
        self._is_busy = False
        self._is_closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=copy_context().run, args=(self._work,), daemon=True)

    def __enter__(self) -> Background:  # noqa: PYI034 - older Pythons lack Self
        """Starts the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Waits for the work, or after an error for the piece that is being done."""
        with self._changed:
            if kind is not None:
                self._waiting.clear()
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        if kind is None:
            self._raise()

    def put(self, work: Callable[[], None], nbytes: int = 0) -> None:
        """Hands over work; waits while much is not done yet.

        Args:
            work: What is to be done.
            nbytes: Size of the arrays that it keeps alive.

        Raises:
            BaseException: What an earlier piece of work raised.
        """
        with self._changed:
            while (self._waiting or self._is_busy) and (
                len(self._waiting) >= _MOST_WAITING or self._held_bytes + nbytes > _MOST_BYTES
            ):
                self._changed.wait()
            self._raise()
            self._waiting.append((work, nbytes))
            self._held_bytes += nbytes
            self._changed.notify_all()

    def catch_up(self) -> None:
        """Waits until everything that was handed over is done.

        Raises:
            BaseException: What a piece of work raised.
        """
        with self._changed:
            while self._waiting or self._is_busy:
                self._changed.wait()
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_closing:
                        return
                    self._changed.wait()
                work, nbytes = self._waiting.popleft()
                self._is_busy = True
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                self._error = error
            with self._changed:
                del work  # with the arrays that it keeps alive
                self._is_busy = False
                self._held_bytes -= nbytes
                if self._error is not None:
                    self._waiting.clear()
                    self._held_bytes = 0
                self._changed.notify_all()


class _Foreground(Background):
    """Does at once what is handed over."""

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def put(self, work: Callable[[], None], nbytes: int = 0) -> None:  # noqa: ARG002
        work()

    def catch_up(self) -> None:
        pass


def works_beside() -> bool:
    """Whether work in the background has a core to run on, which the kernels do not take.

    On two cores, whole rankings took a fifth longer with it; on sixteen, an eighth less.
    """
    return current_device() is None and session_threads() > _MOST_THREADS_WITHOUT


def background_for_host() -> Background:
    """Returns what works beside the host; on few cores, and where a device works, nothing does."""
    return Background() if works_beside() else _Foreground()
