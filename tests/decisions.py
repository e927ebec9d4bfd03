"""What sets of layers leave, made up, for tests of what is chosen and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.records import (
    Criterion,
    Decision,
    Judgement,
    MeasuredSet,
    Outcome,
    SelectionCost,
    SetCounts,
)

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FINITE", "L2", "FakeMeasure", "make_decision", "make_outcome"]

FINITE = Criterion("no NaN or infinity where FP32 has none", 0.0, finiteness=True)

L2 = Criterion("relative L2 error", 5e-3)


def make_outcome(error: float, *, criterion: Criterion = L2, lost: int = 0) -> Outcome:
    """Returns what has this error by a criterion of errors, and `lost` elements."""
    return Outcome(
        np.inf if lost else error,
        (
            Judgement(FINITE, float(lost), np.inf if lost else 0.0),
            Judgement(criterion, error, error / criterion.threshold, "y"),
        ),
    )


class FakeMeasure:
    """Measures what a function of the mask says, by a tolerance."""

    def __init__(
        self, error_of: Callable[[npt.NDArray[np.bool_]], float], tolerance: float = 5e-3
    ) -> None:
        self.error_of = error_of
        self.criterion = Criterion("relative L2 error", tolerance)
        self.sample_count = 3
        self.asked: list[tuple[int, ...]] = []

    def outcome(self, kept: npt.NDArray[np.bool_]) -> Outcome:
        self.asked.append(tuple(map(int, np.flatnonzero(kept))))
        return make_outcome(float(self.error_of(kept)), criterion=self.criterion)

    def counts(self, kept: npt.NDArray[np.bool_]) -> tuple[int, int]:
        count = int(np.count_nonzero(kept))
        return SetCounts(count + 1, 2 * count, None)


def make_decision(
    error: float = 1e-3, *, lowered: float = 0.1, layers: Sequence[str] = ("a",)
) -> Decision:
    """Returns a decision between nothing and `layers`, which leave `error`."""
    verdict = "fine" if lowered <= L2.threshold else "inaccurate"
    return Decision(
        verdict,
        f"FP16 loses accuracy: {lowered}.",
        3,
        make_outcome(lowered),
        (
            MeasuredSet((), SelectionCost(0, 0.0, 0), make_outcome(lowered)),
            MeasuredSet(tuple(layers), SelectionCost(len(layers), 0.125, 4), make_outcome(error)),
        ),
        2,
    )
