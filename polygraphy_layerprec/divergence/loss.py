"""A user's own measure of what matters at the outputs, as seeds for the backward sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.divergence.probes import target_of
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.precision import is_floating
from polygraphy_layerprec.records import Criterion, Judgement

__all__ = ["NO_GRADIENT", "Loss", "LossJudge", "loss_seeds"]

Outputs = Mapping[str, npt.NDArray[Any]]
Loss = Callable[[Outputs], Any]
"""Takes the outputs by name; returns a number, or a number and its gradients by output name."""

NO_GRADIENT: Final = (
    "The loss does not change with the outputs: its gradient is 0 in every sample, as that of an "
    "accuracy or a best class is.\n"
    "Rank by what it is computed from, for example a margin between scores, and have sets of "
    "layers judged by it with `--metric-script`."
)
"""What to say of a loss whose gradients are all 0."""

_MOST_DIFFERENCES: Final = 4096
_STEP: Final = 1e-4  # relative; the loss is called with float64, where the best step is near 6e-6
_FP32_NOISE: Final = 2.0**-20
"""Relative change of a loss when FP32 adds up in another order: the unit roundoff, with some room
for sums."""
_SMALLEST_STEP: Final = 1e-7  # relative to the largest element, for those that are nearly 0


def loss_seeds(loss: Loss, outputs: Outputs) -> dict[str, npt.NDArray[Any]]:
    """Returns the gradient of the loss at each float output, over the magnitude of the loss.

    Squared impacts that follow from it are mean squares of the relative change of the loss. Where
    the loss gives no gradients they are found by central differences, two calls for each element.

    Args:
        loss: The user's function. It gets copies, float outputs in float64.
        outputs: Reference outputs by name.

    Raises:
        UserError: If the loss is not a finite number, its gradients do not fit the outputs or are
            not finite, there are too many output elements for differences, or the loss is smaller
            than the noise of FP32 moves it.
    """
    floats = {n: y.astype(np.float64) for n, y in outputs.items() if is_floating(y.dtype)}
    returned = _called(loss, {**outputs, **floats})
    value, given = returned if _is_pair(returned) else (returned, None)
    scale = abs(_number(value))
    gradients = _differences(loss, outputs, floats) if given is None else _checked(given, floats)
    _check_scale(scale, gradients, floats)
    return {
        name: np.asarray(gradient / (scale or 1.0), target_of(outputs[name]).dtype)
        for name, gradient in gradients.items()
    }


def _check_scale(
    scale: float,
    gradients: Mapping[str, npt.NDArray[np.float64]],
    floats: Mapping[str, npt.NDArray[np.float64]],
) -> None:
    """Checks that a loss is more than what rounding in FP32 moves it by."""
    moved = [np.sum((gradient * floats[name]) ** 2) for name, gradient in gradients.items()]
    if scale < _FP32_NOISE * float(np.sqrt(np.sum(moved))):
        raise UserError(
            f"The loss is {scale:.3g} at the FP32 outputs, which is noise: rounding in FP32 moves "
            f"it by as much. So it is for a distance from what the model itself gives.\n"
            f"Return the quantity and not its distance from a reference, or leave out "
            f"`--loss-script`: the default is that distance."
        )


def _called(loss: Loss, outputs: Outputs) -> Any:
    return loss({name: y.copy() for name, y in outputs.items()})


def _is_pair(returned: Any) -> bool:
    return isinstance(returned, tuple) and len(returned) == 2


def _checked(
    given: Any, floats: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, npt.NDArray[np.float64]]:
    if not isinstance(given, Mapping):
        raise UserError(
            f"The loss must return its gradients by the name of the output, got {type(given)!r}."
        )
    for name, gradient in given.items():
        if name not in floats or np.shape(gradient) != floats[name].shape:
            raise UserError(
                f"The loss gives a gradient of shape {np.shape(gradient)} for {name!r}, but the "
                f"outputs are: { {n: y.shape for n, y in floats.items()} }."
            )
        if not np.isfinite(gradient).all():
            raise UserError(f"The loss gives a gradient for {name!r} that is not finite.")
    return {name: np.asarray(gradient, np.float64) for name, gradient in given.items()}


@dataclass(frozen=True, slots=True)
class LossJudge:
    """Judges by the relative change of a loss, in the worst sample."""

    loss: Loss
    """The user's function."""

    tolerance: float
    """Largest change that passes, relative to the loss in FP32."""

    calls_user: ClassVar[bool] = True

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What it judges by."""
        return (Criterion("relative change of the loss", self.tolerance),)

    def start(self) -> _LossJudging:
        """Returns what judges one candidate."""
        return _LossJudging(self)


class _LossJudging:
    def __init__(self, judge: LossJudge) -> None:
        self._loss, (self._criterion,) = judge.loss, judge.criteria
        self._worst = 0.0

    def add(self, reference: Outputs, candidate: Outputs, sample: Outputs) -> None:
        del sample
        before = self._value(reference)
        if self._value(reference) != before:
            raise UserError(
                "The loss gives another number for the same outputs each time.\n"
                "Seed what it draws, so that only the outputs decide."
            )
        try:
            change = abs(self._value({n: candidate[n] for n in reference}) - before)
        except (KeyError, ValueError):  # a loss need not know what to make of NaN
            change = np.inf
        if change:
            self._worst = max(self._worst, change / abs(before) if before else np.inf)

    def merge(self, other: _LossJudging) -> None:
        self._worst = max(self._worst, other._worst)

    def judgements(self) -> tuple[Judgement, ...]:
        return (Judgement(self._criterion, self._worst, self._worst / self._criterion.threshold),)

    def _value(self, outputs: Outputs) -> float:
        floats = {n: y.astype(np.float64) for n, y in outputs.items() if is_floating(y.dtype)}
        return _number(_value(_called(self._loss, {**outputs, **floats})))


def _differences(
    loss: Loss, outputs: Outputs, floats: dict[str, npt.NDArray[np.float64]]
) -> dict[str, npt.NDArray[np.float64]]:
    count = sum(y.size for y in floats.values())
    if count > _MOST_DIFFERENCES:
        raise UserError(
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
        raise UserError(f"The loss must return a finite number, got {value!r}.")
    return number
