"""A ranking whose divergences were measured elsewhere: on an engine, or by `polygraphy run`.

Impacts and introduced errors stay the emulated ones, since no engine tells them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Literal

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.matching.tensor_matching import match_tensors, nothing_in_common
from polygraphy_layerprec.ranking.measurement_gaps import describe_gaps
from polygraphy_layerprec.ranking.order import order_layers
from polygraphy_layerprec.records import (
    NonFiniteOrigin,
    OutputDivergence,
    OutputError,
    RankedLayer,
    Ranking,
    RunConditions,
)

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.tensor_comparison import (
        TensorComparison,
        TensorDivergence,
    )

__all__ = ["with_measured_divergences"]


def with_measured_divergences(
    ranking: Ranking,
    comparison: TensorComparison,
    *,
    backend: str,
    versions: Iterable[tuple[str, str]] = (),
    tensor_layers: Mapping[str, str] | None = None,
    model_tensors: Collection[str] = (),
    warnings: Sequence[str] = (),
) -> Ranking:
    """Returns `ranking` with the divergences of the tensors in `comparison`.

    Where a layer has a tensor there, its cumulative error, counts and largest magnitude are
    replaced, and it overflows if a value that is finite in the reference stops being so in it.
    Where it has none, the cumulative error is None, the rest stays emulated, and a warning names
    it. Layers are ordered again, since overflow comes first.

    Args:
        ranking: An emulated ranking.
        comparison: The reference against the candidate, tensor by tensor.
        backend: What computed the tensors, for the record.
        versions: Packages that it used and their versions, beside those of the emulation.
        tensor_layers: As in `match_tensors`.
        model_tensors: Names that belong to the model, though maybe to no layer: they are not told
            as unmatched.
        warnings: Further things to say.

    Raises:
        UserError: If no tensor belongs to a layer or is an output.
    """
    matched = match_tensors(
        ranking, comparison.names, tensor_layers=tensor_layers, model_tensors=model_tensors
    )
    measured = _measured_layers(matched, comparison)
    outputs = {output.name for output in ranking.output_error.outputs}
    if not matched and not outputs.intersection(comparison.names):
        wanted = [layer.outputs[0] for layer in ranking.layers if layer.outputs]
        raise UserError(nothing_in_common(comparison.names, wanted, model_name=ranking.model.name))
    layers = _order_measured(ranking, comparison, measured)
    gaps = describe_gaps(ranking, comparison, matched, measured, model_tensors=model_tensors)
    return replace(
        ranking,
        conditions=_conditions(ranking.conditions, comparison, backend, versions),
        output_error=_output_error(ranking, comparison),
        layers=layers,
        nonfinite_origins=_origins(ranking, layers, measured),
        warnings=(*ranking.warnings, *warnings, *gaps),
    )


def _measured_layers(
    matched: Mapping[str, tuple[str, ...]], comparison: TensorComparison
) -> dict[str, TensorDivergence]:
    """The divergence of all tensors of a layer, where floating-point values were compared."""
    found = {
        layer: reduce(add, (comparison[name] for name in names)) for layer, names in matched.items()
    }
    return {layer: divergence for layer, divergence in found.items() if divergence.is_measured}


def _conditions(
    emulated: RunConditions,
    comparison: TensorComparison,
    backend: str,
    versions: Iterable[tuple[str, str]],
) -> RunConditions:
    return replace(
        emulated,
        backend=backend,
        versions=tuple(sorted({**dict(emulated.versions), **dict(versions)}.items())),
        sample_count=comparison.sample_count,
    )


def _order_measured(
    ranking: Ranking, comparison: TensorComparison, measured: Mapping[str, TensorDivergence]
) -> tuple[RankedLayer, ...]:
    return order_layers(
        [
            _measured_layer(layer, measured[layer.name], comparison)
            if layer.name in measured
            else replace(layer, cumulative_error=None)
            for layer in ranking.layers
        ]
    )


def _measured_layer(
    layer: RankedLayer, divergence: TensorDivergence, comparison: TensorComparison
) -> RankedLayer:
    sums = divergence.sums
    overflow = _overflows(layer, divergence, comparison)
    kind, reason = layer.kind, layer.reason
    if overflow and not layer.overflow:
        kind = "overflow"
        reason = (
            f"overflow: {sums.candidate_nonfinite_count} of {sums.element_count} values are not "
            f"finite in the candidate, |x| up to {sums.max_abs:.3g} in the reference"
        )
    elif layer.overflow and not overflow:
        kind = "benign overflow"
        reason = f"benign overflow: |x| up to {sums.max_abs:.3g} stays finite in the candidate"
    return replace(
        layer,
        cumulative_error=divergence.cumulative_error,
        max_abs=sums.max_abs,
        element_count=sums.element_count,
        overflow_count=sums.overflow_count,
        underflow_count=sums.underflow_count,
        reference_nonfinite_count=sums.reference_nonfinite_count,
        candidate_nonfinite_count=sums.candidate_nonfinite_count,
        overflow=overflow,
        kind=kind,
        reason=reason,
    )


def _overflows(
    layer: RankedLayer, divergence: TensorDivergence, comparison: TensorComparison
) -> bool:
    """Whether the layer leaves the range in the candidate, and something comes of it.

    What is not finite already when it arrives is another layer's, and the emulation knows whether
    what leaves the range is felt later on.
    """
    arrived = [comparison[name].sums for name in layer.inputs if name]
    lost = any(sums.candidate_nonfinite_count for sums in arrived)
    if layer.overflow:
        # It may be an input that leaves the range: what was not measured says nothing against it.
        beyond = any(sums.overflow_count for sums in (divergence.sums, *arrived))
        return not beyond or lost or divergence.sums.candidate_nonfinite_count > 0
    if not divergence.sums.candidate_nonfinite_count or layer.overflow_count:
        return False
    return not (lost or layer.candidate_nonfinite_count)


def _output_error(ranking: Ranking, comparison: TensorComparison) -> OutputError:
    """The measured error as in `OutputDivergences`; the emulated one if no output was measured."""
    emulated = ranking.output_error
    counted = ranking.conditions.outputs or tuple(output.name for output in emulated.outputs)
    found = [comparison[name] for name in counted]
    if not any(divergence.present_count for divergence in found):
        return emulated
    compared = sum(divergence.compared_count for divergence in found)
    squared = math.fsum(divergence.squared_error for divergence in found)
    shares = [d.mismatch_count / d.element_count for d in found if d.is_of_integers]
    measured = [*shares, math.sqrt(squared / compared)] if compared else shares
    if any(divergence.nonfinite_count for divergence in found):
        measured.append(math.inf)
    return replace(
        emulated,
        measured=max(measured, default=emulated.measured),
        outputs=tuple(
            comparison[output.name].to_output_divergence(output.name)
            if output.name in counted
            else OutputDivergence(output.name, None, None, 0, 0.0)
            for output in emulated.outputs
        ),
    )


def _origins(
    ranking: Ranking, layers: Sequence[RankedLayer], measured: Mapping[str, TensorDivergence]
) -> tuple[NonFiniteOrigin, ...]:
    """The emulated origins that the measurement does not contradict, and those it adds."""
    kept = {
        origin.name: origin
        for origin in ranking.nonfinite_origins
        if origin.name not in measured or _has_nonfinite(measured[origin.name])
    }
    position = {layer.name: layer.graph_index for layer in layers}
    emulated = {layer.name for layer in ranking.layers if layer.overflow}
    for layer in layers:
        if layer.overflow and layer.name not in emulated:
            value: Literal["inf", "nan"] = "nan" if measured[layer.name].sums.nan_count else "inf"
            kept[layer.name] = NonFiniteOrigin(
                layer.name, layer.op, value, in_reference=False, path=(layer.name,)
            )
    return tuple(sorted(kept.values(), key=lambda origin: position.get(origin.name, 0)))


def _has_nonfinite(divergence: TensorDivergence) -> bool:
    sums = divergence.sums
    return bool(sums.candidate_nonfinite_count or sums.reference_nonfinite_count)
