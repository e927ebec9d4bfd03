"""A user's own measure of what matters at the outputs, as seeds for the backward sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Loss", "loss_seeds"]

Outputs = Mapping[str, npt.NDArray[Any]]
Loss = Callable[[Outputs], Any]
"""Takes the outputs by name; returns a number, or a number and its gradients by output name."""

_MOST_DIFFERENCES: Final = 4096
_STEP: Final = 1e-4  # relative; the loss is called with float64, where the best step is near 6e-6


def loss_seeds(loss: Loss, outputs: Outputs) -> dict[str, npt.NDArray[Any]]:
    """Returns the gradient of the loss at each float output, over the magnitude of the loss.

    Squared impacts that follow from it are mean squares of the relative change of the loss. Where
    the loss gives no gradients they are found by central differences, two calls for each element.

    Args:
        loss: The user's function.
        outputs: Reference outputs by name.

    Raises:
        ValueError: If the loss is not a finite number, its gradients do not fit the outputs, or
            there are too many output elements for differences.
    """
    floats = {n: y.astype(np.float64) for n, y in outputs.items() if y.dtype.kind == "f"}
    returned = loss({**outputs, **floats})
    value, gradients = returned if isinstance(returned, tuple) else (returned, None)
    scale = abs(_number(value)) or 1.0
    if gradients is None:
        gradients = _differences(loss, outputs, floats)
    for name, gradient in gradients.items():
        if name not in floats or np.shape(gradient) != floats[name].shape:
            raise ValueError(
                f"The loss gives a gradient of shape {np.shape(gradient)} for {name!r}, but the "
                f"outputs are: { {n: y.shape for n, y in floats.items()} }."
            )
    return {
        name: np.asarray(gradient / scale, outputs[name].dtype)
        for name, gradient in gradients.items()
    }


def _differences(
    loss: Loss, outputs: Outputs, floats: dict[str, npt.NDArray[np.float64]]
) -> dict[str, npt.NDArray[np.float64]]:
    count = sum(y.size for y in floats.values())
    if count > _MOST_DIFFERENCES:
        raise ValueError(
            f"The outputs have {count} elements, too many to find the gradient of the loss by "
            f"differences (at most {_MOST_DIFFERENCES}).\n"
            f"Return the loss with its gradients: `return value, {{'output': gradient}}`."
        )
    gradients = {}
    for name, y in floats.items():
        moved = y.copy()
        flat, gradient = moved.reshape(-1), np.empty(y.size)
        for index in range(y.size):
            centre = flat[index]
            step = _STEP * max(abs(centre), 1e-3)
            ends = []
            for position in (centre + step, centre - step):
                flat[index] = position
                ends.append(_number(_value(loss({**outputs, **floats, name: moved}))))
            flat[index] = centre
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        gradients[name] = gradient.reshape(y.shape)
    return gradients


def _value(returned: Any) -> Any:
    return returned[0] if isinstance(returned, tuple) else returned


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError(f"The loss must return a finite number, got {value!r}.")
    return number
