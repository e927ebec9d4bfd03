"""What matters of the outputs: by how much the first class leads over the second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

__all__ = ["margin"]


def margin(outputs: Mapping[str, npt.NDArray[np.float64]]) -> float:
    """Returns the mean lead, over the rows of a batch, of the largest logit."""
    ordered = np.sort(outputs["logits"], axis=-1)
    return float(np.mean(ordered[:, -1] - ordered[:, -2]))
