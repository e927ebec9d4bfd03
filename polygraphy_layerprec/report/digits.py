"""As many digits as a figure is sure of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.ranking.order import forecast_holds

if TYPE_CHECKING:
    from polygraphy_layerprec.records import OutputError, Ranking

__all__ = ["certain_digits", "describe_forecast", "describe_stability"]

_SURE_OF_TWO: Final = 0.05


def certain_digits(uncertainty: float | None) -> int:
    """Returns how many significant digits to show, 1 or 2.

    The second digit is worth a tenth to a hundredth of the figure: beyond a standard error of 5 %
    it says nothing.

    Args:
        uncertainty: Standard error relative to the figure; None where it is not known.
    """
    return 1 if uncertainty is not None and uncertainty > _SURE_OF_TWO else 2


def describe_forecast(error: OutputError) -> str:
    """Returns the forecast in words, as refuted where the measurement says so."""
    text = f"forecast from the impacts: {error.forecast:.2g}"
    if error.forecast_of_loss:
        return f"relative change of the loss, {text}"
    if error.is_share:
        return f"RMS relative L2 error in front of what makes integers, {text}"
    return text if forecast_holds(error) else f"which refutes the {text}"


def describe_stability(ranking: Ranking) -> str:
    """Returns how much the order of the layers depends on the samples, in words."""
    if ranking.stability is not None:
        return f"{ranking.stability:.2f}, the rank correlation between samples"
    if ranking.conditions.sample_count < 2:
        return "unknown: one sample cannot say how much the order depends on the data"
    return "unknown"
