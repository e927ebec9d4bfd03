"""What workers run in tests: they import it by name."""

from __future__ import annotations

import os
import time

__all__ = ["doubled", "ended_by_two", "failing_at_two", "slowly_doubled"]


def doubled(request, index, sample):
    """Returns what is easily checked."""
    return request, index, 2 * sample


def slowly_doubled(request, index, sample):
    """The same, so that later ones come back earlier."""
    time.sleep(0.02 * (7 - index % 8))
    return doubled(request, index, sample)


def ended_by_two(request, index, sample):
    """Ends its process where the index is 2, as a lack of memory does."""
    if index == 2:
        os._exit(9)
    return doubled(request, index, sample)


def failing_at_two(request, index, sample):
    """Raises where the index is 2."""
    if index == 2:
        raise KeyError("no such thing")
    return doubled(request, index, sample)
