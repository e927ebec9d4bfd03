"""What each layer was seen to do, accumulated over the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.divergence.caveats import Caveat
from polygraphy_layerprec.divergence.metrics import DivergenceSums
from polygraphy_layerprec.divergence.nonfinite import NonFiniteVisit
from polygraphy_layerprec.execution.flops import count_flops
from polygraphy_layerprec.execution.streams import shape_of
from polygraphy_layerprec.ranking.order import LayerObservation
from polygraphy_layerprec.ranking.stability import relative_uncertainty

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.adjoint import AdjointImpacts
    from polygraphy_layerprec.execution.node_evaluation import Evaluation
    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.records import ImpactMethod

__all__ = ["LayerObservations"]


_ENOUGH_NUMBERS: Final = 8
"""A mean square of so many normal numbers is more than 9 times off the truth once in 1,000."""


@dataclass(slots=True)
class _Layer:
    node: Node
    sums: DivergenceSums = field(default_factory=DivergenceSums)
    max_abs_input: float = 0.0
    largest_sum_of_terms: float = 0.0
    flops: float = 0.0
    evaluations: int = 0
    powers: list[float] = field(default_factory=list)
    independent_power: float = 0.0
    caveats: set[Caveat] = field(default_factory=set)
    number_count: float = 0.0
    largest_integer: float = 0.0
    readers: dict[int, float] = field(default_factory=dict)


class LayerObservations:
    """Collects evaluations and impacts; memory grows with the layers, not with the samples."""

    def __init__(self) -> None:
        self._layers: dict[int, _Layer] = {}
        self._harmful: set[int] = set()
        self._visits: dict[int, NonFiniteVisit] = {}
        self._samples = 0
        self._judged = 0
        self._flipped: dict[int, int] = {}

    def add(self, evaluation: Evaluation) -> None:
        """Adds what one node did with one sample."""
        self._harmful |= evaluation.harmful_overflows
        sums = evaluation.sums
        node = evaluation.node
        if evaluation.flipped_count:
            count = self._flipped.get(node.index, 0)
            self._flipped[node.index] = count + evaluation.flipped_count
        if sums is None:
            return
        layer = self._layers.setdefault(node.index, _Layer(node))
        layer.sums += sums
        layer.max_abs_input = max(layer.max_abs_input, evaluation.max_abs_input)
        layer.largest_sum_of_terms = max(
            layer.largest_sum_of_terms, evaluation.largest_sum_of_terms
        )
        layer.evaluations += 1
        layer.flops += count_flops(
            node.op_type,
            [shape_of(evaluation.inputs.get(name)) for name in node.inputs],
            [shape_of(output) for output in evaluation.outputs],
        )
        if sums.candidate_nonfinite_count or sums.reference_nonfinite_count:
            before = self._visits.get(node.index)
            self._visits[node.index] = NonFiniteVisit(
                evaluation.nonfinite_from if before is None else before.parent,
                has_nan=sums.nan_count > 0 or (before is not None and before.has_nan),
                in_reference=sums.reference_nonfinite_count > 0
                or (before is not None and before.in_reference),
            )

    def add_impacts(
        self,
        impacts: AdjointImpacts,
        *,
        judged: int,
    ) -> None:
        """Adds the squared impacts that one sample gave.

        Args:
            impacts: The impacts.
            judged: Elements of the tensors at which errors are judged; none where nothing is.
        """
        self._judged += judged
        for index, layer in self._layers.items():
            missed = self._samples - len(layer.powers)  # samples in which it failed
            layer.powers.extend([0.0] * missed)
            layer.powers.append(impacts.powers.get(index, 0.0))
            layer.independent_power += impacts.independent_powers.get(index, 0.0)
            layer.caveats |= impacts.caveats.get(index, frozenset())
            layer.number_count += impacts.number_counts.get(index, math.inf)
            for reader, share in impacts.consumers.get(index, {}).items():
                layer.readers[reader] = layer.readers.get(reader, 0.0) + share
        self._samples += 1

    def add_inexact_integers(self, largest: Mapping[int, float]) -> None:
        """Adds layers whose floats are taken for integers and are not exact, with the largest."""
        for index, magnitude in largest.items():
            layer = self._layers[index]
            layer.largest_integer = max(layer.largest_integer, magnitude)

    def add_harmful_overflows(self, indices: frozenset[int]) -> None:
        """Adds nodes whose overflow reached an output."""
        self._harmful |= indices

    @property
    def judged(self) -> int:
        """Elements at which errors were judged, over all samples."""
        return self._judged

    def _caveats_of(self, layer: _Layer) -> frozenset[Caveat]:
        few = min(layer.number_count, self._judged) < _ENOUGH_NUMBERS and any(layer.powers)
        return frozenset(layer.caveats | ({Caveat("few")} if few else set()))

    @property
    def visits(self) -> Mapping[int, NonFiniteVisit]:
        """Layers whose output had infinities or NaN, by node index."""
        return self._visits

    @property
    def flipped(self) -> Mapping[int, int]:
        """Decisions that low precision turned: elements that differ, by node index, in order."""
        return dict(sorted(self._flipped.items()))

    @property
    def indices(self) -> frozenset[int]:
        """Node indices of the layers seen."""
        return frozenset(self._layers)

    @property
    def sample_powers(self) -> list[list[float]]:
        """Squared impacts, a list for each layer with a number for each sample."""
        return [layer.powers for layer in self._layers.values()]

    def results(
        self, method: ImpactMethod, name_of: Callable[[int], str]
    ) -> list[LayerObservation]:
        """Returns one observation for each layer, in execution order."""
        return [
            LayerObservation(
                name=layer.node.name,
                node_name=layer.node.proto.name,
                op=layer.node.op_type,
                block=layer.node.block,
                graph_index=index,
                inputs=layer.node.inputs,
                outputs=layer.node.outputs,
                sums=layer.sums,
                max_abs_input=layer.max_abs_input,
                largest_sum_of_terms=layer.largest_sum_of_terms,
                harmful_overflow=index in self._harmful,
                impact_power=sum(layer.powers) / len(layer.powers) if layer.powers else 0.0,
                independent_power=layer.independent_power / max(len(layer.powers), 1),
                impact_method=_method_of(layer, method),
                caveats=self._caveats_of(layer),
                largest_inexact_integer=layer.largest_integer,
                readers=tuple(
                    (name_of(reader), share / len(layer.powers))
                    for reader, share in sorted(layer.readers.items())
                ),
                flops=layer.flops / max(layer.evaluations, 1),
                trace=layer.node.trace if layer.node.path else (),
                impact_uncertainty=relative_uncertainty(layer.powers),
            )
            for index, layer in sorted(self._layers.items())
        ]


def _method_of(layer: _Layer, method: ImpactMethod) -> ImpactMethod:
    return "gain" if any(caveat.kind == "gain" for caveat in layer.caveats) else method
