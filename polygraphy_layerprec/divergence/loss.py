"""A user's own measure of what matters at the outputs, as seeds for the backward sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.divergence.probes import target_of
from polygraphy_layerprec.precision import is_floating

__all__ = ["Loss", "loss_seeds"]

Outputs = Mapping[str, npt.NDArray[Any]]
Loss = Callable[[Outputs], Any]
"""Takes the outputs by name; returns a number, or a number and its gradients by output name."""

_MOST_DIFFERENCES: Final = 4096
_STEP: Final = 1e-4  # relative; the loss is called with float64, where the best step is near 6e-6
_SMALLEST_STEP: Final = 1e-7  # relative to the largest element, for those that are nearly 0


def loss_seeds(loss: Loss, outputs: Outputs) -> dict[str, npt.NDArray[Any]]:
    """Returns the gradient of the loss at each float output, over the magnitude of the loss.

    Squared impacts that follow from it are mean squares of the relative change of the loss. Where
    the loss gives no gradients they are found by central differences, two calls for each element.

    Args:
        loss: The user's function. It gets copies, float outputs in float64.
        outputs: Reference outputs by name.

    Raises:
        ValueError: If the loss is not a finite number, its gradients do not fit the outputs or are
            not finite, or there are too many output elements for differences.
    """
    floats = {n: y.astype(np.float64) for n, y in outputs.items() if is_floating(y.dtype)}
    returned = _called(loss, {**outputs, **floats})
    value, given = returned if _is_pair(returned) else (returned, None)
    scale = abs(_number(value)) or 1.0
    gradients = _differences(loss, outputs, floats) if given is None else _checked(given, floats)
    return {
        name: np.asarray(gradient / scale, target_of(outputs[name]).dtype)
        for name, gradient in gradients.items()
    }


def _called(loss: Loss, outputs: Outputs) -> Any:
    return loss({name: y.copy() for name, y in outputs.items()})


def _is_pair(returned: Any) -> bool:
    return isinstance(returned, tuple) and len(returned) == 2


def _checked(
    given: Any, floats: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, npt.NDArray[np.float64]]:
    if not isinstance(given, Mapping):
        raise ValueError(  # noqa: TRY004 - one error for all that is wrong with a loss
            f"The loss must return its gradients by the name of the output, got {type(given)!r}."
        )
    for name, gradient in given.items():
        if name not in floats or np.shape(gradient) != floats[name].shape:
            raise ValueError(
                f"The loss gives a gradient of shape {np.shape(gradient)} for {name!r}, but the "
                f"outputs are: { {n: y.shape for n, y in floats.items()} }."
            )
        if not np.isfinite(gradient).all():
            raise ValueError(f"The loss gives a gradient for {name!r} that is not finite.")
    return {name: np.asarray(gradient, np.float64) for name, gradient in given.items()}


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
        smallest = _SMALLEST_STEP * (float(np.abs(y).max(initial=0.0)) or 1.0)
        flat, gradient = moved.reshape(-1), np.empty(y.size)
        for index in range(y.size):
            centre = flat[index]
            step = max(_STEP * abs(centre), smallest)
            ends = []
            for position in (centre + step, centre - step):
                flat[index] = position
                ends.append(_number(_value(_called(loss, {**outputs, **floats, name: moved}))))
            flat[index] = centre
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        gradients[name] = gradient.reshape(y.shape)
    return gradients


def _value(returned: Any) -> Any:
    return returned[0] if _is_pair(returned) else returned


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError(f"The loss must return a finite number, got {value!r}.")
    return number
