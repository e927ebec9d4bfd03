"""The cheapest set of FP32 layers that passes, among those that were measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.records import Decision, HeldOut, Ranking, Selection
from polygraphy_layerprec.selection.groups import group_masks, search_groups
from polygraphy_layerprec.selection.healing import guards_to_choose, is_required
from polygraphy_layerprec.selection.measuring import Recorder
from polygraphy_layerprec.selection.prices import prices_for
from polygraphy_layerprec.selection.search import search_set
from polygraphy_layerprec.selection.verdict import KeptInWords, verdict_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.selection.forecast import SetForecast
    from polygraphy_layerprec.selection.measuring import Measure
    from polygraphy_layerprec.selection.request import SelectionRequest

__all__ = ["Masks", "measured_choice"]

_SMALLER_ERRORS: Final = (0.5, 0.1)
_TRIES: Final = 2
_PREFIXES_TRIED: Final = 9
_MOST_SINGLE_DROPS: Final = 16
_MOST_COSTLY_DROPS: Final = 6


@dataclass(frozen=True, slots=True)
class Masks:
    """Which layers of a ranking may, must or should stay in FP32."""

    named: npt.NDArray[np.bool_]
    """Layers that are kept in any case."""

    required: npt.NDArray[np.bool_]
    """Layers that the search starts from."""

    allowed: npt.NDArray[np.bool_]
    """Layers that may be kept."""

    requested: npt.NDArray[np.bool_] | None
    """The set itself, where its size was given."""


def measured_choice(
    ranking: Ranking,
    request: SelectionRequest,
    forecast: SetForecast,
    masks: Masks,
    measure: Measure,
    held_out: Measure | None,
) -> Selection:
    """Returns nothing where the lowered model passes as it is, else the cheapest set that does.

    Args:
        ranking: The ranked layers.
        request: What is asked for.
        forecast: Of the layers.
        masks: Which may be kept.
        measure: Measures sets of layers, and judges them.
        held_out: The same on samples that are not to choose by.
    """
    recorder = Recorder(measure)
    lowered = recorder.outcome(np.zeros_like(masks.named))
    plain = None
    if masks.requested is not None:
        kept = masks.requested
    elif lowered.passed:
        kept = masks.named
        recorder.outcome(kept)
    else:
        if request.by == "layer":
            masks = _with_guards(ranking, recorder, masks)
        kept, plain = _searched(forecast, request, recorder, masks)
    shown: list[npt.NDArray[np.bool_]] = []
    if masks.requested is None and request.by == "layer":
        shown = _sets_of_smaller_errors(forecast, request, recorder, kept, masks.allowed)
    decision = _decision(ranking, request, forecast, recorder, kept, masks, held_out, shown)
    return Selection(
        layers=tuple(layer for layer, keep in zip(forecast.layers, kept, strict=True) if keep),
        cost=recorder.cost(forecast, kept),
        forecast_error=forecast.error(kept),
        tolerance=None,
        reached=masks.requested is not None or decision.outcome.passed,
        plain_cost=None if plain is None else recorder.cost(forecast, plain),
        measurements=recorder.calls,
        decision=decision,
    )


def _with_guards(ranking: Ranking, recorder: Recorder, masks: Masks) -> Masks:
    """What keeps outputs finite is found before rounding errors are looked at."""
    guards = guards_to_choose(
        ranking,
        lambda kept: math.isfinite(recorder.outcome(kept).error),
        masks.required,
        masks.allowed,
    )
    return replace(masks, required=masks.required | guards)


def _searched(
    forecast: SetForecast,
    request: SelectionRequest,
    recorder: Recorder,
    masks: Masks,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_] | None]:
    """The cheapest set that passes among all that were measured, and the plain one."""
    prices = prices_for(request.cost, forecast, request.hardware)
    if request.by != "layer":
        groups = group_masks(forecast, request.by, masks.allowed | masks.required)
        search_groups(groups, recorder.excess, masks.required, masks.named)
        return recorder.cheapest(prices, forecast), None
    found = search_set(
        forecast,
        tolerance=1.0,
        error_of=recorder.excess,
        required=masks.required,
        allowed=masks.allowed,
        cost=request.cost,
        hardware=request.hardware,
        pinned=masks.named,
    )
    cheapest = partial(recorder.cheapest, prices, forecast)
    _try_smaller_prefixes(recorder, masks, int(cheapest().sum()))
    _drop_singly(recorder, masks, cheapest())
    return cheapest(), found.plain


def _try_smaller_prefixes(recorder: Recorder, masks: Masks, size: int) -> None:
    """Measures a few shorter prefixes of the ranking, all the same.

    A best class or a metric jumps, so that halving may miss the smaller sets that meet it.
    """
    others = np.flatnonzero(masks.allowed & ~masks.required)
    for length in np.unique(np.rint(np.linspace(0, 0.8 * size, _PREFIXES_TRIED)).astype(int)):
        kept = masks.required.copy()
        kept[others[:length]] = True
        recorder.outcome(kept)


def _drop_singly(recorder: Recorder, masks: Masks, kept: npt.NDArray[np.bool_]) -> None:
    """Measures a small set without each of its layers, and drops those that are not needed.

    What is of least use by the forecast may be what all hangs by: a guard against zero.
    """
    members = np.flatnonzero(kept & ~masks.named)
    if not recorder.outcome(kept).passed or members.size > _MOST_SINGLE_DROPS:
        return
    for member in members[::-1]:
        fewer = kept.copy()
        fewer[member] = False
        if recorder.outcome(fewer).passed:
            kept = fewer


def _sets_of_smaller_errors(
    forecast: SetForecast,
    request: SelectionRequest,
    recorder: Recorder,
    kept: npt.NDArray[np.bool_],
    allowed: npt.NDArray[np.bool_],
) -> list[npt.NDArray[np.bool_]]:
    """Measures what a half and a tenth of the error would cost, for those who want less of it."""
    sets = []
    for share in _SMALLER_ERRORS:
        target = share * recorder.excess(kept)
        search = partial(
            search_set,
            forecast,
            required=kept,
            allowed=allowed,
            cost=request.cost,
            hardware=request.hardware,
        )
        tolerance = share * forecast.error(kept)
        for _ in range(_TRIES):
            found = search(tolerance=tolerance, error_of=forecast.error)
            excess = recorder.excess(found.kept)
            if not target < excess < math.inf:
                break
            tolerance *= 0.9 * target / excess  # the forecast promised too much
        else:
            found = search(tolerance=target, error_of=recorder.excess)
        sets.append(_without_costly(forecast, recorder, found.kept, kept, target))
    return sets


def _without_costly(
    forecast: SetForecast,
    recorder: Recorder,
    kept: npt.NDArray[np.bool_],
    required: npt.NDArray[np.bool_],
    target: float,
) -> npt.NDArray[np.bool_]:
    """Measures a set without each of its costliest layers, and drops those that are not needed.

    The forecast is of all elements; a criterion may hang by a few.
    """
    if not recorder.excess(kept) <= target:
        return kept
    members = np.flatnonzero(kept & ~required)
    flops = np.array([forecast.layers[member].flops for member in members])
    for member in members[np.argsort(-flops, kind="stable")][:_MOST_COSTLY_DROPS]:
        fewer = kept.copy()
        fewer[member] = False
        if recorder.excess(fewer) <= target:
            kept = fewer
        else:
            recorder.hide(fewer)
    return kept


def _decision(
    ranking: Ranking,
    request: SelectionRequest,
    forecast: SetForecast,
    recorder: Recorder,
    kept: npt.NDArray[np.bool_],
    masks: Masks,
    held_out: Measure | None,
    shown: Sequence[npt.NDArray[np.bool_]],
) -> Decision:
    nothing = np.zeros_like(kept)
    recorder.outcome(kept)
    sets, chosen = recorder.choices(
        forecast, prices_for(request.cost, forecast, request.hardware), kept, shown
    )
    others = None
    if held_out is not None:
        lowered = held_out.outcome(nothing)
        found = held_out.outcome(kept) if kept.any() else lowered
        others = HeldOut(held_out.sample_count, lowered, found)
    layers = [layer for layer, keep in zip(forecast.layers, kept, strict=True) if keep]
    healing = [layer.name for layer in layers if is_required(layer)]
    lowered = recorder.outcome(nothing)
    verdict, sentence = verdict_of(
        lowered,
        recorder.outcome(kept),
        KeptInWords(len(layers), ranking.layer_count, healing or [layer.name for layer in layers]),
        precision=ranking.precision,
        was_searched=masks.requested is None,
        held_out=others,
    )
    return Decision(verdict, sentence, recorder.sample_count, lowered, sets, chosen, others)
