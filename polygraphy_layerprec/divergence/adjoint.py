"""Adjoint impact: what each layer's introduced error does to the outputs, by one backward sweep.

With a random probe v of +-1 at the outputs, each output scaled by the norm of its reference, and
g = J^T v the gradient that reverse mode brings to a layer's output, the squared impact of the
layer is sum(g^2 e^2) with e its introduced error: the expectation of (v . J e)^2 over rounding
errors of independent signs (Hutchinson's estimator, with the signs of e random as well).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.divergence.activation_store import ActivationStore
from polygraphy_layerprec.divergence.backward_sweep import (
    AtOnce,
    BackwardSweep,
    Later,
    names_read,
    takes_coarse,
)
from polygraphy_layerprec.divergence.probes import output_seeds, probe_count
from polygraphy_layerprec.divergence.recorded_values import RecordedValues
from polygraphy_layerprec.divergence.rules.registry import numpy_product
from polygraphy_layerprec.divergence.tape_entry import AdjointImpacts, TapeEntry

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.divergence.compact_errors import CompactErrors

__all__ = ["AdjointImpacts", "Tape", "TapeEntry", "output_seeds", "probe_count"]


_FEWEST_ELEMENTS: Final = 1 << 15
"""Handing over to another thread takes as long as a node that reads and makes fewer."""

_ENOUGH_PROBES: Final = 16
_MOST_RATIO: Final = 4.0
"""Of two squared impacts, one of them a mean of 16 squares: once in 1,000 by chance."""


def _one_by_one(works: Sequence[Callable[[], None]]) -> None:
    """Does one piece of work after the other."""
    for work in works:
        work()


class Tape:
    """Records a forward pass and sweeps it backwards."""

    def __init__(
        self,
        read_constants: Callable[[Sequence[str]], Mapping[str, npt.NDArray[Any]]],
        *,
        budget_bytes: int | None = None,
        product: Callable[..., npt.NDArray[Any]] = numpy_product,
        side_by_side: Callable[[Sequence[Callable[[], None]]], None] = _one_by_one,
        background: Callable[[], AbstractContextManager[Later]] = lambda: nullcontext(AtOnce()),
    ) -> None:
        """Prepares to record.

        Args:
            read_constants: Reads constants by name, which may be overwritten by its next call.
            budget_bytes: Memory for what is recorded; beyond it, that is kept on disk.
            product: Multiplies matrices: see `Application.product`.
            side_by_side: Does pieces of work that share nothing, some of them at a time.
            background: Makes what does pieces of work later, until its block ends.
        """
        self._background = background
        self._side_by_side = side_by_side
        self._entries: list[tuple[TapeEntry, list[str]]] = []
        self._product = product
        self._recorded = RecordedValues(ActivationStore(budget_bytes), read_constants)

    def record(
        self,
        entry: TapeEntry,
        values: Mapping[str, npt.NDArray[Any]],
        errors: Mapping[str, CompactErrors],
    ) -> None:
        """Appends a node.

        Args:
            entry: The node.
            values: Reference values of its sources and outputs by tensor name; what no rule reads
                is not kept. Constants that `read_constants` knows may be missing.
            errors: Introduced error of each float output of a layer, as `measure_divergence` writes
                it.
        """
        may_be_coarse = takes_coarse(entry)
        kept = [
            name
            for name in names_read(entry)
            if name in values
            and self._recorded.keep(name, values[name], may_be_coarse=may_be_coarse)
        ]
        kept += [self._recorded.keep_error(name, compact) for name, compact in errors.items()]
        # The first to read a value in the forward pass is the last in the backward sweep.
        self._entries.append((entry, kept))

    def sweep(
        self,
        *probes: Mapping[str, npt.NDArray[Any]],
        decisions: Mapping[str, str] = MappingProxyType({}),
        are_spanning: bool = False,
    ) -> AdjointImpacts:
        """Returns the impacts of all recorded layers, the mean over the probes.

        The recording is forgotten.

        Args:
            probes: One or more; each the gradient at every output that counts, by tensor name, or
                at what decides it.
            decisions: The operator that makes an integer output of a tensor, by its name.
            are_spanning: Whether the probes are those of `spanning_seeds`, which see the linear
                response to the errors as they are: no sign is left to chance.
        """
        sweeps = [
            BackwardSweep(self._recorded, self._product, dict(probe), wants_responses=are_spanning)
            for probe in probes
        ]
        try:
            # What is not finite is dropped where it appears.
            with np.errstate(all="ignore"):
                for sweep in sweeps:
                    sweep.mark_outputs(decisions)
                if len(sweeps) == 1:
                    with self._background() as sweeps[0].later:
                        self._step_back(sweeps)
                else:  # which go side by side
                    self._step_back(sweeps)
        finally:
            self._recorded.close()
            self._entries.clear()
        found = [sweep.result() for sweep in sweeps]
        return _as_they_are(found) if are_spanning else _mean(found)

    def _step_back(self, sweeps: Sequence[BackwardSweep]) -> None:
        """All sweeps side by side, so that each value is read once and then forgotten."""
        while self._entries:
            entry, kept = self._entries.pop()
            steps = [partial(_step, sweep, entry) for sweep in sweeps]
            if len(steps) > 1 and _size(entry) >= _FEWEST_ELEMENTS:
                sweeps[0].read(entry)
                self._side_by_side(steps)
            else:
                _one_by_one(steps)
            self._recorded.forget(kept)


def _step(sweep: BackwardSweep, entry: TapeEntry) -> None:
    with np.errstate(all="ignore"):  # of each thread, in older numpys
        sweep.step(entry)


def _size(entry: TapeEntry) -> int:
    return sum(math.prod(shape or ()) for shape in (*entry.input_shapes, *entry.output_shapes))


def _mean(sweeps: Sequence[AdjointImpacts]) -> AdjointImpacts:
    count = len(sweeps)
    consumers: dict[int, dict[int, float]] = {}
    for sweep in sweeps:
        for index, readers in sweep.consumers.items():
            shares = consumers.setdefault(index, {})
            for reader, share in readers.items():
                shares[reader] = shares.get(reader, 0.0) + share / count
    return AdjointImpacts(
        powers=_powers_of(sweeps),
        caveats=sweeps[0].caveats,  # all sweeps go the same way
        consumers=consumers,
        independent_powers=_mean_of([sweep.independent_powers for sweep in sweeps]),
        number_counts={
            index: sum(sweep.number_counts[index] for sweep in sweeps) for index in sweeps[0].powers
        },
    )


def _as_they_are(sweeps: Sequence[AdjointImpacts]) -> AdjointImpacts:
    """The squared impacts of errors with the signs that they have, from probes that span."""
    powers = _mean_of([{i: r * r for i, r in sweep.responses.items()} for sweep in sweeps])
    finite = {index: power for index, power in powers.items() if math.isfinite(power)}
    mean = _mean(sweeps)
    return replace(mean, powers={**mean.powers, **finite}, number_counts={})


def _powers_of(sweeps: Sequence[AdjointImpacts]) -> dict[int, float]:
    """The mean squared impacts, of errors with random signs unless those they have say otherwise.

    Equal values err alike, and a difference of them does not err at all. Many probes see that: the
    mean square of what they see is that of the output error, whatever the errors have in common.
    """
    powers = _mean_of([sweep.powers for sweep in sweeps])
    if len(sweeps) < _ENOUGH_PROBES:
        return powers
    responses = _mean_of([{i: r * r for i, r in sweep.responses.items()} for sweep in sweeps])
    for index, seen in responses.items():
        # Written so that a NaN, which compares as false, changes nothing.
        if seen * _MOST_RATIO < powers[index] or seen > _MOST_RATIO * powers[index]:
            powers[index] = seen
    return powers


def _mean_of(figures: Sequence[Mapping[int, float]]) -> dict[int, float]:
    return {index: sum(each[index] for each in figures) / len(figures) for index in figures[0]}
