"""Bounded memory for libraries that allocate whatever a hostile model makes them."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["limited_growth"]

_STATUS = "/proc/self/statm"
_DATA_FIELD = 5


@contextlib.contextmanager
def limited_growth(nbytes: int) -> Iterator[None]:
    """Lets the memory of this process grow by `nbytes` at most meanwhile, where Linux can tell.

    What wants more raises a `MemoryError`, in other threads as well: the limit must leave them
    enough, and hold for a moment only.
    """
    used_bytes = _data_bytes()
    if used_bytes is None:
        yield
        return
    import resource  # noqa: PLC0415 - not on every platform

    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [used_bytes + nbytes, *(b for b in (before, most) if b != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


def _data_bytes() -> int | None:
    """What the limit counts; None where that cannot be told."""
    try:
        with open(_STATUS, encoding="ascii") as file:
            return int(file.read().split()[_DATA_FIELD]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
