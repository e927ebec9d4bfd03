"""Pieces of work side by side, each with its share of the threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import cache
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.execution.kernels.device import current_device
from polygraphy_layerprec.execution.kernels.sessions import session_threads, threads_per_session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["run_side_by_side"]

_MOST_THREADS: Final = 16


def run_side_by_side(works: Sequence[Callable[[], None]]) -> None:
    """Does pieces of work of about one size, as many at a time as there are threads.

    What one piece computes depends on how many pieces and threads there are, never on the clock.
    On a device they are done one after the other.

    Raises:
        BaseException: What the first piece that failed raised.
    """
    threads = session_threads()
    count = min(len(works), threads)
    if count < 2 or current_device() is not None:
        for work in works:
            work()
        return
    with threads_per_session(threads // count):
        groups = [works[first::count] for first in range(count)]
        contexts = [copy_context() for _ in groups[1:]]
        pending = [
            _pool().submit(context.run, _do, group)
            for context, group in zip(contexts, groups[1:], strict=True)
        ]
        try:
            _do(groups[0])
        finally:
            wait(pending)
    for future in pending:
        future.result()


def _do(works: Sequence[Callable[[], None]]) -> None:
    for work in works:
        work()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_THREADS)
