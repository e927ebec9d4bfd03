"""What each layer was seen to do, accumulated over the samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.divergence.caveats import Caveat
from polygraphy_layerprec.divergence.metrics import DivergenceSums
from polygraphy_layerprec.divergence.nonfinite import NonFiniteVisit
from polygraphy_layerprec.execution.comparison.flops import count_flops
from polygraphy_layerprec.execution.streams import shape_of
from polygraphy_layerprec.ranking.order import LayerObservation
from polygraphy_layerprec.ranking.stability import relative_uncertainty

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.adjoint import AdjointImpacts
    from polygraphy_layerprec.execution.emulation.node_comparer import NodeRun
    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.records import ImpactMethod

__all__ = ["LayerObservations", "ObservedLayer"]


_ENOUGH_NUMBERS: Final = 8
"""A mean square of so many normal numbers is more than 9 times off the truth once in 1,000."""


@dataclass(slots=True)
class ObservedLayer:
    """What one layer did, in one sample or in many."""

    sums: DivergenceSums = field(default_factory=DivergenceSums)
    """How far its outputs are apart."""

    max_abs_input: float = 0.0
    """Largest finite magnitude among its float inputs."""

    largest_sum_of_terms: float = 0.0
    """Largest sum of magnitudes that it accumulates."""

    flops: float = 0.0
    """Operations, over all node runs."""

    evaluations: int = 0
    """How often it ran."""

    powers: dict[int, float] = field(default_factory=dict)
    """Squared impact by sample; none where it did not run."""

    independent_power: float = 0.0
    """Sum of what the squared impacts were if its errors were independent."""

    caveats: set[Caveat] = field(default_factory=set)
    """What the impacts do not see."""

    number_count: float = 0.0
    """Independent numbers that tell the impact; infinite where they were not counted."""

    largest_integer: float = 0.0
    """Largest of its floats that are taken for integers and are not exact."""

    readers: dict[int, float] = field(default_factory=dict)
    """Sums of the shares of what reads it, by node index."""

    def merge(self, other: ObservedLayer) -> None:
        """Adds what it did in other samples."""
        self.sums += other.sums
        self.max_abs_input = max(self.max_abs_input, other.max_abs_input)
        self.largest_sum_of_terms = max(self.largest_sum_of_terms, other.largest_sum_of_terms)
        self.flops += other.flops
        self.evaluations += other.evaluations
        self.powers |= other.powers
        self.independent_power += other.independent_power
        self.caveats |= other.caveats
        self.number_count += other.number_count
        self.largest_integer = max(self.largest_integer, other.largest_integer)
        for reader, share in other.readers.items():
            self.readers[reader] = self.readers.get(reader, 0.0) + share


@dataclass(slots=True)
class LayerObservations:
    """Collects node runs and impacts; memory grows with the layers, not with the samples.

    But for a number for each layer and sample. Those of several samples are merged; however the
    samples are split, the results are equal up to the rounding of sums in FP64.
    """

    layers: dict[int, ObservedLayer] = field(default_factory=dict)
    """The layers that ran, by node index."""

    harmful: set[int] = field(default_factory=set)
    """Nodes whose overflow reached an output."""

    first_visits: dict[int, tuple[int, NonFiniteVisit]] = field(default_factory=dict)
    """The first sample with infinities or NaN in a layer's output, with the visit: the way there
    is that of the first one, the rest holds for all. By node index."""

    flipped_counts: dict[int, int] = field(default_factory=dict)
    """Elements of decisions that differ, by node index."""

    samples: set[int] = field(default_factory=set)
    """Samples that impacts are known of, by index in the data set."""

    judged: int = 0
    """Elements at which errors were judged, over all samples."""

    saw_gradient: bool = False
    """Whether a loss of the user's own had a gradient in any sample."""

    def add(self, node_run: NodeRun, *, sample: int) -> None:
        """Adds what one node did with one sample."""
        self.harmful |= node_run.harmful_overflows
        sums = node_run.sums
        node = node_run.node
        if node_run.flipped_count:
            count = self.flipped_counts.get(node.index, 0)
            self.flipped_counts[node.index] = count + node_run.flipped_count
        if sums is None:
            return
        seen = ObservedLayer(
            sums=sums,
            max_abs_input=node_run.max_abs_input,
            largest_sum_of_terms=node_run.largest_sum_of_terms,
            flops=count_flops(
                node.op_type,
                [shape_of(node_run.inputs.get(name)) for name in node.inputs],
                [shape_of(output) for output in node_run.outputs],
            ),
            evaluations=1,
        )
        self._merge_layer(node.index, seen)
        if sums.candidate_nonfinite_count or sums.reference_nonfinite_count:
            visit = NonFiniteVisit(
                node_run.nonfinite_from,
                has_nan=sums.nan_count > 0,
                in_reference=sums.reference_nonfinite_count > 0,
            )
            self._merge_visit(node.index, sample, visit)

    def add_impacts(self, impacts: AdjointImpacts, *, sample: int, judged: int) -> None:
        """Adds the squared impacts that one sample gave, to the observations of that sample.

        Args:
            impacts: The impacts.
            sample: Its index in the data set.
            judged: Elements of the tensors at which errors are judged; none where nothing is.
        """
        self.judged += judged
        self.samples.add(sample)
        for index, layer in self.layers.items():
            layer.powers[sample] = impacts.powers.get(index, 0.0)
            layer.independent_power += impacts.independent_powers.get(index, 0.0)
            layer.caveats |= impacts.caveats.get(index, frozenset())
            layer.number_count += impacts.number_counts.get(index, math.inf)
            for reader, share in impacts.consumers.get(index, {}).items():
                layer.readers[reader] = layer.readers.get(reader, 0.0) + share

    def add_inexact_integers(self, largest: Mapping[int, float]) -> None:
        """Adds layers whose floats are taken for integers and are not exact, with the largest."""
        for index, magnitude in largest.items():
            layer = self.layers[index]
            layer.largest_integer = max(layer.largest_integer, magnitude)

    def add_harmful_overflows(self, indices: frozenset[int]) -> None:
        """Adds nodes whose overflow reached an output."""
        self.harmful |= indices

    def merge(self, other: LayerObservations) -> None:
        """Adds the observations of other samples."""
        for index, layer in other.layers.items():
            self._merge_layer(index, layer)
        for index, (sample, visit) in other.first_visits.items():
            self._merge_visit(index, sample, visit)
        for index, count in other.flipped_counts.items():
            self.flipped_counts[index] = self.flipped_counts.get(index, 0) + count
        self.harmful |= other.harmful
        self.samples |= other.samples
        self.judged += other.judged
        self.saw_gradient |= other.saw_gradient

    def _merge_layer(self, index: int, seen: ObservedLayer) -> None:
        if index in self.layers:
            self.layers[index].merge(seen)
        else:
            self.layers[index] = seen

    def _merge_visit(self, index: int, sample: int, visit: NonFiniteVisit) -> None:
        known, before = self.first_visits.get(index, (sample, visit))
        first = visit if sample < known else before
        self.first_visits[index] = (
            min(sample, known),
            NonFiniteVisit(
                first.parent,
                has_nan=visit.has_nan or before.has_nan,
                in_reference=visit.in_reference or before.in_reference,
            ),
        )

    def _caveats_of(self, layer: ObservedLayer) -> frozenset[Caveat]:
        told = min(layer.number_count, self.judged)
        few = told < _ENOUGH_NUMBERS and any(layer.powers.values())
        return frozenset(layer.caveats | ({Caveat("few")} if few else set()))

    def _powers_of(self, layer: ObservedLayer) -> list[float]:
        """Squared impacts by sample, in order; none in those in which it did not run."""
        return [layer.powers.get(sample, 0.0) for sample in sorted(self.samples)]

    @property
    def visits(self) -> Mapping[int, NonFiniteVisit]:
        """Layers whose output had infinities or NaN, by node index."""
        return {index: visit for index, (_, visit) in self.first_visits.items()}

    @property
    def flipped(self) -> Mapping[int, int]:
        """Decisions that low precision turned: elements that differ, by node index, in order."""
        return dict(sorted(self.flipped_counts.items()))

    @property
    def sample_powers(self) -> list[list[float]]:
        """Squared impacts, a list for each layer with a number for each sample."""
        return [self._powers_of(layer) for _, layer in sorted(self.layers.items())]

    def results(self, method: ImpactMethod, nodes: Sequence[Node]) -> list[LayerObservation]:
        """Returns one observation for each layer, in execution order.

        Args:
            method: How impacts were found.
            nodes: All nodes of the model, by their indices.
        """
        return [
            self._result(nodes[index], layer, method, nodes)
            for index, layer in sorted(self.layers.items())
        ]

    def _result(
        self, node: Node, layer: ObservedLayer, method: ImpactMethod, nodes: Sequence[Node]
    ) -> LayerObservation:
        powers = self._powers_of(layer)
        count = max(len(powers), 1)
        return LayerObservation(
            name=node.name,
            node_name=node.proto.name,
            op=node.op_type,
            block=node.block,
            graph_index=node.index,
            inputs=node.inputs,
            outputs=node.outputs,
            sums=layer.sums,
            max_abs_input=layer.max_abs_input,
            largest_sum_of_terms=layer.largest_sum_of_terms,
            harmful_overflow=node.index in self.harmful,
            impact_power=sum(powers) / count,
            independent_power=layer.independent_power / count,
            impact_method=_method_of(layer, method),
            caveats=self._caveats_of(layer),
            largest_inexact_integer=layer.largest_integer,
            readers=tuple(
                (nodes[reader].name, share / count)
                for reader, share in sorted(layer.readers.items())
            ),
            flops=layer.flops / max(layer.evaluations, 1),
            trace=node.trace if node.path else (),
            impact_uncertainty=relative_uncertainty(powers),
        )


def _method_of(layer: ObservedLayer, method: ImpactMethod) -> ImpactMethod:
    return "gain" if any(caveat.kind == "gain" for caveat in layer.caveats) else method
