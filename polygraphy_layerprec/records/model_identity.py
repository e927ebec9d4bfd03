"""Which model a record is about, and what digests of models say when they differ."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ModelIdentity", "are_comparable", "are_different"]


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model a ranking is about."""

    name: str
    """File name without folders, empty for a model in memory."""

    digest: str
    """SHA-256 of the model's structure, its weights' shapes, first and last values, in hex."""

    node_count: int
    """Nodes of the main graph, after local functions were inlined."""

    opset: int
    """Operator-set version of the default domain."""

    layer_count: int | None = None
    """Layers of the model, measured or not; None in files of earlier versions."""


def are_comparable(first: str, second: str) -> bool:
    """Returns whether two digests are of one version, so that other ones mean other models."""
    return first.rpartition(":")[0] == second.rpartition(":")[0]


def are_different(first: str, second: str) -> bool:
    """Returns whether two digests are surely those of different models."""
    return first != second and are_comparable(first, second)
