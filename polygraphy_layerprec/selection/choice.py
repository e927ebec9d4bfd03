"""Choose what stays in FP32: by tolerance, by number, or by share."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.divergence.judges import default_tolerance
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.records import (
    Constraint,
    Decision,
    HeldOut,
    RankedLayer,
    Ranking,
    Selection,
)
from polygraphy_layerprec.selection.forecast import SetForecast
from polygraphy_layerprec.selection.measuring import Recorder
from polygraphy_layerprec.selection.prices import prices_for
from polygraphy_layerprec.selection.recorded import recorded_choice
from polygraphy_layerprec.selection.search import search_set
from polygraphy_layerprec.selection.verdict import KeptInWords, verdict_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.selection.measuring import Measure
    from polygraphy_layerprec.selection.prices import CostKind

__all__ = ["SelectionRequest", "constraints_of", "select_layers"]


_SMALLER_ERRORS: Final = (0.5, 0.1)
_TRIES: Final = 2


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """What a user asks for.

    A size counts layers from the first of the ranking, which are those that overflow. Otherwise
    the search starts from these, as far as they are allowed.
    """

    tolerance: float | None = None
    """Largest relative L2 error of the outputs; None if the size is given, the default is wanted,
    or other criteria decide."""

    top_k: int | None = None
    """How many layers to keep; more if `keep` names more."""

    fp32_fraction: float | None = None
    """Share of the layers to keep, in [0, 1], rounded to whole layers."""

    keep: tuple[str, ...] = ()
    """Regular expressions: layers whose name matches one anywhere are kept, allowed or not."""

    allow: tuple[str, ...] = ()
    """Regular expressions: no other layers than those that match one may be kept. None: any."""

    cost: CostKind = "count"
    """What to save."""

    choose: int | None = None
    """Which of the sets that the ranking's decision lists, from 1; None for none of them."""


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
        ValueError: If more than one of tolerance, number and share is given, one is out of its
            range, or an expression is not valid or matches no layer.
    """
    _check(request)
    forecast = SetForecast(ranking.layers)
    named = _matching(ranking.layers, request.keep)
    allowed = _matching(ranking.layers, request.allow) if request.allow else np.ones_like(named)
    required = named | (np.array([layer.overflow for layer in ranking.layers], bool) & allowed)
    size = _requested_size(request, len(ranking.layers))
    requested = None if size is None else _first(size, named, allowed)
    if request.choose is not None or (measure is None and _is_default(ranking, request)):
        return recorded_choice(ranking, forecast, request.choose)
    if measure is None:
        return _by_forecast(ranking, request, forecast, requested, required, allowed)
    recorder = Recorder(measure)
    lowered = recorder.outcome(np.zeros_like(named))
    plain = None
    if requested is not None:
        kept = requested
    elif lowered.passed:
        kept = named
        recorder.outcome(named)
    else:
        kept, plain = _searched(forecast, request, recorder, named, required, allowed)
    if requested is None:
        _measure_smaller_errors(forecast, request, recorder, kept, allowed)
    decision = _decision(ranking, request, forecast, recorder, kept, held_out)
    return Selection(
        layers=tuple(layer for layer, keep in zip(forecast.layers, kept, strict=True) if keep),
        cost=recorder.cost(forecast, kept),
        forecast_error=forecast.error(kept),
        tolerance=None,
        reached=requested is not None or decision.outcome.passed,
        plain_cost=None if plain is None else recorder.cost(forecast, plain),
        measurements=recorder.calls,
        decision=decision,
    )


def constraints_of(selection: Selection) -> tuple[Constraint, ...]:
    """Returns a constraint for each selected layer, with its reason."""
    return tuple(
        Constraint(
            layer.node_name, layer.op, layer.inputs, layer.outputs, layer.reason, layer.trace
        )
        for layer in selection.layers
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
            tolerance = default_tolerance(PRECISIONS[ranking.precision])
        found = search_set(
            forecast,
            tolerance=tolerance,
            error_of=forecast.error,
            required=required,
            allowed=allowed,
            cost=request.cost,
        )
        kept, plain = found.kept, found.plain
    error = forecast.error(kept)
    return Selection(
        layers=tuple(layer for layer, keep in zip(forecast.layers, kept, strict=True) if keep),
        cost=forecast.cost(kept),
        forecast_error=error,
        tolerance=tolerance,
        reached=tolerance is None or error <= tolerance,
        plain_cost=None if plain is None else forecast.cost(plain),
        measurements=0,
    )


def _searched(
    forecast: SetForecast,
    request: SelectionRequest,
    recorder: Recorder,
    named: npt.NDArray[np.bool_],
    required: npt.NDArray[np.bool_],
    allowed: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_] | None]:
    """The cheapest set that passes among all that were measured, and the plain one."""
    found = search_set(
        forecast,
        tolerance=1.0,
        error_of=recorder.excess,
        required=required,
        allowed=allowed,
        cost=request.cost,
        pinned=named,
    )
    prices = prices_for(request.cost, forecast)
    return recorder.cheapest(prices, forecast, fallback=found.kept), found.plain


def _measure_smaller_errors(
    forecast: SetForecast,
    request: SelectionRequest,
    recorder: Recorder,
    kept: npt.NDArray[np.bool_],
    allowed: npt.NDArray[np.bool_],
) -> None:
    """Measures what a half and a tenth of the error would cost, for those who want less of it."""
    for share in _SMALLER_ERRORS:
        target = share * recorder.excess(kept)
        tolerance = share * forecast.error(kept)
        for _ in range(_TRIES):
            found = search_set(
                forecast,
                tolerance=tolerance,
                error_of=forecast.error,
                required=kept,
                allowed=allowed,
                cost=request.cost,
            )
            excess = recorder.excess(found.kept)
            if not target < excess < math.inf:
                break
            tolerance *= 0.9 * target / excess  # the forecast promised too much


def _decision(
    ranking: Ranking,
    request: SelectionRequest,
    forecast: SetForecast,
    recorder: Recorder,
    kept: npt.NDArray[np.bool_],
    held_out: Measure | None,
) -> Decision:
    nothing = np.zeros_like(kept)
    recorder.outcome(kept)
    sets, chosen = recorder.choices(forecast, prices_for(request.cost, forecast), kept)
    others = None
    if held_out is not None:
        lowered = held_out.outcome(nothing)
        found = held_out.outcome(kept) if kept.any() else lowered
        others = HeldOut(held_out.sample_count, lowered, found)
    layers = [layer for layer, keep in zip(forecast.layers, kept, strict=True) if keep]
    overflowing = [layer.name for layer in layers if layer.overflow]
    lowered = recorder.outcome(nothing)
    verdict, sentence = verdict_of(
        lowered,
        recorder.outcome(kept),
        KeptInWords(
            len(layers), len(forecast.layers), overflowing or [layer.name for layer in layers]
        ),
        precision=ranking.precision,
        was_searched=_requested_size(request, len(forecast.layers)) is None,
        held_out=others,
    )
    return Decision(verdict, sentence, recorder.sample_count, lowered, sets, chosen, others)


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
        raise ValueError(f"Only one of {', '.join(given)} can decide which layers stay in FP32.")
    if request.tolerance is not None and not request.tolerance >= 0.0:
        raise ValueError(f"`--tolerance` must be 0 or more, got {request.tolerance}.")
    if request.top_k is not None and request.top_k < 0:
        raise ValueError(f"`--top-k` must be 0 or more, got {request.top_k}.")
    if request.fp32_fraction is not None and not 0.0 <= request.fp32_fraction <= 1.0:
        raise ValueError(f"`--fp32-fraction` must lie in [0, 1], got {request.fp32_fraction}.")


def _matching(layers: Sequence[RankedLayer], patterns: Sequence[str]) -> npt.NDArray[np.bool_]:
    matched = np.zeros(len(layers), bool)
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}.") from error
        hits = np.array([bool(expression.search(layer.name)) for layer in layers], bool)
        if not hits.any():
            like = f"\nNote: Names look like {layers[0].name!r}." if layers else ""
            raise ValueError(
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
