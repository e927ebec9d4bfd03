"""Types of the numbers that records hold."""

from __future__ import annotations

from typing import Annotated

__all__ = ["MaybeInfinite"]

MaybeInfinite = Annotated[float, "or infinite"]
"""An error in [0, inf]; all other numbers of records are finite."""
