"""Choose what stays in FP32: by a criterion, by number, or by share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.divergence.judges import default_tolerance
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.precision import QDQ, precision_named
from polygraphy_layerprec.records import Constraint, RankedLayer, Ranking, Selection
from polygraphy_layerprec.selection.forecast import SetForecast
from polygraphy_layerprec.selection.healing import is_required, may_be_finite
from polygraphy_layerprec.selection.measured_choice import Masks, measured_choice
from polygraphy_layerprec.selection.recorded import recorded_choice
from polygraphy_layerprec.selection.search import search_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.selection.measuring import Measure
    from polygraphy_layerprec.selection.request import SelectionRequest

__all__ = ["constraints_of", "constraints_of_members", "select_layers"]


def select_layers(
    ranking: Ranking,
    request: SelectionRequest,
    *,
    measure: Measure | None = None,
    held_out: Measure | None = None,
) -> Selection:
    """Returns the layers to keep in FP32.

    With `measure`, nothing where the lowered model passes as it is, else the cheapest set that was
    found to pass. Without it the set that the ranking's own decision chose, or where there is none
    or something else is asked for, what the forecast says by the tolerance or the default one.

    Args:
        ranking: The ranked layers.
        request: What is asked for.
        measure: Measures sets of layers, and judges them.
        held_out: The same on samples that are not to choose by: only the chosen set is measured.

    Raises:
        UserError: If more than one of tolerance, number and share is given, one is out of its
            range, or an expression is not valid or matches no layer.
    """
    _check(request)
    forecast = SetForecast(
        ranking.layers, ranking.conditions.sample_count, has_casts=ranking.precision != QDQ.name
    )
    named = _matching(ranking.layers, request.keep)
    allowed = _matching(ranking.layers, request.allow) if request.allow else np.ones_like(named)
    required = named | (np.array([is_required(layer) for layer in ranking.layers], bool) & allowed)
    if request.by != "layer" and measure is None:
        raise UserError(f"`--by {request.by}` measures sets, and so needs the model: `--model`.")
    size = _requested_size(request, len(ranking.layers))
    requested = None if size is None else _first(size, named, allowed)
    if request.choose is not None or (measure is None and _is_default(ranking, request)):
        return recorded_choice(ranking, forecast, request.choose)
    if measure is None:
        return _by_forecast(ranking, request, forecast, requested, required, allowed)
    masks = Masks(named, required, allowed, requested)
    return measured_choice(ranking, request, forecast, masks, measure, held_out)


def constraints_of(selection: Selection) -> tuple[Constraint, ...]:
    """Returns a constraint for each selected layer, with its reason."""
    return tuple(
        Constraint(
            layer.node_name, layer.op, layer.inputs, layer.outputs, layer.reason, layer.trace
        )
        for layer in selection.layers
    )


def constraints_of_members(selection: Selection) -> tuple[Constraint, ...]:
    """Returns a constraint for each node that is decided on with a selected layer, by its name."""
    return tuple(
        Constraint(name, layer.op, layer.inputs, layer.outputs, layer.reason, layer.trace)
        for layer in selection.layers
        for name in layer.members or (layer.node_name,)
    )


def _by_forecast(
    ranking: Ranking,
    request: SelectionRequest,
    forecast: SetForecast,
    requested: npt.NDArray[np.bool_] | None,
    required: npt.NDArray[np.bool_],
    allowed: npt.NDArray[np.bool_],
) -> Selection:
    kept, plain, tolerance = requested, None, None
    if kept is None:
        tolerance = request.tolerance
        if tolerance is None:
            tolerance = default_tolerance(precision_named(ranking.precision))
        found = search_set(
            forecast,
            tolerance=tolerance,
            error_of=forecast.error,
            required=required,
            allowed=allowed,
            cost=request.cost,
            hardware=request.hardware,
        )
        kept, plain = found.kept, found.plain
    error = forecast.error(kept)
    layers = tuple(layer for layer, keep in zip(forecast.layers, kept, strict=True) if keep)
    finite = may_be_finite(ranking, layers)
    return Selection(
        layers=layers,
        cost=forecast.cost(kept),
        forecast_error=error,
        tolerance=tolerance,
        reached=tolerance is None or (error <= tolerance and finite),
        plain_cost=None if plain is None else forecast.cost(plain),
        measurements=0,
    )


def _check(request: SelectionRequest) -> None:
    given = [
        option
        for option, value in (
            ("--tolerance", request.tolerance),
            ("--top-k", request.top_k),
            ("--fp32-fraction", request.fp32_fraction),
            ("--choose", request.choose),
        )
        if value is not None
    ]
    if len(given) > 1:
        raise UserError(f"Only one of {', '.join(given)} can decide which layers stay in FP32.")
    if request.by != "layer" and given and given != ["--tolerance"]:
        raise UserError(f"`--by {request.by}` and {given[0]} cannot go together: leave out one.")
    if request.tolerance is not None and not request.tolerance >= 0.0:
        raise UserError(f"`--tolerance` must be 0 or more, got {request.tolerance}.")
    if request.top_k is not None and request.top_k < 0:
        raise UserError(f"`--top-k` must be 0 or more, got {request.top_k}.")
    if request.fp32_fraction is not None and not 0.0 <= request.fp32_fraction <= 1.0:
        raise UserError(f"`--fp32-fraction` must lie in [0, 1], got {request.fp32_fraction}.")


def _matching(layers: Sequence[RankedLayer], patterns: Sequence[str]) -> npt.NDArray[np.bool_]:
    matched = np.zeros(len(layers), bool)
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise UserError(f"{pattern!r} is not a regular expression: {error}.") from error
        hits = np.array([bool(expression.search(layer.name)) for layer in layers], bool)
        if not hits.any():
            like = f"\nNote: Names look like {layers[0].name!r}." if layers else ""
            raise UserError(
                f"No layer of the ranking matches {pattern!r}.{like}\n"
                f"Correct `--keep` or `--allow`."
            )
        matched |= hits
    return matched


def _is_default(ranking: Ranking, request: SelectionRequest) -> bool:
    """Whether nothing is asked for but what was decided already."""
    asked = (request.tolerance, request.top_k, request.fp32_fraction)
    is_open = all(value is None for value in asked) and not (request.keep or request.allow)
    return is_open and ranking.decision is not None


def _requested_size(request: SelectionRequest, count: int) -> int | None:
    if request.top_k is not None:
        return min(request.top_k, count)
    if request.fp32_fraction is not None:
        return round(request.fp32_fraction * count)
    return None


def _first(
    size: int, named: npt.NDArray[np.bool_], allowed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """The layers that were named, and the first that may be kept until there are `size`."""
    kept = named.copy()
    others = np.flatnonzero(allowed & ~named)
    kept[others[: max(0, size - int(named.sum()))]] = True
    return kept
