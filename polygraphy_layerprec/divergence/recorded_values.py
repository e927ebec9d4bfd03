"""What the backward sweeps read of one entry: fetched once, whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.precision import is_floating

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.divergence.activation_store import ActivationStore

__all__ = ["RecordedValues", "error_key"]

_HALF_BYTES: Final = 2


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
            self._index, self._values = index, {name: _widened(v) for name, v in read.items()}
        return self._values

    def error_halves(self, name: str) -> npt.NDArray[np.uint16] | None:
        """Returns the introduced error of a tensor as it was recorded, None if it was not."""
        key = error_key(name)
        return self._store.get(key) if key in self._store else None

    def forget(self, keys: Sequence[str]) -> None:
        """Drops values and errors that nothing reads any more."""
        self._index, self._values = None, {}
        for key in keys:
            self._store.drop(key)


def _widened(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """FP16 and BF16 in FP32: rules compute with them. Of narrower floats the type counts."""
    half = is_floating(values.dtype) and values.dtype.itemsize == _HALF_BYTES
    return values.astype(np.float32) if half else values


def error_key(name: str) -> str:
    """Returns the key in the store of the introduced error of a tensor."""
    return f"error of {name}"
