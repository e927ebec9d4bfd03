"""What digests of models say when they differ."""

from __future__ import annotations

__all__ = ["are_comparable", "are_different"]


def are_comparable(first: str, second: str) -> bool:
    """Returns whether two digests are of one version, so that other ones mean other models."""
    return first.rpartition(":")[0] == second.rpartition(":")[0]


def are_different(first: str, second: str) -> bool:
    """Returns whether two digests are surely those of different models."""
    return first != second and are_comparable(first, second)
