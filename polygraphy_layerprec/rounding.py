"""Rounding to narrower floating-point formats, chunk by chunk, within the values' own type."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.arrays import largest_of, library_of, namespace_of, smallest_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.arrays import ArrayLibrary
    from polygraphy_layerprec.precision import Precision

__all__ = [
    "CHUNK_ELEMENTS",
    "ChunkRounder",
    "chunks_of",
    "round_flat",
    "round_to_precision",
    "rounder_like",
]

CHUNK_ELEMENTS: Final = 1 << 16
"""Elements worked on at a time: with its scratch memory, a chunk stays in the level-2 cache."""


_OWN: Final = threading.local()
"""A thread's rounders: making one takes as long as rounding a chunk."""


@dataclass(frozen=True, slots=True)
class _Carrier:
    """Bit layout of the type that carries rounded values (IEEE 754-2019, table 3.5)."""

    bits: type[np.unsignedinteger[Any]]
    mantissa_bits: int
    exponent_mask: int
    exponent_bias: int


_CARRIERS = {
    np.dtype(np.float32): _Carrier(np.uint32, 23, 0x7F80_0000, 127),
    np.dtype(np.float64): _Carrier(np.uint64, 52, 0x7FF0_0000_0000_0000, 1023),
}


def round_to_precision(
    values: npt.NDArray[np.floating],
    precision: Precision,
    *,
    out: npt.NDArray[np.floating] | None = None,
    saturate: bool = False,
) -> npt.NDArray[np.floating]:
    """Returns `values` rounded to nearest, ties to even, still carried in their own type.

    Subnormals of `precision` and the sign of zero are kept. NaN stays NaN.

    Args:
        values: Any shape, float32 or float64.
        precision: The format to round to.
        out: Array of the same shape and dtype, C-contiguous, to write to; may be `values` itself.
        saturate: Whether finite values beyond the range become the largest finite number of their
            sign, as when weights are converted, instead of infinity.

    Raises:
        ValueError: If the dtype is neither float32 nor float64.
    """
    xp = namespace_of(values)
    source = xp.ascontiguousarray(values).reshape(-1)
    result = xp.empty(values.shape, values.dtype) if out is None else out
    assert result is not None
    round_flat(source, result.reshape(-1), precision, saturate=saturate)
    return result


def round_flat(
    source: npt.NDArray[np.floating],
    target: npt.NDArray[np.floating],
    precision: Precision,
    *,
    saturate: bool = False,
) -> None:
    """Writes the rounded `source` to `target`, which may be the same; both contiguous and 1-D."""
    rounder = rounder_like(source, precision, saturate=saturate)
    if isinstance(rounder, _DeviceRounder):
        rounder.write(source, target)
        return
    for chunk in chunks_of(source.size, like=source):
        rounder.round(source[chunk], target[chunk])


def rounder_like(
    values: npt.NDArray[np.floating], precision: Precision, *, saturate: bool = False
) -> ChunkRounder | _DeviceRounder:
    """Returns what rounds chunks of `values`.

    Raises:
        ValueError: If their dtype is neither float32 nor float64.
    """
    library = library_of(values)
    if library is None:
        kept: dict[Any, ChunkRounder] = _OWN.__dict__.setdefault("rounders", {})
        key = precision, values.dtype, saturate
        if key not in kept:
            kept[key] = ChunkRounder(precision, values.dtype, saturate=saturate)
        return kept[key]
    return _DeviceRounder(library, precision, values.dtype, saturate=saturate)


class ChunkRounder:
    """Rounds arrays of at most `CHUNK_ELEMENTS` without allocating memory. Not for several threads.

    Raises:
        ValueError: If the dtype is neither float32 nor float64.
    """

    def __init__(
        self, precision: Precision, dtype: np.dtype[Any], *, saturate: bool = False
    ) -> None:
        _check_carrier(dtype)
        self._precision = precision
        self._carrier = _CARRIERS[dtype]
        self._saturate = saturate
        self._magic = np.empty(CHUNK_ELEMENTS, dtype)
        self._rounded = np.empty(CHUNK_ELEMENTS, dtype)
        # An array, since numpy has no fast loop for the maximum with a scalar.
        self._min_normal = np.full(CHUNK_ELEMENTS, precision.min_normal, dtype)
        dropped = self._carrier.mantissa_bits - precision.mantissa_bits
        # Adding the magic number must stay finite in the carrier...
        self._widest = 2.0 ** (self._carrier.exponent_bias - dropped - 1)
        # ...and not reach the overflow threshold, which lies in the format's last binade.
        self._limit = min(2.0**precision.max_exponent, self._widest)

    def round(
        self,
        source: npt.NDArray[np.floating],
        target: npt.NDArray[np.floating],
        *,
        keep_sign_of_zero: bool = True,
    ) -> float:
        """Writes the rounded `source` to `target`, which may be the same; both contiguous, 1-D.

        Without `keep_sign_of_zero`, small negative numbers may become +0, which is faster.

        Returns:
            The power of two at or below the largest magnitude in `source`, 0 if all are below the
            carrier's normal numbers, infinity if one is not finite.
        """
        carrier = self._carrier
        magic = self._magic[: source.size]
        mask = carrier.bits(carrier.exponent_mask)
        np.bitwise_and(source.view(carrier.bits), mask, out=magic.view(carrier.bits))
        binade = float(magic.max()) if source.size else 0.0
        if binade < self._limit:
            self._round_in_range(source, target, keep_sign_of_zero=keep_sign_of_zero)
        elif self._precision.max_finite < self._widest:
            self._round_clipped(source, target)
        else:
            self._round_wide(source, target)
        return binade

    def _round_in_range(
        self,
        source: npt.NDArray[np.floating],
        target: npt.NDArray[np.floating],
        *,
        keep_sign_of_zero: bool,
    ) -> None:
        """Rounds by adding and subtracting 1.5 * 2**(exponent + dropped bits).

        The sum has the ulp of the narrow format at the element's exponent, so the hardware's own
        round-to-nearest-even drops exactly the surplus bits (Muller et al., Handbook of
        Floating-Point Arithmetic, 2nd edition, section 2.2.1). Clamping the exponent from below
        gives gradual underflow. `_magic` holds the power of two at or below each magnitude.
        """
        carrier, size = self._carrier, source.size
        magic, rounded = self._magic[:size], self._rounded[:size]
        np.maximum(magic, self._min_normal[:size], out=magic)
        dropped = carrier.mantissa_bits - self._precision.mantissa_bits
        np.multiply(magic, source.dtype.type(1.5 * 2.0**dropped), out=magic)
        np.add(source, magic, out=rounded)
        if not keep_sign_of_zero:
            np.subtract(rounded, magic, out=target)
            return
        np.subtract(rounded, magic, out=rounded)
        # The difference of equals is +0 whatever the sign was; `copysign` would take as long as
        # all the rest.
        sign = magic.view(carrier.bits)
        sign_bit = carrier.bits(1 << (carrier.bits(0).nbytes * 8 - 1))
        np.bitwise_and(source.view(carrier.bits), sign_bit, out=sign)
        np.bitwise_or(rounded.view(carrier.bits), sign, out=target.view(carrier.bits))

    def _round_clipped(
        self, source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]
    ) -> None:
        """Rounds where values leave the range, but the largest finite number has room to spare."""
        limit = source.dtype.type(self._precision.max_finite)
        overflows = np.abs(source) >= source.dtype.type(self._precision.overflow_threshold)
        infinite = np.isinf(source) if self._saturate else overflows
        signs = np.sign(source[infinite])
        tame = np.clip(source, -limit, limit)
        carrier = self._carrier
        mask = carrier.bits(carrier.exponent_mask)
        bits = self._magic[: source.size].view(carrier.bits)
        np.bitwise_and(tame.view(carrier.bits), mask, out=bits)
        with np.errstate(invalid="ignore"):  # NaN has an infinite power of two and stays NaN
            self._round_in_range(tame, target, keep_sign_of_zero=True)
        target[infinite] = signs * np.inf

    def _round_wide(
        self, source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]
    ) -> None:
        """Rounds near the end of the carrier's own range, in FP64."""
        with np.errstate(invalid="ignore"):  # a signalling NaN
            wide = source.astype(np.float64)
        rounder = ChunkRounder(self._precision, wide.dtype, saturate=self._saturate)
        rounder.round(wide, wide)
        target[:] = wide


class _DeviceRounder:
    """Rounds arrays of any size on a device, as `ChunkRounder` does, in one kernel."""

    def __init__(
        self,
        library: ArrayLibrary,
        precision: Precision,
        dtype: np.dtype[Any],
        *,
        saturate: bool,
    ) -> None:
        _check_carrier(dtype)
        self._library = library
        self._precision = precision
        self._saturate = saturate

    def round(
        self,
        source: npt.NDArray[np.floating],
        target: npt.NDArray[np.floating],
        *,
        keep_sign_of_zero: bool = True,
    ) -> float:
        """As `ChunkRounder.round`; returns the largest magnitude itself, or NaN."""
        del keep_sign_of_zero  # which costs nothing here
        # A NaN is in both, and `max` keeps the first.
        largest = max(largest_of(source), -smallest_of(source)) if source.size else 0.0
        self.write(source, target)
        return largest

    def write(self, source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]) -> None:
        """As `round`, without a look at the magnitudes, for which the host would have to wait."""
        self._library.round_flat(source, target, self._precision, self._saturate)


def _check_carrier(dtype: np.dtype[Any]) -> None:
    if dtype not in _CARRIERS:
        raise ValueError(f"values must be float32 or float64, got {dtype}")


def chunks_of(size: int, *, like: object = None) -> Iterator[slice]:
    """Returns the slices of at most `CHUNK_ELEMENTS` that cover `range(size)` in order.

    On a device, which has no use for small ones, that is a single slice.

    Args:
        size: How many elements there are.
        like: An array of theirs, if they may lie on a device.
    """
    step = CHUNK_ELEMENTS if library_of(like) is None else max(size, 1)
    for first in range(0, size, step):
        yield slice(first, min(first + step, size))
