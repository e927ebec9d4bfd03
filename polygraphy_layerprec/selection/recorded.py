"""A set that was measured when the ranking was made, taken without measuring again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.records import Ranking, Selection
from polygraphy_layerprec.selection.verdict import KeptInWords, verdict_of

if TYPE_CHECKING:
    from polygraphy_layerprec.selection.forecast import SetForecast

__all__ = ["recorded_choice"]


def recorded_choice(ranking: Ranking, forecast: SetForecast, number: int | None) -> Selection:
    """Returns one of the sets that a ranking's decision lists.

    Args:
        ranking: The ranking.
        forecast: Of its layers.
        number: Which set, from 1; None for the one that was chosen.

    Raises:
        UserError: If the ranking lists no sets, or none of this number, or a set names a layer
            that the ranking lacks.
    """
    decision = ranking.decision
    if decision is None:
        raise UserError(
            "`--choose` takes a set from the list that `rank` makes, and this ranking has none.\n"
            "Make it anew with `rank --save-ranking`."
        )
    chosen = decision.chosen if number is None else number
    if not 1 <= chosen <= len(decision.sets):
        raise UserError(f"`--choose` must lie in [1, {len(decision.sets)}], got {chosen}.")
    found = decision.sets[chosen - 1]
    try:
        kept = forecast.mask(found.layers)
    except KeyError as error:
        raise UserError(f"Set {chosen} names {error}, which the ranking lacks.") from error
    layers = tuple(layer for layer, keep in zip(forecast.layers, kept, strict=True) if keep)
    if chosen != decision.chosen:
        blamed = [layer.name for layer in layers if layer.overflow]
        verdict, sentence = verdict_of(
            decision.lowered,
            found.outcome,
            KeptInWords(len(layers), ranking.layer_count, blamed),
            precision=ranking.precision,
            was_searched=False,
        )
        decision = replace(
            decision, verdict=verdict, sentence=sentence, chosen=chosen, held_out=None
        )
    return Selection(
        layers=layers,
        cost=found.cost,
        forecast_error=forecast.error(kept),
        tolerance=None,
        reached=number is not None or found.outcome.passed,
        plain_cost=None,
        measurements=0,
        decision=decision,
    )
