"""The demo's inputs for `--data-loader-script`: `polygraphy run` reads no `.npz` files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["load_data"]


def load_data() -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yields one sample."""
    with np.load("demo_inputs.npz") as arrays:
        yield dict(arrays)
