"""Input samples for the models of `real_models.py`: real where that is easy, else likely.

Pictures are drawn: smooth shades with rectangles and strokes, which have the flat regions and the
edges of photographs and print, as noise has not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["byte_sample", "id_sample", "picture_sample"]

_PADDING = 256  # what magika puts where a file has no byte
_BLOCK = 1024


def picture_sample(
    name: str, shape: tuple[int, ...], *, low: float = 0.0, high: float = 1.0
) -> dict[str, npt.NDArray[Any]]:
    """Returns one picture, `shape` being batch, channels, height and width.

    Args:
        name: The input.
        shape: Its shape.
        low: Value of black.
        high: Value of white.
    """
    rng = np.random.default_rng(0)
    _, channels, height, width = shape
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    picture = np.stack([np.cos(3 * (rows + c) + 2 * columns) / 4 + 0.6 for c in range(channels)])
    for _ in range(24):
        top, left = rng.integers(0, height), rng.integers(0, width)
        tall, wide = rng.integers(1, 1 + height // 4), rng.integers(1, 1 + width // 6)
        picture[:, top : top + tall, left : left + wide] = rng.random((channels, 1, 1))
    return {name: (low + (high - low) * picture.clip(0, 1)).astype(np.float32)[None]}


def byte_sample(name: str) -> dict[str, npt.NDArray[Any]]:
    """Returns the first and the last 1,024 bytes of the licence, as magika takes a file."""
    text = Path(__file__).resolve().parents[1].joinpath("LICENSE").read_bytes().strip()
    content = np.frombuffer(text, np.uint8).astype(np.int32)
    blocks = np.full((2, _BLOCK), _PADDING, np.int32)
    blocks[0, : min(len(content), _BLOCK)] = content[:_BLOCK]
    blocks[1, -min(len(content), _BLOCK) :] = content[-_BLOCK:]
    return {name: blocks.reshape(1, 2 * _BLOCK)}


def id_sample(name: str, *, length: int, largest: int) -> dict[str, npt.NDArray[Any]]:
    """Returns ids of letters, of which a few are common and most are rare, as in text."""
    rng = np.random.default_rng(0)
    ids = np.minimum(rng.zipf(1.3, (1, length)), largest)
    return {name: ids.astype(np.int64)}
