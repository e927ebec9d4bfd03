"""Why the figures of a ranking may not be taken at their word, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.ranking.order import forecast_holds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from polygraphy_layerprec.records import OutputError, RankedLayer

__all__ = ["FORECAST_REFUTED", "describe_instability", "describe_refutation"]

FORECAST_REFUTED: Final = "The forecast is refuted"
"""How what `describe_refutation` returns begins."""

_STABLE: Final = 0.5  # the random probes of a small model alone give 0.6
_FEW_LAYERS: Final = 10
_NAMED: Final = 5
_NOTHING_LEFT: Final = 0.3  # relative errors from here on are not small


def describe_refutation(
    error: OutputError, layers: Sequence[RankedLayer], flipped: Mapping[str, int]
) -> str | None:
    """Returns what the forecast cannot see where the measurement refutes it, else None.

    Args:
        error: The error with every layer lowered.
        layers: The ranked layers.
        flipped: How many decisions low precision turned, by the node's name, in execution order.
    """
    if forecast_holds(error):
        return None
    start = (
        f"{FORECAST_REFUTED}: the impacts add up to an {error.metric} of {error.forecast:.2g}, "
        f"measured is {error.measured:.2g}, which counts."
    )
    if error.is_share:  # and the forecast is of another metric
        start = (
            f"{FORECAST_REFUTED}: a {error.metric} of {error.measured:.2g} was measured, which "
            f"counts."
        )
    overflowing = [layer for layer in layers if layer.overflow]
    if overflowing:
        first = min(overflowing, key=lambda layer: layer.graph_index)
        return (
            f"{start} It cannot see that a value overflows, first in {first.name!r}: it holds "
            "once the layers that overflow are kept in FP32."
        )
    guards = [layer for layer in layers if layer.keeps_finite]
    if guards:
        first = min(guards, key=lambda layer: layer.graph_index)
        these = "this layer" if len(guards) == 1 else f"these {len(guards)} layers together"
        return (
            f"{start} It cannot see that an output becomes NaN or infinite. The cause is "
            f"{first.name!r}: {first.reason}. With {these} in FP32, as measured, every output is "
            f"finite: {', '.join(repr(layer.name) for layer in guards[:_NAMED])}"
            f"{' and others' if len(guards) > _NAMED else ''}."
        )
    seen = [*_nonfinite(error), *_flips(flipped), *_losses(layers)]
    causes = "; ".join(seen) or "errors of different layers cancel, or amplify one another"
    return (
        f"{start} It takes errors for small and independent. What it cannot see: {causes}. The "
        "order of the layers is a hint here: measure sets of them, with `--tolerance`."
    )


def describe_instability(stability: float | None, layer_count: int) -> str | None:
    """Returns what a reader must know where samples do not agree, else None.

    Args:
        stability: As in `Ranking`.
        layer_count: How many layers are in order. The correlation of few is chance.
    """
    if stability is None or stability >= _STABLE or layer_count < _FEW_LAYERS:
        return None
    return (
        "The samples do not agree on the order of the layers (rank correlation "
        f"{stability:.2f}): it is a mean over all of them, which may fit none. Give more samples "
        "like those that the model will see, or rank different kinds apart."
    )


def _nonfinite(error: OutputError) -> Iterator[str]:
    if any(output.nonfinite_count for output in error.outputs):
        yield "an output becomes NaN or infinite"


def _flips(flipped: Mapping[str, int]) -> Iterator[str]:
    for name, count in flipped.items():
        times = "a decision flips" if count == 1 else f"{count:,} decisions flip"
        yield f"{times} in {name!r}" + (", the first to do so" if len(flipped) > 1 else "")
        return


def _losses(layers: Sequence[RankedLayer]) -> Iterator[str]:
    lost = sorted(
        (
            layer
            for layer in layers
            if layer.cumulative_error is not None and layer.cumulative_error >= _NOTHING_LEFT
        ),
        key=lambda layer: layer.graph_index,
    )
    if lost:
        first = lost[0]
        terms = ", where terms cancel" if first.kind == "cancellation" else ""
        yield (
            f"significance is lost, first in {first.name!r}{terms}: its result is off by "
            f"{first.cumulative_error:.2g} of its size"
        )
