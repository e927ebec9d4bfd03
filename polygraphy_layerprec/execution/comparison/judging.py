"""Judges at work on the outputs that count, and what else one candidate does to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
from polygraphy_layerprec.records import Judgement, Outcome

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.precision import Precision

__all__ = ["Findings", "JudgedOutputs"]

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

    def merge(self, other: JudgedOutputs) -> None:
        """Adds later samples that were judged elsewhere, by the same judges."""
        for judging, others in zip(self._judging, other._judging, strict=True):
            judging.merge(others)

    def judgements(self) -> tuple[Judgement, ...]:
        """Returns the judgements by all criteria.

        Raises:
            UserError: If a metric is no number.
        """
        return tuple(found for judging in self._judging for found in judging.judgements())


class Findings:
    """What one candidate does to the outputs in some samples: how far they move, and judgements.

    Findings of a data set are those of its parts, merged in order, to the last bit.
    """

    def __init__(
        self, outputs: Sequence[str], judges: Sequence[Judge], precision: Precision
    ) -> None:
        """Begins with no sample.

        Args:
            outputs: Names of the outputs that count.
            judges: What judges them.
            precision: The low precision.
        """
        self.divergences = OutputDivergences(outputs, precision)
        self.judged = JudgedOutputs(judges, outputs)

    def add(self, reference: Arrays, candidate: Arrays, sample: Arrays) -> None:
        """Adds one sample: the outputs of both, and the inputs.

        Raises:
            UserError: If a criterion does not fit the outputs.
        """
        self.divergences.add(reference, candidate)
        self.judged.add(reference, candidate, sample)

    def merge(self, other: Findings) -> None:
        """Adds what the same judges found in later samples."""
        self.divergences.merge(other.divergences)
        self.judged.merge(other.judged)

    def outcome(self) -> Outcome:
        """Returns what the judges make of all samples.

        Raises:
            UserError: If a metric is no number.
        """
        return Outcome(self.divergences.error, self.judged.judgements())
