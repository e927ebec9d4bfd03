"""Top-1 accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

__all__ = ["metric"]

Arrays = Mapping[str, np.ndarray]


def metric(outputs: Iterator[Arrays], samples: Iterator[Arrays]) -> float:
    """Returns the share of rows whose largest score is at the label."""
    right = total = 0
    for output, sample in zip(outputs, samples, strict=True):
        right += np.count_nonzero(output["y"].argmax(axis=-1) == sample["label"])
        total += sample["label"].size
    return right / total
