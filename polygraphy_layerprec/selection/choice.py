"""Choose what stays in FP32: by tolerance, by number, or by share."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.records import Constraint, RankedLayer, Ranking, Selection
from polygraphy_layerprec.selection.forecast import SetForecast
from polygraphy_layerprec.selection.healing import (
    guards_to_choose,
    is_required,
    may_be_finite,
)
from polygraphy_layerprec.selection.search import ErrorOf, search_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.selection.prices import CostKind

__all__ = ["SelectionRequest", "constraints_of", "select_layers"]


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """What a user asks for.

    Layers that overflow, or keep outputs finite, are kept in any case, unless they are not allowed
    or a size is given: that counts them, and they come first.
    """

    tolerance: float | None = None
    """Largest output error; None if the size is given, or the default is wanted."""

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


def select_layers(
    ranking: Ranking, request: SelectionRequest, *, measure: ErrorOf | None = None
) -> Selection:
    """Returns the layers to keep in FP32.

    Without a tolerance or a size: the layers that overflow or keep outputs finite, and the fewest
    more that halve the error which the others are foretold to cause.

    An output that becomes NaN or infinite meets no tolerance. Where what is required leaves one, as
    measured, the layers that mend it are found first (`find_guards`), rounding errors after that.

    Args:
        ranking: The ranked layers.
        request: What is asked for.
        measure: Gives the output error of a set, as a mask over `ranking.layers`; without it the
            forecast decides.

    Raises:
        ValueError: If more than one of tolerance, number and share is given, one is out of its
            range, or an expression is not valid or matches no layer.
    """
    _check(request)
    forecast = SetForecast(ranking.layers)
    named = _matching(ranking.layers, request.keep)
    allowed = _matching(ranking.layers, request.allow) if request.allow else np.ones_like(named)
    required = named | (np.array([is_required(layer) for layer in ranking.layers], bool) & allowed)
    measured = None if measure is None else _Counted(measure)
    size = _requested_size(request, len(ranking.layers))
    if size is None:
        if measured is not None:
            required |= guards_to_choose(
                ranking, lambda kept: math.isfinite(measured(kept)), required, allowed
            )
        found = _by_tolerance(forecast, request, required, allowed, measured)
        finite = may_be_finite(ranking, found.layers, measured_error=found.measured_error)
        return replace(found, reached=found.reached and finite)
    kept = _first(size, named, allowed)
    error = None if measured is None else measured(kept)
    return _selection(forecast, kept, error, measured)


def constraints_of(selection: Selection) -> tuple[Constraint, ...]:
    """Returns a constraint for each selected layer, with its reason."""
    return tuple(
        Constraint(
            layer.node_name, layer.op, layer.inputs, layer.outputs, layer.reason, layer.trace
        )
        for layer in selection.layers
    )


def _by_tolerance(
    forecast: SetForecast,
    request: SelectionRequest,
    required: npt.NDArray[np.bool_],
    allowed: npt.NDArray[np.bool_],
    measured: _Counted | None,
) -> Selection:
    tolerance = request.tolerance
    error_of: ErrorOf = measured or forecast.error
    if tolerance is None:
        tolerance, error_of = forecast.error(required) / 2, forecast.error
    found = search_set(
        forecast,
        tolerance=tolerance,
        error_of=error_of,
        required=required,
        allowed=allowed,
        cost=request.cost,
    )
    error = None
    if measured is not None:
        error = found.error if error_of is measured else measured(found.kept)
    return _selection(
        forecast,
        found.kept,
        error,
        measured,
        tolerance=tolerance,
        reached=found.error <= tolerance,
        plain=found.plain,
    )


class _Counted:
    """Measures every set once, and counts them."""

    def __init__(self, error_of: ErrorOf) -> None:
        self._error_of = error_of
        self._known: dict[bytes, float] = {}

    def __call__(self, kept: npt.NDArray[np.bool_]) -> float:
        key = kept.tobytes()
        if key not in self._known:
            self._known[key] = self._error_of(kept)
        return self._known[key]

    @property
    def calls(self) -> int:
        return len(self._known)


def _check(request: SelectionRequest) -> None:
    given = [
        option
        for option, value in (
            ("--tolerance", request.tolerance),
            ("--top-k", request.top_k),
            ("--fp32-fraction", request.fp32_fraction),
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


def _selection(
    forecast: SetForecast,
    kept: npt.NDArray[np.bool_],
    error: float | None,
    measured: _Counted | None,
    *,
    tolerance: float | None = None,
    reached: bool = True,
    plain: npt.NDArray[np.bool_] | None = None,
) -> Selection:
    return Selection(
        layers=tuple(layer for layer, keep in zip(forecast.layers, kept, strict=True) if keep),
        cost=forecast.cost(kept),
        forecast_error=forecast.error(kept),
        measured_error=error,
        tolerance=tolerance,
        reached=reached,
        plain_cost=None if plain is None else forecast.cost(plain),
        measurements=0 if measured is None else measured.calls,
    )
