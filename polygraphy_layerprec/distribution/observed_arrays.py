"""What samples said as arrays of numbers and a record of the rest, and back.

Arrays go to files and between processes. They are taken for hostile: every index is in range, every
number what it should be, before a ranking is made of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from polygraphy_layerprec.distribution.columns import Columns, as_column
from polygraphy_layerprec.divergence.caveats import Caveat
from polygraphy_layerprec.divergence.nonfinite import NonFiniteVisit
from polygraphy_layerprec.divergence.pair_fit import PairFit
from polygraphy_layerprec.divergence.sums import DivergenceSums
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.execution.comparison.observation import ObservedLayer
from polygraphy_layerprec.execution.comparison.output_divergence import ObservedOutput

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.side_by_side import Comparison

__all__ = ["ObservedRecord", "comparison_from", "observed_arrays", "observed_record"]

Arrays = Mapping[str, Any]
CaveatKind = Literal["gain", "quantized", "narrowed", "decides", "output", "few", "unconnected"]

_FIGURES: Final = (
    *("max_abs_input", "largest_sum_of_terms", "flops", "independent_power", "number_count"),
    "largest_integer",
)
_SUMS: Final = dataclasses.fields(DivergenceSums)


@dataclass(frozen=True, slots=True)
class ObservedRecord:
    """What is text, or few."""

    sample_count: int
    """Samples that were run."""

    id_sample_count: int
    """Samples in which ids are not exact."""

    judged: int
    """Elements at which errors were judged."""

    saw_gradient: bool
    """Whether a loss had a gradient in any sample."""

    failures: tuple[tuple[int, int, str], ...]
    """Node index, first sample, and why it could not run."""

    caveats: tuple[tuple[int, CaveatKind, str], ...]
    """Node index, kind and operator."""

    pair_fits: tuple[tuple[str, PairFit], ...] = ()
    """How scales of a quantised model fit, by the pair's name."""


def observed_record(comparison: Comparison) -> ObservedRecord:
    """Returns the part of what samples said that is a record."""
    layers = sorted(comparison.observations.layers.items())
    return ObservedRecord(
        sample_count=comparison.sample_count,
        id_sample_count=comparison.id_sample_count,
        judged=comparison.observations.judged,
        saw_gradient=comparison.observations.saw_gradient,
        failures=tuple(
            (node, sample, reason)
            for node, (sample, reason) in sorted(comparison.first_failures.items())
        ),
        caveats=tuple(
            (node, caveat.kind, caveat.op)
            for node, layer in layers
            for caveat in sorted(layer.caveats)
        ),
        pair_fits=tuple(sorted(comparison.pair_fits.items())),
    )


def observed_arrays(comparison: Comparison) -> dict[str, np.ndarray[Any, Any]]:
    """Returns the part of what samples said that is numbers: arrays by name, none of objects."""
    observed = comparison.observations
    nodes = sorted(observed.layers)
    layers = [observed.layers[node] for node in nodes]
    samples = sorted(observed.samples)
    visits = sorted(observed.first_visits.items())
    arrays = {
        "nodes": as_column(nodes),
        "samples": as_column(samples),
        "powers": np.array(
            [[layer.powers.get(sample, np.nan) for sample in samples] for layer in layers],
            np.float64,
        ).reshape(len(layers), len(samples)),
        "evaluations": as_column(layer.evaluations for layer in layers),
        "flipped": _pairs(observed.flipped_counts.items()),
        "visits": _pairs(((node, sample) for node, (sample, _) in visits)),
        "visit_parents": as_column(
            -1 if visit.parent is None else visit.parent for _, (_, visit) in visits
        ),
        "visit_flags": as_column(
            visit.has_nan + 2 * visit.in_reference for _, (_, visit) in visits
        ),
        "readers": _pairs(
            (node, reader)
            for node, layer in zip(nodes, layers, strict=True)
            for reader in sorted(layer.readers)
        ),
        "reader_shares": as_column(
            (layer.readers[reader] for layer in layers for reader in sorted(layer.readers)),
            np.float64,
        ),
    }
    for name, members in _node_sets(comparison).items():
        arrays[name] = as_column(sorted(members))
    for name in _FIGURES:
        arrays[name] = as_column((getattr(layer, name) for layer in layers), np.float64)
    for field in _SUMS:
        values = (getattr(layer.sums, field.name) for layer in layers)
        arrays[f"sums.{field.name}"] = as_column(values, _type_of(field))
    for place, output in enumerate(comparison.outputs.observed):
        arrays |= _output_arrays(place, output)
    return arrays


def comparison_from(
    record: ObservedRecord, arrays: Arrays, nothing: Comparison, *, node_count: int
) -> Comparison:
    """Returns what samples said, but for the samples that are kept.

    Args:
        record: As `observed_record` gives it.
        arrays: As `observed_arrays` gives them, in memory or in a file.
        nothing: What no sample says of the same model and outputs; it is filled.
        node_count: Nodes of the whole model.

    Raises:
        UserError: If anything is missing, of the wrong type or size, or no such number can be.
    """
    columns = Columns(arrays)
    observed = nothing.observations
    nodes = columns.indices("nodes", below=node_count)
    samples = columns.indices("samples")
    observed.layers = _layers(columns, nodes, samples)
    observed.samples = set(samples)
    observed.judged = _count("judged", record.judged)
    observed.saw_gradient = record.saw_gradient
    observed.flipped_counts = dict(columns.pairs("flipped", below=node_count))
    observed.first_visits = _visits(columns, node_count)
    observed.harmful = set(columns.indices("harmful", below=node_count))
    for name, members in _node_sets(nothing).items():
        members.update(columns.indices(name, below=node_count))
    nothing.sample_count = _count("sample_count", record.sample_count)
    nothing.id_sample_count = _count("id_sample_count", record.id_sample_count)
    for node, sample, reason in record.failures:
        _check_index("failures", node, node_count)
        nothing.first_failures[node] = (_count("failures", sample), reason)
    for node, kind, op in record.caveats:
        if node not in observed.layers:
            raise UserError(f"caveats name the node {node}, which was not measured")
        observed.layers[node].caveats.add(Caveat(kind, op))
    for name, fit in record.pair_fits:
        nothing.pair_fits[name] = _checked_fit(name, fit)
    for place, output in enumerate(nothing.outputs.observed):
        _fill_output(output, columns, place)
    return nothing


def _checked_fit(name: str, fit: PairFit) -> PairFit:
    numbers = [getattr(fit, field.name) for field in dataclasses.fields(PairFit)]
    flat = [x for number in numbers for x in (number if isinstance(number, tuple) else (number,))]
    if any(not 0.0 <= x < float("inf") for x in flat) or not fit.largest_step:
        raise UserError(f"the fit of the pair {name!r:.60} has a number that cannot be")
    return fit


def _node_sets(comparison: Comparison) -> dict[str, set[int]]:
    return {
        "harmful": comparison.observations.harmful,
        "nonfinite_from": comparison.nonfinite_from,
        "ran": comparison.ran,
        "flips": comparison.flips,
        "lowered_already": comparison.lowered_already,
    }


def _layers(
    columns: Columns, nodes: Sequence[int], samples: Sequence[int]
) -> dict[int, ObservedLayer]:
    count = len(nodes)
    powers = columns.table("powers", count, len(samples))
    evaluations = columns.counts("evaluations", count)
    figures: dict[str, list[Any]] = {
        name: columns.figures(name, count, may_be_infinite=name == "number_count")
        for name in _FIGURES
    }
    sums: dict[str, list[Any]] = {
        field.name: columns.counts(f"sums.{field.name}", count)
        if _type_of(field) is np.int64
        else columns.figures(f"sums.{field.name}", count, may_be_infinite=True)
        for field in _SUMS
    }
    layers = {
        node: ObservedLayer(
            sums=DivergenceSums(**{name: values[place] for name, values in sums.items()}),
            evaluations=evaluations[place],
            powers={
                sample: power
                for sample, power in zip(samples, powers[place], strict=True)
                if power == power  # noqa: PLR0124 - NaN where it did not run
            },
            **{name: values[place] for name, values in figures.items()},
        )
        for place, node in enumerate(nodes)
    }
    pairs = columns.pairs("readers")
    shares = columns.figures("reader_shares", len(pairs))
    for (node, reader), share in zip(pairs, shares, strict=True):
        if node not in layers or reader not in layers:
            raise UserError(f"readers name the nodes {node} and {reader}, not both measured")
        layers[node].readers[reader] = share
    return layers


def _visits(columns: Columns, node_count: int) -> dict[int, tuple[int, NonFiniteVisit]]:
    pairs = columns.pairs("visits", below=node_count)
    parents = columns.integers("visit_parents", len(pairs))
    flags = columns.counts("visit_flags", len(pairs))
    visits = {}
    for (node, sample), parent, flag in zip(pairs, parents, flags, strict=True):
        if not -1 <= parent < node:  # a way back to itself has no end
            raise UserError(f"visit_parents leads from the node {node} to {parent}")
        visit = NonFiniteVisit(
            None if parent < 0 else parent, has_nan=bool(flag & 1), in_reference=bool(flag & 2)
        )
        visits[node] = (sample, visit)
    return visits


def _output_arrays(place: int, output: ObservedOutput) -> dict[str, np.ndarray[Any, Any]]:
    return {
        f"output{place}.squared_errors": as_column(output.squared_errors, np.float64),
        f"output{place}.max_abs_error": as_column([output.max_abs_error], np.float64),
        f"output{place}.counts": as_column(
            [
                *(output.nonfinite_count, output.mismatches, output.elements),
                *(output.comparable, output.is_floating),
            ]
        ),
    }


def _fill_output(output: ObservedOutput, columns: Columns, place: int) -> None:
    output.squared_errors = columns.figures(
        f"output{place}.squared_errors", None, may_be_infinite=True
    )
    (output.max_abs_error,) = columns.figures(
        f"output{place}.max_abs_error", 1, may_be_infinite=True
    )
    counts = columns.counts(f"output{place}.counts", 5)
    output.nonfinite_count, output.mismatches, output.elements = counts[:3]
    output.comparable, output.is_floating = map(bool, counts[3:])


def _pairs(pairs: Iterable[tuple[int, int]]) -> np.ndarray[Any, Any]:
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _type_of(field: dataclasses.Field[Any]) -> type[np.generic]:
    return np.int64 if field.type == "int" else np.float64


def _count(name: str, value: int) -> int:
    if value < 0:
        raise UserError(f"{name} must not be negative, got {value}")
    return value


def _check_index(name: str, index: int, below: int) -> None:
    if not 0 <= index < below:
        raise UserError(f"{name} names the node {index}, the model has {below}")
