"""Random probes at the outputs, from which the backward sweep starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["output_seeds", "probe_count"]

_MOST_PROBES = 4
_ENOUGH_ROWS = 16


def output_seeds(
    outputs: Mapping[str, npt.NDArray[Any]], *, rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Returns a random probe of +-1 for each float output, scaled by the norm of the output.

    The squared impacts that follow from it are mean squares of relative L2 errors over the
    outputs. Outputs without power or with values that are not finite are left out.

    Args:
        outputs: Reference outputs by name.
        rng: Where the signs come from.
    """
    floats = {name: y for name, y in outputs.items() if y.dtype in (np.float32, np.float64)}
    norms = {name: float(np.linalg.norm(y.astype(np.float64))) for name, y in floats.items()}
    usable = [name for name in floats if 0.0 < norms[name] < np.inf]
    return {
        name: (
            rng.choice(np.array([-1, 1], floats[name].dtype), size=floats[name].shape)
            / floats[name].dtype.type(norms[name] * np.sqrt(len(usable)))
        )
        for name in usable
    }


def probe_count(outputs: Mapping[str, npt.NDArray[Any]]) -> int:
    """Returns how many probes tell the impacts apart, from 1 to 4.

    Every row of an output is probed on its own, and their squares average out. An output of a
    single row leaves a single square, which is as uncertain as it is large.
    """
    rows = max((y.size // max(y.shape[-1], 1) for y in outputs.values() if y.ndim), default=1)
    return min(_MOST_PROBES, -(-_ENOUGH_ROWS // max(rows, 1)))
