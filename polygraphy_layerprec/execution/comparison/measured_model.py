"""A model, samples and judges: what sets of layers in FP32 leave, each measured once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.execution.comparison.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.comparison.judging import Findings
from polygraphy_layerprec.execution.comparison.set_measurement import SampleRuns, SetMeasurement
from polygraphy_layerprec.matching.constraint_matching import check_ranked_model
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import precision_named
from polygraphy_layerprec.records import SetCounts
from polygraphy_layerprec.records.numbers import count_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
    from polygraphy_layerprec.execution.comparison.side_by_side import Progress
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Outcome, Ranking

__all__ = ["MeasuredModel", "MeasuredSets", "measure_here"]

Sample = Mapping[str, np.ndarray[Any, Any]]

Tell = Callable[[int], None]

_ENOUGH_TO_HOLD_OUT: Final = 8


class MeasuredModel:
    """What sets of layers leave of a model: each is run once on each sample, and remembered.

    The samples are those to choose by and, where there are eight or more, the last quarter, which
    is held out.
    """

    def __init__(
        self, ranking: Ranking, graph: Graph, runs: SampleRuns, judges: Sequence[Judge] = ()
    ) -> None:
        """Stores what measures.

        Args:
            ranking: The ranked layers, sets of which are masks.
            graph: The whole model.
            runs: Runs the samples.
            judges: What judges the outputs.
        """
        self.graph = graph
        self._layers = ranking.layers
        self._runs = runs
        self._judges = judges
        # What calls the user's functions holds the outputs of all samples: too much to remember.
        self._may_remember = not any(judge.calls_user for judge in judges)
        count = runs.sample_count
        seen = count - (count // 4 if count >= _ENOUGH_TO_HOLD_OUT else 0)
        self._parts = tuple(part for part in (range(seen), range(seen, count)) if part)
        self._outcomes: dict[tuple[KeptLayers, tuple[range, ...]], Outcome] = {}
        self._findings: dict[tuple[KeptLayers, range], Findings] = {}
        self._divergences: dict[tuple[KeptLayers, range], OutputDivergences] = {}
        self._set_count = 0

    def to_choose_by(self, progress: Progress | None = None) -> MeasuredSets:
        """Returns the sets on the samples that choose."""
        return MeasuredSets(self, self._parts[:1], progress)

    def held_out(self, progress: Progress | None = None) -> MeasuredSets | None:
        """Returns the sets on the samples that are held out; None if there are none."""
        return MeasuredSets(self, self._parts[1:], progress) if self._parts[1:] else None

    def on_all(self, progress: Progress | None = None) -> MeasuredSets:
        """Returns the sets on all samples."""
        return MeasuredSets(self, self._parts, progress)

    def outcome(
        self,
        kept: npt.NDArray[np.bool_],
        parts: tuple[range, ...],
        progress: Progress | None = None,
    ) -> Outcome:
        """Returns what the judges make of a set.

        Args:
            kept: The layers in FP32, as a mask over the ranking.
            parts: The parts of the samples, in order.
            progress: Called with samples done, samples in all, and what is going on.
        """
        key = self._kept_layers(kept), parts
        if key not in self._outcomes:
            whole = self._runs.nothing(self._judges)
            for part, tell in self._told(kept, parts, progress):
                whole.merge(self._of_part(key[0], part, tell))
            self._outcomes[key] = whole.outcome()
        return self._outcomes[key]

    def error(
        self,
        kept: npt.NDArray[np.bool_],
        parts: tuple[range, ...],
        progress: Progress | None = None,
    ) -> float:
        """Returns the relative L2 error that a set leaves; the arguments are those of `outcome`."""
        layers = self._kept_layers(kept)
        whole = self._runs.nothing().divergences
        for part, tell in self._told(kept, parts, progress):
            if (layers, part) not in self._divergences:
                found = self._runs.findings(layers, (), part, tell=tell)
                self._divergences[layers, part] = found.divergences
            whole.merge(self._divergences[layers, part])
        return whole.error

    def counts(self, kept: npt.NDArray[np.bool_]) -> SetCounts:
        """Returns what a set costs in the model."""
        plan = self._runs.plan(self._kept_layers(kept))
        return SetCounts(plan.fp32_node_count, len(plan.casts), plan.removed_pair_count)

    def _of_part(self, kept: KeptLayers, part: range, tell: Tell) -> Findings:
        key = kept, part
        if key in self._findings:
            return self._findings[key]
        found = self._runs.findings(kept, self._judges, part, tell=tell)
        self._divergences[key] = found.divergences
        if self._may_remember:
            self._findings[key] = found
        return found

    def _kept_layers(self, kept: npt.NDArray[np.bool_]) -> KeptLayers:
        return KeptLayers.of_outputs(
            name for index in np.flatnonzero(kept) for name in self._layers[index].outputs
        )

    def _told(
        self,
        kept: npt.NDArray[np.bool_],
        parts: tuple[range, ...],
        progress: Progress | None,
    ) -> Iterator[tuple[range, Tell]]:
        """Each part with what tells how many samples are done in all."""
        self._set_count += 1
        what = f"set {self._set_count}, {count_of(int(kept.sum()), 'layer')}"
        total, before = sum(map(len, parts)), 0

        def tell(done: int) -> None:
            if progress is not None:
                progress(before + done, total, what)

        for part in parts:
            yield part, tell
            before += len(part)


class MeasuredSets:
    """The sets on some parts of the samples, as a choice measures them."""

    def __init__(
        self, model: MeasuredModel, parts: tuple[range, ...], progress: Progress | None = None
    ) -> None:
        self._model = model
        self._parts = parts
        self._progress = progress

    @property
    def sample_count(self) -> int:
        """How many samples it measures on."""
        return sum(map(len, self._parts))

    def outcome(self, kept: npt.NDArray[np.bool_]) -> Outcome:
        """Returns what a set leaves, by all judges."""
        return self._model.outcome(kept, self._parts, self._progress)

    def counts(self, kept: npt.NDArray[np.bool_]) -> SetCounts:
        """Returns what a set costs in the model."""
        return self._model.counts(kept)

    def error(self, kept: npt.NDArray[np.bool_]) -> float:
        """Returns the relative L2 error that a set leaves."""
        return self._model.error(kept, self._parts, self._progress)


def measure_here(
    ranking: Ranking,
    graph: Graph,
    samples: Iterable[Sample],
    *,
    judges: Sequence[Judge] = (),
    outputs: Sequence[str] | None = None,
) -> MeasuredModel:
    """Returns what measures sets of layers in this process; the reference is run.

    Args:
        ranking: The ranked layers.
        graph: The model that the ranking is about.
        samples: Input samples for it, which are kept in memory.
        judges: What judges the outputs.
        outputs: Names of the outputs that count, all by default.

    Raises:
        UserError: If the model is another one than was ranked.
        SampleError: If a sample does not fit the model.
        ExecutionError: If there is no sample, or no output that counts can be computed.
    """
    check_ranked_model(graph, ranking, made="The ranking")
    part, counted = part_that_counts(graph, outputs)
    runs = SetMeasurement(
        part, samples, precision=precision_named(ranking.precision), outputs=counted
    )
    return MeasuredModel(ranking, graph, runs, judges)
