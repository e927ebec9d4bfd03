"""What is recorded for the backward sweeps, and what they read of one entry: fetched once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.arrays import library_of
from polygraphy_layerprec.precision import is_floating

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.divergence.activation_store import ActivationStore
    from polygraphy_layerprec.divergence.compact_errors import CompactErrors

__all__ = ["RecordedValues", "error_key"]

_HALF_BYTES: Final = 2
_FEWEST_COARSE: Final = 1 << 14


class RecordedValues:
    """Values and errors of a recording, and the constants beside them."""

    def __init__(
        self,
        store: ActivationStore,
        read_constants: Callable[[Sequence[str]], Mapping[str, npt.NDArray[Any]]],
    ) -> None:
        """Prepares to read.

        Args:
            store: Values that were recorded, by tensor name, and errors by `error_key`.
            read_constants: Reads constants that are not in the store; what it returned may lie in
                memory that its next call uses again.
        """
        self._store = store
        self._read_constants = read_constants
        self._index: int | None = None
        self._values: dict[str, npt.NDArray[Any]] = {}
        self._coarse: set[str] = set()

    def keep(self, name: str, values: npt.NDArray[Any], *, may_be_coarse: bool) -> bool:
        """Keeps the values of a tensor, which must not change any more.

        Args:
            name: The tensor.
            values: Its values.
            may_be_coarse: Whether `Rule.takes_coarse` holds for what reads them now: then a large
                tensor is kept in two bytes an element, with a relative error of 2**-8.

        Returns:
            Whether they are kept from now on, and were not before.
        """
        is_coarse = may_be_coarse and values.dtype == np.float32 and values.size >= _FEWEST_COARSE
        is_coarse &= library_of(values) is None
        known = name in self._store
        if known and name in self._coarse and not is_coarse:
            self._store.drop(name)
            self._coarse.discard(name)
        elif known:
            return False
        elif is_coarse:
            self._coarse.add(name)
        self._store.put(name, _upper_halves(values) if is_coarse else values)
        return not known

    def keep_error(self, name: str, errors: CompactErrors) -> str:
        """Keeps the introduced error of a tensor; returns the key to forget it by."""
        key = error_key(name)
        self._store.put(key, errors)
        return key

    def values(self, index: int, names: Sequence[str]) -> Mapping[str, npt.NDArray[Any]]:
        """Returns the values that node `index` reads, valid until another node is asked for.

        Args:
            index: The node, which always reads the same.
            names: Tensor names.
        """
        if index != self._index:
            kept = {name: self._store.get(name) for name in names if name in self._store}
            constants = self._read_constants([name for name in names if name not in kept])
            read = {**constants, **kept}
            self._index, self._values = index, {n: self._widened(n, v) for n, v in read.items()}
        return self._values

    def _widened(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """In FP32, if they are FP16 and BF16: rules compute with them. Narrower types count."""
        if name in self._coarse:
            bits = values.astype(np.uint32)
            bits <<= 16
            return bits.view(np.float32)
        half = is_floating(values.dtype) and values.dtype.itemsize == _HALF_BYTES
        return values.astype(np.float32) if half else values

    def errors(self, name: str) -> CompactErrors | None:
        """Returns the introduced error of a tensor as it was recorded, None if it was not."""
        key = error_key(name)
        return self._store.get(key) if key in self._store else None

    def forget(self, keys: Sequence[str]) -> None:
        """Drops values and errors that nothing reads any more."""
        self._index, self._values = None, {}
        for key in keys:
            self._store.drop(key)
            self._coarse.discard(key)

    def close(self) -> None:
        """Forgets everything."""
        self.forget(())
        self._store.close()
        self._coarse.clear()


def _upper_halves(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Those of the bits, rounded."""
    bits = np.ascontiguousarray(values).view(np.uint32) + np.uint32(1 << 15)
    bits >>= 16
    return bits.astype(np.uint16)


def error_key(name: str) -> str:
    """Returns the key in the store of the introduced error of a tensor."""
    return f"error of {name}"
