"""The outputs of a layer: rounded and looked at before the next node runs, summed up later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.divergence.metrics import DivergenceSums, measure_divergence
from polygraphy_layerprec.execution.kernels.node_session import value_of
from polygraphy_layerprec.execution.streams import is_float, look_at, writable_array
from polygraphy_layerprec.plan.widths import Width
from polygraphy_layerprec.rounding import round_flat

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import onnxruntime as ort

    from polygraphy_layerprec.divergence.compact_errors import CompactErrors, ErrorMemory
    from polygraphy_layerprec.execution.kernels.cast_rounding import CastRounder

__all__ = ["LayerOutputs", "OutputFacts"]


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """What the next nodes have to know of the outputs of a layer."""

    max_abs: float
    """Largest finite magnitude in the reference."""

    has_nonfinite: bool
    """Whether a NaN or infinity is in the reference or the candidate."""

    @staticmethod
    def of(sums: DivergenceSums) -> OutputFacts:
        """Returns what the sums say."""
        count = sums.candidate_nonfinite_count + sums.reference_nonfinite_count
        return OutputFacts(sums.max_abs, count > 0)


@dataclass(frozen=True, slots=True)
class _Output:
    """One float output in the worlds that are compared."""

    name: str
    """Its name."""

    reference: npt.NDArray[Any]
    """In FP32."""

    candidate: npt.NDArray[Any]
    """In low precision, rounded."""

    introduced: ort.OrtValue | None
    """From exact inputs and rounded weights, not rounded; None if like the reference."""

    alone: ort.OrtValue
    """What is rounded once more: `introduced`, or else the reference."""

    is_rounded: bool
    """Whether the plan rounds it."""


class LayerOutputs:
    """The float outputs of one run of a layer."""

    def __init__(
        self,
        names: Sequence[str],
        widths: Sequence[Width | None],
        rounder: CastRounder,
        references: Sequence[ort.OrtValue | None],
        introduced: Sequence[ort.OrtValue | None] | None,
        candidates: Sequence[ort.OrtValue | None],
    ) -> None:
        """Rounds the candidates, in their own memory where they have some.

        Args:
            names: The outputs of the node.
            widths: Which of them the plan rounds.
            rounder: Rounds to the low precision.
            references: The outputs in FP32, None for absent ones.
            introduced: Those from exact inputs and rounded weights, not rounded; None if they are
                the reference's.
            candidates: Those of the candidate, not yet rounded.
        """
        self._rounder = rounder
        self._outputs: list[_Output] = []
        self.candidates = list(candidates)
        """The candidates, rounded."""
        for index, (reference, candidate) in enumerate(zip(references, candidates, strict=True)):
            if reference is None or candidate is None or not is_float(reference):
                continue
            inexact = None if introduced is None else introduced[index]
            rounds = widths[index] is Width.LOW
            done = not rounds or rounder.round_in_place(candidate)
            values, self.candidates[index] = writable_array(candidate)
            if not done:
                round_flat(values.reshape(-1), values.reshape(-1), rounder.precision)
            exact = value_of(reference)
            output = _Output(names[index], exact, values, inexact, inexact or reference, rounds)
            self._outputs.append(output)

    @property
    def nbytes(self) -> int:
        """Size of the arrays that `measure` reads."""
        return sum(3 * output.reference.nbytes for output in self._outputs)

    def facts(self) -> OutputFacts:
        """Returns what `OutputFacts.of` says of the sums, without making these."""
        largest, has_nonfinite = 0.0, False
        for output in self._outputs:
            seen = look_at(output.reference)
            largest = max(largest, seen.largest_finite)
            has_nonfinite |= not seen.is_finite
            if output.candidate.shape == output.reference.shape:
                has_nonfinite |= not look_at(output.candidate).is_finite
        return OutputFacts(largest, has_nonfinite)

    def measure(
        self, errors: ErrorMemory | None
    ) -> tuple[DivergenceSums, dict[str, CompactErrors]]:
        """Returns the divergence over all outputs, and the introduced errors if they are kept.

        Args:
            errors: Where to keep the introduced errors, as `measure_divergence` does; None if they
                are not kept.
        """
        sums, kept = DivergenceSums(), {}
        for output in self._outputs:
            exact = output.reference
            low = self._rounder.rounded(output.alone) if output.is_rounded else output.alone
            compact = None if errors is None else errors.take(exact)
            sums += measure_divergence(
                exact,
                output.candidate,
                precision=self._rounder.precision,
                introduced=None if output.introduced is None else value_of(output.introduced),
                introduced_rounded=None if low is None else value_of(low),
                round_candidate=False,
                compact_errors=compact,
            )
            if compact is not None:
                kept[output.name] = compact
        return sums, kept
