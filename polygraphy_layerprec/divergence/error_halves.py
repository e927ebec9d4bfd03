"""Errors in two bytes an element: the upper halves of their FP32 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.arrays import namespace_of

__all__ = ["error_from_halves", "halves_of_error"]


def halves_of_error(errors: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint16]:
    """Returns the upper halves of the FP32 bits of errors, of their shape."""
    bits = namespace_of(errors).ascontiguousarray(errors, np.float32).view(np.uint32)
    halves: npt.NDArray[np.uint16] = (bits >> 16).astype(np.uint16)
    return halves


def error_from_halves(halves: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Returns the errors kept as upper halves of FP32 bits, flat.

    Two bytes an element, and a relative error below 2**-7, towards zero, in numbers that are only
    squared and summed.
    """
    wide = halves.reshape(-1).astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
