"""Judges at work on the outputs that count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.records import Judgement

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.judges import Judge

__all__ = ["JudgedOutputs"]

Arrays = Mapping[str, np.ndarray[Any, Any]]


class JudgedOutputs:
    """Has one candidate judged, a sample at a time."""

    def __init__(self, judges: Sequence[Judge], outputs: Sequence[str]) -> None:
        """Begins.

        Args:
            judges: What judges.
            outputs: Names of the outputs that count.
        """
        self._judging = [judge.start() for judge in judges]
        self._outputs = tuple(outputs)

    def add(self, reference: Arrays, candidate: Arrays, sample: Arrays) -> None:
        """Adds the outputs of one sample, and the sample.

        Raises:
            UserError: If a criterion does not fit them.
        """
        counted = {name: reference[name] for name in self._outputs if name in reference}
        for judging in self._judging:
            judging.add(counted, candidate, sample)

    def judgements(self) -> tuple[Judgement, ...]:
        """Returns the judgements by all criteria.

        Raises:
            UserError: If a metric is no number.
        """
        return tuple(found for judging in self._judging for found in judging.judgements())
