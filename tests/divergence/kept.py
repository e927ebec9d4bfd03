"""Errors as a recording keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.divergence.compact_errors import ErrorMemory, write_errors
from polygraphy_layerprec.rounding import chunks_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.divergence.compact_errors import CompactErrors

__all__ = ["kept"]


def kept(errors: npt.ArrayLike, *, most_in_halves: int = 0) -> CompactErrors:
    """Returns errors of any shape, compact: a large tensor in bytes."""
    flat = np.asarray(errors, np.float32).reshape(-1)
    compact = ErrorMemory(most_in_halves).take(flat)
    for place in chunks_of(flat.size):
        write_errors(compact, place, flat[place])
    return compact
