"""Errors that are only weighed, squared and summed, in one or two bytes an element.

The upper halves of the FP32 bits are kept first: a relative error below 2**-7, towards zero. Once
these take much memory, an element of a large tensor takes a byte: its sign, and in seven bits how
many quarters of an octave it is above 2**-32 of the largest error of its chunk, where zero is. That
leaves a relative error of at most 2**-3, to either side, in sums of thousands of squares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.arrays import library_of, namespace_of
from polygraphy_layerprec.divergence.scratch import scratch
from polygraphy_layerprec.rounding import CHUNK_ELEMENTS, chunks_of

if TYPE_CHECKING:
    from typing import TypeAlias

    CompactErrors: TypeAlias = npt.NDArray[np.uint16] | npt.NDArray[np.uint8]

__all__ = ["ErrorMemory", "errors_of", "size_of", "write_errors"]

_SLAB_ELEMENTS: Final = 1 << 22
_LARGEST_SHARE: Final = 4
_MOST_IN_HALVES: Final = 3 << 24
"""Elements, of a whole sample. Bytes take half of the memory, and three times as long."""

_FEWEST_IN_BYTES: Final = 1 << 14
"""A sum of fewer squares would show how coarse each is."""

_HALVES: Final = np.empty(0, np.uint16)
_BASE_BYTES: Final = 2
_MOST_STEPS: Final = 0x7F
_MAGNITUDE: Final = 0x7FFF
_SIGN: Final = 0x80
_STEP_BITS: Final = 5
"""Bits of an upper half below two of its mantissa."""


class ErrorMemory:
    """Where the errors of one sample are kept: few large pieces, which are quick to get."""

    def __init__(self, most_in_halves: int = _MOST_IN_HALVES) -> None:
        """Prepares to keep.

        Args:
            most_in_halves: Elements that two bytes are spent on, before large tensors get one. On a
                device all do.
        """
        self._slab = _HALVES
        self._left_in_halves = most_in_halves

    def take(self, like: npt.NDArray[Any]) -> CompactErrors:
        """Returns memory for the errors of `like`, 1-D, not initialised."""
        if library_of(like) is not None:
            there: npt.NDArray[np.uint16] = namespace_of(like).empty(like.size, np.uint16)
            return there
        if like.size < _FEWEST_IN_BYTES or like.size <= self._left_in_halves:
            self._left_in_halves -= like.size
            return self._take(like.size)
        nbytes = like.size + _BASE_BYTES * -(-like.size // CHUNK_ELEMENTS)
        return self._take(-(-nbytes // 2)).view(np.uint8)[:nbytes]

    def _take(self, size: int) -> npt.NDArray[np.uint16]:
        if size > _SLAB_ELEMENTS // _LARGEST_SHARE:
            return np.empty(size, np.uint16)
        if self._slab.size < size:
            self._slab = np.empty(_SLAB_ELEMENTS, np.uint16)
        taken, self._slab = self._slab[:size], self._slab[size:]
        return taken


def write_errors(
    compact: CompactErrors, place: slice, errors: npt.NDArray[np.floating[Any]]
) -> None:
    """Keeps the errors of one chunk.

    Args:
        compact: Memory for the errors of the whole tensor, as `ErrorMemory.take` returns it.
        place: Which of `chunks_of` it is.
        errors: Its errors, 1-D, float32 or float64, finite.
    """
    bits = namespace_of(errors).ascontiguousarray(errors, np.float32).view(np.uint32)
    if compact.dtype == np.uint16:
        compact[place] = (bits >> 16).astype(np.uint16)
        return
    halves, steps = scratch("halves", bits.size, _HALVES), scratch("steps", bits.size, _HALVES)
    np.right_shift(bits, 16, out=halves, casting="unsafe")
    np.bitwise_and(halves, _MAGNITUDE, out=steps)
    steps += 1 << (_STEP_BITS - 1)  # to the nearest
    steps >>= _STEP_BITS
    base = max(int(steps.max()) - _MOST_STEPS, 0)
    np.clip(steps.view(np.int16), base, base + _MOST_STEPS, out=steps.view(np.int16))
    steps -= base
    halves >>= 8
    halves &= _SIGN
    halves |= steps
    bases, codes = _parts(compact)
    bases[place.start // CHUNK_ELEMENTS] = base
    codes[place] = halves


def errors_of(
    compact: CompactErrors, *, out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """Returns errors that were kept, 1-D.

    Args:
        compact: What `write_errors` left of all chunks of a tensor.
        out: Where to write them, 1-D.
    """
    size = size_of(compact)
    errors = namespace_of(compact).empty(size, np.float32) if out is None else out
    wide = errors.view(np.uint32)
    if compact.dtype == np.uint16:
        wide[:] = compact
        wide <<= 16
        return errors
    bases, codes = _parts(compact)
    for base, place in zip(bases, chunks_of(size), strict=True):
        _widen(codes[place], int(base), wide[place])
    return errors


def size_of(compact: CompactErrors) -> int:
    """Returns how many errors were kept."""
    return compact.size if compact.dtype == np.uint16 else _parts(compact)[1].size


def _widen(codes: npt.NDArray[np.uint8], base: int, bits: npt.NDArray[np.uint32]) -> None:
    halves, signs = scratch("halves", codes.size, _HALVES), scratch("signs", codes.size, _HALVES)
    np.bitwise_and(codes, _MOST_STEPS, out=halves)
    is_error = halves != 0
    halves += base
    halves <<= _STEP_BITS
    halves *= is_error
    np.bitwise_and(codes, _SIGN, out=signs)
    signs <<= 8
    halves |= signs
    bits[:] = halves
    bits <<= 16


def _parts(compact: CompactErrors) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """The first step of each chunk, and the codes of all elements."""
    chunks = -(-compact.size // (CHUNK_ELEMENTS + _BASE_BYTES))
    end = _BASE_BYTES * chunks
    return compact[:end].view(np.uint16), compact[end:].view(np.uint8)
