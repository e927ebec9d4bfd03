"""Errors in two bytes an element: the upper halves of their FP32 bits."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.arrays import library_of, namespace_of

__all__ = ["ErrorMemory", "error_from_halves", "halves_of_error"]

_SLAB_ELEMENTS: Final = 1 << 22
_LARGEST_SHARE: Final = 4


class ErrorMemory:
    """Where the errors of one sample are kept: few large pieces, which are quick to get."""

    def __init__(self) -> None:
        self._slab = np.empty(0, np.uint16)

    def take(self, like: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
        """Returns an array for the errors of `like`, of its shape, not initialised."""
        if library_of(like) is not None or like.size > _SLAB_ELEMENTS // _LARGEST_SHARE:
            alone: npt.NDArray[np.uint16] = namespace_of(like).empty(like.shape, np.uint16)
            return alone
        if self._slab.size < like.size:
            self._slab = np.empty(_SLAB_ELEMENTS, np.uint16)
        taken, self._slab = self._slab[: like.size], self._slab[like.size :]
        return taken.reshape(like.shape)


def halves_of_error(errors: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint16]:
    """Returns the upper halves of the FP32 bits of errors, of their shape."""
    bits = namespace_of(errors).ascontiguousarray(errors, np.float32).view(np.uint32)
    halves: npt.NDArray[np.uint16] = (bits >> 16).astype(np.uint16)
    return halves


def error_from_halves(
    halves: npt.NDArray[np.uint16], *, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """Returns the errors kept as upper halves of FP32 bits, flat.

    Two bytes an element, and a relative error below 2**-7, towards zero, in numbers that are only
    squared and summed.

    Args:
        halves: The upper halves, of any shape.
        out: Where to write them, flat.
    """
    errors = namespace_of(halves).empty(halves.size, np.float32) if out is None else out
    wide = errors.view(np.uint32)
    wide[:] = halves.reshape(-1)
    wide <<= 16
    return errors
