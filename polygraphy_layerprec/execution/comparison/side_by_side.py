"""Runs samples through the executor and turns what was seen into observations of layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.divergence.rules import find_rule
from polygraphy_layerprec.execution.comparison.impact_spread import AdjointSpread, GainSpread
from polygraphy_layerprec.execution.comparison.observation import LayerObservations
from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
from polygraphy_layerprec.execution.comparison.reference_check import check_against_reference
from polygraphy_layerprec.execution.emulation.emulated import EmulatedExecutor, SampleComparison
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.kernels.weights_ahead import WeightsAhead
from polygraphy_layerprec.execution.probes.error_paths import ErrorPaths
from polygraphy_layerprec.model.quantized import QuantizedGraph

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.loss import Loss
    from polygraphy_layerprec.divergence.pair_fit import PairFit
    from polygraphy_layerprec.execution.emulation.node_comparer import NodeRun
    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.plan import Plan
    from polygraphy_layerprec.records import ImpactMethod

__all__ = ["Comparison", "Progress", "SampleComparer", "compare_samples", "no_sample"]

Sample = Mapping[str, np.ndarray[Any, Any]]
Progress = Callable[[int, int, str], None]
"""Called with what is done, how much it is in all (0 if unknown), and what is going on."""

_LOST_SAMPLES_KEPT: Final = 8
"""Enough to measure sets with; what others alone lose is found when the choice is measured."""

_ID_SAMPLES_KEPT: Final = 32
"""Enough for a mean; each costs a run for every layer that carries ids."""


@dataclass(slots=True)
class Comparison:
    """Everything that samples said: of one, or of many, merged.

    However samples are split, merging gives the same, up to the rounding of sums in FP64.
    """

    observations: LayerObservations
    """What each layer did."""

    outputs: OutputDivergences
    """How far the outputs are apart."""

    with_adjoint: bool
    """Whether impacts come from backward sweeps."""

    sample_count: int = 0
    """Samples that were run."""

    first_failures: dict[int, tuple[int, str]] = field(default_factory=dict)
    """The first sample in which a node could not run, and why, by node index."""

    nonfinite_from: set[int] = field(default_factory=set)
    """Layers that handed a NaN or infinity on to an output, by node index."""

    ran: set[int] = field(default_factory=set)
    """Nodes that ran in a sample at least."""

    flips: set[int] = field(default_factory=set)
    """`If` nodes where reference and candidate took different branches."""

    id_sample_count: int = 0
    """Samples in which layers have an effect that no gradient tells: floats that are taken for
    integers are not exact, or pairs of a quantised model may err by much."""

    id_samples: dict[int, Sample] = field(default_factory=dict)
    """The first of these samples, by index in the data set."""

    lost_samples: dict[int, Sample] = field(default_factory=dict)
    """The first samples in which an output becomes NaN or infinite, by index in the data set."""

    lowered_already: set[int] = field(default_factory=set)
    """Nodes that the model runs in FP16 or BF16 itself."""

    pair_fits: dict[str, PairFit] = field(default_factory=dict)
    """How the scales of a quantised model fit the values of activations, by the pair's name."""

    @property
    def failures(self) -> dict[int, str]:
        """Why a node could not run, by node index."""
        return {index: reason for index, (_, reason) in self.first_failures.items()}

    @property
    def samples_of_ids(self) -> list[Sample]:
        """The first samples in which layers have an effect that no gradient tells."""
        return list(self.id_samples.values())

    @property
    def samples_lost(self) -> list[Sample]:
        """The first samples in which an output becomes NaN or infinite."""
        return list(self.lost_samples.values())

    def merge(self, other: Comparison) -> None:
        """Adds what other samples said."""
        self.observations.merge(other.observations)
        self.outputs.merge(other.outputs)
        self.sample_count += other.sample_count
        for index, failure in other.first_failures.items():
            self.first_failures[index] = min(failure, self.first_failures.get(index, failure))
        self.nonfinite_from |= other.nonfinite_from
        self.ran |= other.ran
        self.flips |= other.flips
        self.lowered_already |= other.lowered_already
        for name, fit in other.pair_fits.items():
            known = self.pair_fits.get(name)
            self.pair_fits[name] = fit if known is None else known + fit
        self.id_sample_count += other.id_sample_count
        self.id_samples = _first(self.id_samples | other.id_samples, _ID_SAMPLES_KEPT)
        self.lost_samples = _first(self.lost_samples | other.lost_samples, _LOST_SAMPLES_KEPT)


def _first(samples: Mapping[int, Sample], count: int) -> dict[int, Sample]:
    return dict(itertools.islice(sorted(samples.items(), key=lambda item: item[0]), count))


def compare_samples(
    comparer: SampleComparer,
    samples: Iterable[tuple[int, Sample]],
    *,
    sample_count: int | None = None,
    may_be_none: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Returns what `samples` say of each layer that a plan lowers.

    Args:
        comparer: Compares them.
        samples: Each with its index in the data set: an array for each input, any number of times;
            shapes may differ.
        sample_count: How many samples there are, if that is known: progress counts all of them.
        may_be_none: Whether no sample is no error: the part of a data set may be empty.
        progress: Told after every node.

    Raises:
        ExecutionError: If there is no sample.
    """
    comparison = comparer.nothing()
    for done, (index, sample) in enumerate(samples):
        tell = _telling(progress, comparer.node_count, done, sample_count, index)
        comparison.merge(comparer.compare(index, sample, tell))
    if not (comparison.sample_count or may_be_none):
        raise no_sample()
    return comparison


def no_sample() -> ExecutionError:
    """Returns the error that says that there is nothing to measure with."""
    return ExecutionError(
        "There is no input sample to measure with.\n"
        "Give one with `--load-inputs` or `--data-loader-script`, or leave both out."
    )


def _telling(
    progress: Progress | None, nodes: int, done: int, sample_count: int | None, sample: int
) -> Callable[[Node], None] | None:
    if progress is None:
        return None
    first, total = (0, nodes) if sample_count is None else (done * nodes, sample_count * nodes)
    return lambda node: progress(first + node.index + 1, total, f"sample {sample + 1}")


class SampleComparer:
    """Compares samples, each by itself, on sessions that are shared by all of them."""

    def __init__(
        self,
        plan: Plan,
        *,
        impact: ImpactMethod,
        outputs: tuple[str, ...],
        budget_bytes: int | None,
        loss: Loss | None = None,
    ) -> None:
        """Prepares sessions, which are made as nodes first run.

        Args:
            plan: What becomes of the tensors of the candidate.
            impact: `gain`, or else the adjoint.
            outputs: The outputs that count.
            budget_bytes: Memory for activations; beyond it they are kept on disk.
            loss: What matters at the outputs, instead of their relative errors.
        """
        graph, precision = plan.graph, plan.precision
        self._plan = plan
        self._unchecked = graph if isinstance(graph, QuantizedGraph) else None
        self._outputs = outputs
        self._with_adjoint = impact != "gain"
        ahead = WeightsAhead()  # in turn by forward pass and backward sweep: half the memory
        self._executor = EmulatedExecutor(
            plan,
            ahead=ahead,
            needs_gains=_lacks_rule if self._with_adjoint else (lambda _: True),
            keep_errors=self._with_adjoint,
        )
        self._paths = ErrorPaths(graph, precision)
        self._spread: AdjointSpread | GainSpread = (
            AdjointSpread(graph, self._paths, budget_bytes, loss, ahead)
            if self._with_adjoint
            else GainSpread(self._paths)
        )

    @property
    def node_count(self) -> int:
        """How many nodes each sample runs."""
        return len(self._plan.graph.nodes)

    def nothing(self) -> Comparison:
        """Returns what no sample says, to merge others into."""
        graph, precision = self._plan.graph, self._plan.precision
        return Comparison(
            LayerObservations(), OutputDivergences(graph.outputs, precision), self._with_adjoint
        )

    def compare(
        self, index: int, sample: Sample, tell: Callable[[Node], None] | None = None
    ) -> Comparison:
        """Returns what one sample says.

        Args:
            index: Its index in the data set, from which its random probes follow.
            sample: An array for each input.
            tell: Called after every node.
        """
        comparison = self.nothing()
        comparison.sample_count = 1
        observe = self._observer(comparison, index)
        result = self._executor.compare(sample, observe, tell or (lambda _: None))
        if self._unchecked is not None:
            check_against_reference(self._unchecked, sample, result.reference)
            self._unchecked = None
        counted = {name: y for name, y in result.reference.items() if name in self._outputs}
        self._spread.add_impacts(comparison.observations, counted, sample=index)
        if self._paths.inexact_integers:
            comparison.observations.add_inexact_integers(self._paths.inexact_integers)
        if self._paths.inexact_integers or isinstance(self._plan.graph, QuantizedGraph):
            comparison.id_sample_count, comparison.id_samples = 1, {index: sample}
        self._paths.forget()
        comparison.outputs.add(counted, result.candidate)
        if comparison.outputs.nonfinite_count:
            comparison.lost_samples = {index: sample}
        _add_result(comparison, index, result)
        return comparison

    def _observer(self, comparison: Comparison, index: int) -> Callable[[NodeRun], None]:
        def observe(node_run: NodeRun) -> None:
            comparison.observations.add(node_run, sample=index)
            self._spread.add(node_run)
            comparison.ran.add(node_run.node.index)
            if any(o is not None and o.data_type() in _LOW_TYPES for o in node_run.outputs):
                comparison.lowered_already.add(node_run.node.index)

        return observe


_LOW_TYPES: Final = frozenset({"tensor(float16)", "tensor(bfloat16)"})


def _add_result(comparison: Comparison, index: int, result: SampleComparison) -> None:
    comparison.observations.add_harmful_overflows(result.harmful_overflows)
    comparison.nonfinite_from |= result.nonfinite_from
    comparison.flips |= result.flips
    comparison.pair_fits |= result.fits
    comparison.first_failures |= {node: (index, reason) for node, reason in result.failures.items()}


def _lacks_rule(node: Node) -> bool:
    return find_rule(node.op_type, node.domain, node.opset) is None or bool(node.captures)
