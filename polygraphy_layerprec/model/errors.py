"""What can be wrong with a model."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from onnx.checker import ValidationError

from polygraphy_layerprec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ModelError", "damaged_tensor", "told_damage"]

# What onnx raises on a model that is not as it should be, in both its languages; and what follows
# names and operands that are not there.
_DAMAGE: Final[tuple[type[Exception], ...]] = (
    LookupError,
    RuntimeError,
    TypeError,
    ValidationError,
)


class ModelError(UserError):
    """A model that cannot be read; the text says what is wrong, where, and what to do."""


def damaged_tensor(name: str, what: str) -> ModelError:
    """Returns the error that a constant tensor is not what it says it is."""
    return ModelError(f"Tensor {name!r} is damaged: {what}.\nCopy or export the model again.")


@contextmanager
def told_damage(name: str, *others: type[Exception]) -> Iterator[None]:
    """Makes a `ModelError` that names the model of what is raised where it is damaged.

    Args:
        name: The model's name.
        others: What means damage besides.
    """
    damage = (*_DAMAGE, *others)
    try:
        yield
    except ModelError:
        raise
    except damage as error:
        raise ModelError(
            f"{name!r} is damaged: {type(error).__name__}: {error}.\n"
            f"Copy or export the model again; `onnx.checker.check_model` may say more."
        ) from error
