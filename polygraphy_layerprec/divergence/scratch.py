"""Memory that each thread uses again: fresh memory is mapped and zeroed page by page."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.arrays import library_of, namespace_of

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["scratch"]

_LARGEST_KEPT_BYTES: Final = 16 << 20
_OWN: Final = threading.local()


def scratch(purpose: str, size: int, like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns a 1-D array that is not initialised, valid until this thread asks for the same.

    Args:
        purpose: What it is for: two purposes never share memory.
        size: Number of its elements.
        like: An array of its type, which lies where it is to lie.
    """
    if library_of(like) is not None or size * like.itemsize > _LARGEST_KEPT_BYTES:
        fresh: npt.NDArray[Any] = namespace_of(like).empty(size, like.dtype)
        return fresh
    kept: dict[tuple[str, np.dtype[Any]], npt.NDArray[Any]] = _OWN.__dict__.setdefault("kept", {})
    memory = kept.get((purpose, like.dtype))
    if memory is None or memory.size < size:
        memory = kept[purpose, like.dtype] = np.empty(size, like.dtype)
    return memory[:size]
