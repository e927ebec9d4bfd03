"""Mean average precision of boxes that overlap by one half."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

__all__ = ["average_precision", "metric"]

Arrays = Mapping[str, np.ndarray]
Image = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Detections (rows of x1, y1, x2, y2, score, class), boxes (rows of corners), their classes."""


def metric(outputs: Iterator[Arrays], samples: Iterator[Arrays]) -> float:
    """Returns the mean over classes of the average precision."""
    images = [
        (with_corners_in_order(output["y"]), sample["boxes"], sample["classes"])
        for output, sample in zip(outputs, samples, strict=True)
    ]
    names = np.unique(np.concatenate([classes for _, _, classes in images]))
    return float(np.mean([average_precision(images, name) for name in names]))


def average_precision(images: Sequence[Image], name: float) -> float:
    """Returns the area under the curve of precision over recall, for one class."""
    hits: list[bool] = []
    scores: list[float] = []
    for detections, boxes, classes in images:
        found = detections[detections[:, 5].round() == name]
        found = found[np.argsort(-found[:, 4], kind="stable")]
        hits += matches(found, boxes[classes == name])
        scores += found[:, 4].tolist()
    if not hits:
        return 0.0
    objects = sum(int((classes == name).sum()) for _, _, classes in images)
    right = np.cumsum(np.array(hits, float)[np.argsort(-np.array(scores), kind="stable")])
    precision = right / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.diff(right / objects, prepend=0.0) @ best_from_here)


def matches(found: np.ndarray, boxes: np.ndarray) -> list[bool]:
    """Whether each detection, best first, hits a box that none before it has hit."""
    free, hits = np.ones(len(boxes), bool), []
    for row in found:
        overlaps = np.array([overlap(row[:4], box) for box in boxes]) * free
        hits.append(bool(len(boxes)) and bool(overlaps.max() >= 0.5))
        if hits[-1]:
            free[overlaps.argmax()] = False
    return hits


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the intersection over the union."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.prod(np.clip(high - low, 0.0, None)))
    areas = np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])
    return shared / max(float(areas) - shared, 1e-9)


def with_corners_in_order(detections: np.ndarray) -> np.ndarray:
    """Returns detections whose first corner is the smaller one."""
    corners = np.sort(detections[:, :4].reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    return np.concatenate([corners, detections[:, 4:]], axis=1)
