"""Types of the numbers that records hold."""

from __future__ import annotations

from typing import Annotated

__all__ = ["MaybeInfinite", "count_of"]

MaybeInfinite = Annotated[float, "or infinite"]
"""An error in [0, inf]; all other numbers of records are finite."""


def count_of(number: int, noun: str) -> str:
    """Returns `1 layer` or `1,234 layers`.

    >>> count_of(1, "layer"), count_of(0, "layer")
    ('1 layer', '0 layers')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
