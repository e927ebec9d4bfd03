"""What can be wrong with a model."""

from __future__ import annotations

__all__ = ["ModelError", "damaged_tensor"]


class ModelError(ValueError):
    """A model that cannot be read; the text says what is wrong, where, and what to do."""


def damaged_tensor(name: str, what: str) -> ModelError:
    """Returns the error that a constant tensor is not what it says it is."""
    return ModelError(f"Tensor {name!r} is damaged: {what}.\nCopy or export the model again.")
