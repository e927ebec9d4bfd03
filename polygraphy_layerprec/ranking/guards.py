"""Which layers keep the outputs finite, found by measuring, and what each of them guards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.divergence.nonfinite import trace_nonfinite
from polygraphy_layerprec.execution.comparison.guarded_values import NOTHING_LOST, guarded_values
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.ranking.order import first_output, order_layers
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.selection.healing import find_guards, linked_groups

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.execution.comparison.guarded_values import GuardedValues
    from polygraphy_layerprec.execution.comparison.side_by_side import Comparison, Progress, Sample
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.precision import Precision
    from polygraphy_layerprec.records import RankedLayer

__all__ = ["find_guard_reasons", "with_guards"]


def find_guard_reasons(
    graph: Graph,
    comparison: Comparison,
    layers: Sequence[RankedLayer],
    *,
    precision: Precision,
    outputs: tuple[str, ...],
    progress: Progress | None = None,
) -> dict[str, str]:
    """Returns the layers that must stay in FP32 together for finite outputs, with the reasons.

    Those that overflow stay there as well, and are not among them. Empty where no more is needed,
    and where no set of layers helps.

    Args:
        graph: The model, or the part of it that counts.
        comparison: What the samples said.
        layers: The layers.
        precision: The low precision.
        outputs: Names of the outputs that count.
        progress: Called with sets measured, 0, and what is going on.
    """
    samples = comparison.samples_lost
    if not samples:
        return {}
    measurement = SetMeasurement(graph, samples, precision=precision, outputs=outputs)
    overflows = np.array([layer.overflow for layer in layers], bool)
    guards = find_guards(
        layers,
        _FiniteSets(measurement, layers, progress),
        required=overflows,
        allowed=np.ones_like(overflows),
        starts=_starts(comparison, layers),
    )
    if guards is None:
        return {}
    reasons: dict[str, str] = {}
    for group in linked_groups(layers, guards):
        waiting = [layers[index] for index in group]
        while waiting:  # the first NaN hides those behind it, until its guards are kept
            lowered = {layer.name for layer in waiting}
            kept = (guards | overflows) & [layer.name not in lowered for layer in layers]
            values = _first_loss(graph, samples, waiting, precision, _kept(layers, kept))
            last = math.inf if values.start is None else values.start.index
            told = [layer for layer in waiting if layer.graph_index <= last] or waiting
            reasons |= _reasons(told, values, precision)
            waiting = [layer for layer in waiting if layer.name not in reasons]
    return reasons


def with_guards(
    layers: Sequence[RankedLayer], reasons: Mapping[str, str]
) -> tuple[RankedLayer, ...]:
    """Returns the layers in order, those that keep outputs finite with their reasons.

    Args:
        layers: The layers.
        reasons: As `find_guard_reasons` returns them.
    """
    return order_layers(
        [
            replace(layer, keeps_finite=True, kind="guard", reason=reasons[layer.name])
            if layer.name in reasons
            else layer
            for layer in layers
        ]
    )


@dataclass(slots=True)
class _FiniteSets:
    """Whether sets of layers leave finite outputs; progress is reported as they are measured."""

    measurement: SetMeasurement
    layers: Sequence[RankedLayer]
    progress: Progress | None
    done: int = 0

    def __call__(self, kept: npt.NDArray[np.bool_]) -> bool:
        self.done += 1
        if self.progress is not None:
            of_what = f"finite outputs, set of {count_of(int(kept.sum()), 'layer')}"
            self.progress(self.done, 0, of_what)
        return bool(np.isfinite(self.measurement.divergence(_kept(self.layers, kept)).error))


def _kept(layers: Sequence[RankedLayer], kept: npt.NDArray[np.bool_]) -> KeptLayers:
    chosen = (layer for layer, keep in zip(layers, kept, strict=True) if keep)
    return KeptLayers.of_outputs(name for layer in chosen for name in layer.outputs)


def _first_loss(
    graph: Graph,
    samples: Sequence[Sample],
    lowered: Sequence[RankedLayer],
    precision: Precision,
    others: KeptLayers,
) -> GuardedValues:
    """What becomes of the values of some layers in the first sample where they lose something."""
    members = [graph.producers[first_output(layer.outputs)] for layer in lowered]
    found = (
        guarded_values(graph, sample, members, precision=precision, others=others)
        for sample in samples
    )
    return next((values for values in found if values.start is not None), NOTHING_LOST)


def _starts(comparison: Comparison, layers: Sequence[RankedLayer]) -> set[str]:
    traces = trace_nonfinite(
        comparison.observations.visits, reaching_outputs=comparison.nonfinite_from
    )
    origins = {trace.origin for trace in traces}
    return {layer.name for layer in layers if layer.graph_index in origins}


def _reasons(
    group: Sequence[RankedLayer], values: GuardedValues, precision: Precision
) -> dict[str, str]:
    """What each layer of a group does there, the first one whose value is another being the cause.

    It says the value, what it becomes, and where NaN or infinity starts for it.
    """
    changed = [layer for layer in group if layer.graph_index in values.turned]
    what = "NaN" if values.is_nan else "infinities"
    effect = f"{values.start.name!r} gives {what}" if values.start else "an output is lost"
    cause = changed[0] if changed else None
    reasons = {}
    for layer in group:
        turned = values.turned.get(layer.graph_index)
        if turned is not None:
            told = f"{turned.exact:.6g} is {turned.low:.6g} in {precision.name.upper()}"
            role = "guard" if layer is cause else f"reads {_name(cause)}"
            reasons[layer.name] = f"{role}: {told}, so {effect}"
        elif values.start is None or layer.name != values.start.name:
            reasons[layer.name] = f"kept with {_name(cause)}, or {effect}"
        elif cause is None:
            reasons[layer.name] = f"gives {what} in {precision.name.upper()}"
        else:
            of_cause = values.turned[cause.graph_index]
            reasons[layer.name] = (
                f"gives {what} where {_name(cause)} is {of_cause.low:.6g} "
                f"instead of {of_cause.exact:.6g}"
            )
    return reasons


def _name(layer: RankedLayer | None) -> str:
    return repr(layer.name) if layer is not None else "the others"
