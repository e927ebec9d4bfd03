"""From observations to an order: layers by what their rounding does to the outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.divergence.caveats import describe_caveats
from polygraphy_layerprec.divergence.kinds import Symptoms, describe_trouble
from polygraphy_layerprec.records import ImpactMethod, RankedLayer

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.caveats import Caveat
    from polygraphy_layerprec.divergence.metrics import DivergenceSums
    from polygraphy_layerprec.precision import Precision
    from polygraphy_layerprec.records import OutputDivergence, OutputError, Ranking

__all__ = [
    "LayerObservation",
    "errors_agree",
    "first_output",
    "forecast_error",
    "forecast_holds",
    "forecast_is_refuted",
    "order_layers",
    "rank_layers",
    "with_exact_impacts",
]

_FORECAST_FACTOR: Final = 3.0


@dataclass(frozen=True, slots=True)
class LayerObservation:
    """What all samples together say of one layer."""

    name: str
    """Unique name."""

    node_name: str
    """Name of the ONNX node."""

    op: str
    """ONNX operator."""

    block: str
    """The part of the model it belongs to."""

    graph_index: int
    """Position in execution order."""

    inputs: tuple[str, ...]
    """ONNX names of the input tensors."""

    outputs: tuple[str, ...]
    """ONNX names of the output tensors."""

    sums: DivergenceSums
    """Divergence of its outputs over all samples."""

    max_abs_input: float
    """Largest finite magnitude among its float inputs."""

    largest_sum_of_terms: float
    """Largest sum of |terms| it accumulates, 0 if surely in range."""

    harmful_overflow: bool
    """Whether its overflow was felt by a layer in range, or by an output."""

    impact_power: float
    """Mean over the samples of the squared relative output error that it causes."""

    impact_method: ImpactMethod
    """How that was found."""

    readers: tuple[tuple[str, float], ...]
    """As in `RankedLayer`."""

    flops: float
    """As in `RankedLayer`."""

    caveats: frozenset[Caveat] = frozenset()
    """What `impact_power` does not see."""

    largest_inexact_integer: float = 0.0
    """The largest of its floats if they are taken for integers and are not exact; else 0."""

    trace: tuple[str, ...] = ()
    """As in `Constraint`."""

    independent_power: float | None = None
    """What `impact_power` were if all errors were independent, element by element; None where
    coherence is not known of."""

    impact_uncertainty: float | None = None
    """As in `RankedLayer`."""


def rank_layers(
    observations: Sequence[LayerObservation], precision: Precision
) -> tuple[RankedLayer, ...]:
    """Returns the layers, worst first: see `order_layers`."""
    total = math.fsum(observation.impact_power for observation in observations)
    return order_layers([_described(observation, total, precision) for observation in observations])


def order_layers(layers: Sequence[RankedLayer]) -> tuple[RankedLayer, ...]:
    """Returns the layers, worst first, with their ranks.

    Overflow that does damage comes before any score, in execution order: the first one is where to
    look. So do layers that keep outputs finite, and then integers that are not exact: an id that is
    off by one is another one. Then impact decides, and execution order among equals; a layer where
    terms cancel stands with the worst of its terms.
    """
    urgencies = _urgencies(layers)
    ordered = sorted(
        layers,
        key=lambda layer: (
            not layer.overflow,
            not layer.keeps_finite,
            layer.kind != "inexact integers",
            0.0 if layer.lost else -urgencies[layer.name],
            layer.graph_index,
        ),
    )
    return tuple(replace(layer, rank=rank) for rank, layer in enumerate(ordered, start=1))


def _urgencies(layers: Sequence[RankedLayer]) -> dict[str, float]:
    """The impact by which each layer is ordered: its own, or that of a term that it cancels.

    A term that is large only to be cancelled must reach the cancellation unrounded, so the two are
    kept in FP32 together, as one alone does not help.
    """
    urgencies = {layer.name: layer.impact for layer in layers}
    cancelling = {layer.name for layer in layers if layer.kind == "cancellation"}
    for layer in layers:
        through = layer.impact * math.sqrt(1.0 - layer.weight_share)
        for reader, share in layer.readers:
            if reader in cancelling:
                urgencies[reader] = max(urgencies[reader], through * math.sqrt(share))
    return urgencies


def first_output(outputs: Sequence[str]) -> str:
    """Returns the name by which a layer goes: a recurrent one may leave out its first output."""
    return next(filter(None, outputs), "")


def with_exact_impacts(
    observations: Sequence[LayerObservation], impacts: Mapping[str, float]
) -> list[LayerObservation]:
    """Returns the observations with impacts that were measured in place of those forecast.

    Args:
        observations: What was observed of each layer.
        impacts: Relative L2 errors of the model's outputs, by the layers' `first_output`; layers
            that are missing keep their impact.
    """
    return [
        replace(
            observation,
            impact_power=impacts[name] ** 2,
            impact_method="exact",
            caveats=frozenset(),
        )
        if (name := first_output(observation.outputs)) in impacts
        else observation
        for observation in observations
    ]


def forecast_error(layers: Sequence[RankedLayer]) -> float:
    """Returns the output error with all `layers` lowered, as their impacts forecast it.

    Rounding errors are as good as independent, so their squares add up.
    """
    return math.sqrt(math.fsum(layer.impact**2 for layer in layers))


def forecast_holds(error: OutputError) -> bool:
    """Returns whether the forecast is within 3x of what was measured.

    Impacts add up as small independent errors do. Where a decision flips, a value overflows or
    nothing of a value is left, errors are not small, and the measurement is the answer. True where
    the two cannot be compared: no output has an error or is lost, or the forecast is of a loss.
    """
    if error.forecast_of_loss or not any(_is_comparable(output) for output in error.outputs):
        return True
    return errors_agree(error.forecast, error.measured)


def _is_comparable(output: OutputDivergence) -> bool:
    return output.error is not None or output.mismatch_fraction == 1.0


def errors_agree(first: float, second: float) -> bool:
    """Returns whether one error is at most 3x the other.

    >>> errors_agree(0.002, 0.006), errors_agree(0.0, 0.001)
    (True, False)
    """
    low, high = sorted((first, second))
    return high <= _FORECAST_FACTOR * low or high == low


def forecast_is_refuted(ranking: Ranking) -> bool:
    """Returns whether the forecast is no answer for any set of layers.

    It leaves out NaN and overflow, so it may still hold once the layers to blame are kept in FP32.
    """
    blamed = any(layer.lost for layer in ranking.layers)
    return not blamed and not forecast_holds(ranking.output_error)


def _described(observation: LayerObservation, total: float, precision: Precision) -> RankedLayer:
    sums = observation.sums
    impact = float(np.sqrt(observation.impact_power))
    share = observation.impact_power / total if total else 0.0
    kind, reason = describe_trouble(
        Symptoms(
            op=observation.op,
            sums=sums,
            max_abs_input=observation.max_abs_input,
            largest_sum_of_terms=observation.largest_sum_of_terms,
            harmful_overflow=observation.harmful_overflow,
            impact=impact,
            share=share,
            caveats=observation.caveats,
            largest_inexact_integer=observation.largest_inexact_integer,
        ),
        precision,
    )
    return RankedLayer(
        rank=0,
        name=observation.name,
        node_name=observation.node_name,
        op=observation.op,
        block=observation.block,
        graph_index=observation.graph_index,
        inputs=observation.inputs,
        outputs=observation.outputs,
        impact=impact,
        impact_method=observation.impact_method,
        share=share,
        introduced_error=sums.introduced_error,
        cumulative_error=sums.cumulative_error,
        max_abs_input=observation.max_abs_input,
        max_abs=sums.max_abs,
        element_count=sums.element_count,
        overflow_count=sums.overflow_count,
        underflow_count=sums.underflow_count,
        reference_nonfinite_count=sums.reference_nonfinite_count,
        candidate_nonfinite_count=sums.candidate_nonfinite_count,
        overflow=observation.harmful_overflow,
        kind=kind,
        reason=reason,
        caveat=describe_caveats(observation.caveats, judged=impact > 0.0),
        weight_share=_weight_share(observation),
        readers=observation.readers,
        flops=observation.flops,
        trace=observation.trace,
        impact_uncertainty=observation.impact_uncertainty,
    )


def _weight_share(observation: LayerObservation) -> float:
    """The share of the squared impact that does not come from rounding the output.

    Rounded outputs err independently, so what coherence adds on the way to the outputs belongs to
    the weights.
    """
    sums = observation.sums
    if not sums.introduced_power:
        return 0.0
    from_output = min(1.0, sums.rounding_power / sums.introduced_power)
    if observation.independent_power is not None and observation.impact_power:
        from_output *= observation.independent_power / observation.impact_power
    return 1.0 - min(1.0, from_output)
