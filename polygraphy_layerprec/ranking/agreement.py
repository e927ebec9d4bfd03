"""How far two rankings agree: emulated against an engine, two versions, two sets of inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from polygraphy_layerprec.ranking.correlation import rank_correlation
from polygraphy_layerprec.ranking.order import first_output
from polygraphy_layerprec.records import (
    ConditionDifference,
    LayerMove,
    OutputErrorPair,
    RankedLayer,
    RankedSide,
    Ranking,
    RankingAgreement,
    TopOverlap,
    UnsharedLayer,
)
from polygraphy_layerprec.records.model_identity import are_different
from polygraphy_layerprec.records.numbers import count_of

__all__ = ["compare_rankings"]

Pair = tuple[RankedLayer, RankedLayer]

_OVERLAP_COUNTS: Final = (1, 5, 10, 20, 50, 100)
_DIGEST_SHOWN: Final = 12


def compare_rankings(
    first: Ranking, second: Ranking, *, first_label: str = "first", second_label: str = "second"
) -> RankingAgreement:
    """Returns how far two rankings agree.

    Layers are the same by their unique name, or else by the first tensor that they make. Comparing
    the other way round gives the same with first and second exchanged.

    Args:
        first: A ranking.
        second: Another one, best of the same model.
        first_label: What the reader knows the first by.
        second_label: What the reader knows the second by.
    """
    pairs = _pair_layers(first.layers, second.layers)
    paired = {layer.name for layer, _ in pairs}, {layer.name for _, layer in pairs}
    return RankingAgreement(
        first=_side(first, first_label),
        second=_side(second, second_label),
        same_model=not are_different(first.model.digest, second.model.digest),
        shared_count=len(pairs),
        rank_correlation=_correlation(pairs, lambda layer: layer.rank),
        impact_correlation=_correlation(pairs, lambda layer: layer.impact),
        introduced_correlation=_correlation(pairs, lambda layer: layer.introduced_error),
        cumulative_correlation=_correlation(pairs, lambda layer: layer.cumulative_error),
        overlaps=_overlaps(pairs, min(len(first.layers), len(second.layers))),
        layers=_moves(pairs),
        only_first=_unshared(first, paired[0]),
        only_second=_unshared(second, paired[1]),
        outputs=_outputs(first, second),
        differences=tuple(_differences(first, second)),
        warnings=tuple(_warnings(first, second, pairs)),
    )


def _pair_layers(first: Sequence[RankedLayer], second: Sequence[RankedLayer]) -> list[Pair]:
    """Returns the layers that are the same, in the first ranking's order."""
    by_name = {layer.name: layer for layer in second}
    pairs = [(layer, by_name[layer.name]) for layer in first if layer.name in by_name]
    shared = {layer.name for layer, _ in pairs}
    by_tensor = {
        tensor: layer
        for layer in second
        if layer.name not in shared and (tensor := first_output(layer.outputs))
    }
    pairs += [
        (layer, by_tensor[first_output(layer.outputs)])
        for layer in first
        if layer.name not in shared and first_output(layer.outputs) in by_tensor
    ]
    return sorted(pairs, key=lambda pair: pair[0].rank)


def _side(ranking: Ranking, label: str) -> RankedSide:
    return RankedSide(
        label=label,
        model=ranking.model,
        precision=ranking.precision,
        conditions=ranking.conditions,
        layer_count=len(ranking.layers),
        measured_error=ranking.output_error.measured,
        forecast_error=ranking.output_error.forecast,
    )


def _correlation(
    pairs: Sequence[Pair], figure_of: Callable[[RankedLayer], float | None]
) -> float | None:
    figures = [(figure_of(first), figure_of(second)) for first, second in pairs]
    known = [(a, b) for a, b in figures if a is not None and b is not None]
    if not known:
        return None
    return rank_correlation([a for a, _ in known], [b for _, b in known])


def _overlaps(pairs: Sequence[Pair], layer_count: int) -> tuple[TopOverlap, ...]:
    counts = [count for count in _OVERLAP_COUNTS if count <= layer_count]
    return tuple(
        TopOverlap(
            count, sum(first.rank <= count and second.rank <= count for first, second in pairs)
        )
        for count in counts
    )


def _moves(pairs: Sequence[Pair]) -> tuple[LayerMove, ...]:
    """The shared layers, those that moved most first; equal ones by their first place."""
    places = {
        layer.name: place
        for place, layer in enumerate(sorted((b for _, b in pairs), key=lambda b: b.rank))
    }
    moves = [
        _move(first, second, places[second.name] - place)
        for place, (first, second) in enumerate(pairs)
    ]
    return tuple(sorted(moves, key=lambda move: (-abs(move.shift), move.first_rank)))


def _move(first: RankedLayer, second: RankedLayer, shift: int) -> LayerMove:
    return LayerMove(
        name=first.name,
        op=first.op,
        first_rank=first.rank,
        second_rank=second.rank,
        shift=shift,
        first_impact=first.impact,
        second_impact=second.impact,
        first_introduced_error=first.introduced_error,
        second_introduced_error=second.introduced_error,
        first_cumulative_error=first.cumulative_error,
        second_cumulative_error=second.cumulative_error,
        first_kind=first.kind,
        second_kind=second.kind,
        reason=_reason(first, second),
        first_lost=first.lost,
        second_lost=second.lost,
    )


def _reason(first: RankedLayer, second: RankedLayer) -> str:
    """What sets the places of a layer apart; empty where nothing does."""
    if first.kind != second.kind:
        return f"{first.kind} -> {second.kind}"
    if first.lost != second.lost:
        return f"{first.lost or 'finite'} -> {second.lost or 'finite'}"
    if second.lost:
        return second.lost
    if first.impact != second.impact:
        return f"{second.kind}, impact {first.impact:.1e} -> {second.impact:.1e}"
    if first.cumulative_error != second.cumulative_error:
        errors = f"{_error(first.cumulative_error)} -> {_error(second.cumulative_error)}"
        return f"{second.kind}, cumulative error {errors}"
    return second.kind


def _error(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1e}"


def _unshared(ranking: Ranking, paired: set[str]) -> tuple[UnsharedLayer, ...]:
    return tuple(
        UnsharedLayer(layer.name, layer.op, layer.rank, layer.reason)
        for layer in ranking.layers
        if layer.name not in paired
    )


def _outputs(first: Ranking, second: Ranking) -> tuple[OutputErrorPair, ...]:
    errors = [
        {output.name: output.error for output in ranking.output_error.outputs}
        for ranking in (first, second)
    ]
    names = dict.fromkeys((*errors[0], *errors[1]))
    return tuple(OutputErrorPair(name, errors[0].get(name), errors[1].get(name)) for name in names)


def _differences(first: Ranking, second: Ranking) -> Iterator[ConditionDifference]:
    for (name, one), (_, other) in zip(_conditions(first), _conditions(second), strict=True):
        if one != other:
            yield ConditionDifference(name, one, other)
    versions = dict(first.conditions.versions), dict(second.conditions.versions)
    for package in sorted({*versions[0], *versions[1]}):
        one, other = (found.get(package, "none") for found in versions)
        if one != other:
            yield ConditionDifference(f"version of {package}", one, other)


def _conditions(ranking: Ranking) -> list[tuple[str, str]]:
    conditions = ranking.conditions
    return [
        ("model", f"{ranking.model.name} ({ranking.model.digest[:_DIGEST_SHOWN]})"),
        ("precision", ranking.precision),
        ("backend", conditions.backend),
        ("impact", conditions.impact),
        ("inputs", conditions.inputs),
        ("samples", str(conditions.sample_count)),
        ("outputs that count", ", ".join(conditions.outputs) or "all"),
    ]


def _warnings(first: Ranking, second: Ranking, pairs: Sequence[Pair]) -> Iterator[str]:
    if are_different(first.model.digest, second.model.digest):
        yield (
            "The rankings are about different models, and layers are compared by their names alone."
        )
    elif first.model.digest != second.model.digest:
        yield (
            "The rankings are from versions with different kinds of digests, so that nothing says "
            "that they are about one model; layers within functions may have other names."
        )
    if not pairs:
        yield "The rankings have no layer in common."
    if first.precision != second.precision:
        yield f"The rankings are about different precisions: {first.precision}, {second.precision}."
    for ranking, which in ((first, "first"), (second, "second")):
        failed = sum(layer.failed for layer in ranking.unmeasured)
        if failed:
            yield f"The {which} ranking is without {count_of(failed, 'layer')} that failed."
