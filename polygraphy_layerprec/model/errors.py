"""What can be wrong with a model."""

from __future__ import annotations

__all__ = ["ModelError"]


class ModelError(ValueError):
    """A model that cannot be read; the text says what is wrong, where, and what to do."""
