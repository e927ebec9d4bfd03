"""Ends what native code is at: Python acts on a signal only once a call has returned.

A model may have a Loop without end, and then it never returns by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["register_switch", "resume_native_work", "stop_native_work"]

_STOPS: list[Callable[[], None]] = []
_RESUMES: list[Callable[[], None]] = []


def register_switch(*, stop: Callable[[], None], resume: Callable[[], None]) -> None:
    """Registers how some native work is stopped, and how it is allowed again.

    Args:
        stop: Called from another thread than the one that works.
        resume: Called from any thread.
    """
    _STOPS.append(stop)
    _RESUMES.append(resume)


def stop_native_work() -> None:
    """Makes calls that are under way return as soon as they can, with an error."""
    for stop in _STOPS:
        stop()


def resume_native_work() -> None:
    """Lets calls do their work again."""
    for resume in _RESUMES:
        resume()
