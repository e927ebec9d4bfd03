"""The flow of a ranking on engines: outputs first, then chunk by chunk, then layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.backend.engines.marking import halve
from polygraphy_layerprec.backend.engines.specs import EngineError
from polygraphy_layerprec.backend.engines.verification import AGREEMENT_LIMIT
from polygraphy_layerprec.matching.tensor_matching import name_some
from polygraphy_layerprec.records.numbers import count_of

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engines.comparisons import (
        EngineComparisons,
        MarkedResult,
        OutputsResult,
    )
    from polygraphy_layerprec.backend.engines.marking import MarkedLayer, MarkingPlan
    from polygraphy_layerprec.execution.comparison.side_by_side import Progress
    from polygraphy_layerprec.execution.comparison.tensor_comparison import TensorComparison

__all__ = ["MARKING_LIMIT", "EngineFindings", "compare_on_engines", "measure_impacts"]

MARKING_LIMIT: Final = 2.0
"""Ratio of the output errors with and without marks up to which the two agree. FP16 noise is
chaotic: another order of summation moves an output by most of its error, so less says nothing."""


@dataclass(slots=True)
class EngineFindings:
    """What the engines said."""

    comparison: TensorComparison
    """The marked tensors, and the outputs of the engines without marks."""

    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Layers that could not be measured, each with the reason."""

    warnings: list[str] = field(default_factory=list)
    """What the reader must know, in words."""


def compare_on_engines(
    engines: EngineComparisons,
    plan: MarkingPlan | None,
    *,
    progress: Progress | None = None,
) -> EngineFindings:
    """Returns how far the tensors of the lowered engines are from those of the reference engines.

    A chunk that cannot be built or run is halved until what is left can be; a layer that fails by
    itself is skipped.

    Args:
        engines: What is compared.
        plan: What to mark; None to take the debug tensors that are not fused away.
        progress: Called with pairs of engines done, in all, and what is going on.

    Raises:
        EngineError: If the engines without marks cannot be built or run.
    """
    report = progress or (lambda *_: None)
    chunks = [()] if plan is None else list(plan.chunks)
    report(0, 1 + len(chunks), "pairs of engines")
    outputs = engines.compare_outputs()
    findings = EngineFindings(outputs.lowered, warnings=_reference_warnings(engines, outputs))
    findings.skipped += plan.skipped if plan is not None else ()
    results = []
    for done, chunk in enumerate(chunks, start=1):
        report(done, 1 + len(chunks), "pairs of engines")
        if plan is None:
            results.append(_with_debug_tensors(engines))
        else:
            results += _compare_chunk(engines, chunk, findings.skipped)
    report(1 + len(chunks), 1 + len(chunks), "pairs of engines")
    findings.warnings += _marking_warnings(engines, results, outputs)
    findings.warnings += _skipped_warnings(findings.skipped)
    for result in results:
        findings.comparison.merge(result.tensors)
    return findings


def measure_impacts(
    engines: EngineComparisons,
    outputs: Sequence[str],
    *,
    progress: Progress | None = None,
) -> tuple[dict[str, float], list[str]]:
    """Returns the output error that each layer causes when it alone is lowered, and warnings.

    Args:
        engines: What is compared.
        outputs: The first output tensor of each layer, by which the errors go.
        progress: Called with layers done, in all, and what is going on.
    """
    impacts: dict[str, float] = {}
    warnings = []
    for done, output in enumerate(outputs, start=1):
        try:
            impacts[output] = engines.measure_impact(output)
        except EngineError as failure:
            warnings.append(
                f"The impact of the layer that makes {output!r} is the emulated one: "
                f"{_first_line(failure)}"
            )
        if progress is not None:
            progress(done, len(outputs), "engines with one layer lowered")
    if impacts:
        warnings.append(
            f"{len(impacts)} impacts were measured on engines with one layer lowered. They hold "
            f"the rounding of its inputs, which other impacts count with the layer before."
        )
    return impacts, warnings


def _with_debug_tensors(engines: EngineComparisons) -> MarkedResult:
    try:
        return engines.compare_marked(with_debug_tensors=True)
    except EngineError as failure:
        raise EngineError(
            f"{failure}\nLeave out `--mark-unfused-tensors-as-debug-tensors` to mark outputs."
        ) from failure


def _compare_chunk(
    engines: EngineComparisons, chunk: Sequence[MarkedLayer], skipped: list[tuple[str, str]]
) -> list[MarkedResult]:
    try:
        return [engines.compare_marked([name for layer in chunk for name in layer.tensors])]
    except EngineError as failure:
        if len(chunk) == 1:
            skipped.append((chunk[0].name, _first_line(failure)))
            return []
    # Too much at once for the memory, or one of them cannot be an output: halves tell.
    first, second = halve(chunk)
    found = _compare_chunk(engines, first, skipped)
    return found + _compare_chunk(engines, second, skipped)


def _reference_warnings(engines: EngineComparisons, outputs: OutputsResult) -> list[str]:
    error = engines.output_error(outputs.reference)
    if error <= AGREEMENT_LIMIT:
        return []
    text = (
        f"FP32 on TensorRT does not agree with FP32 on ONNX-Runtime: their outputs differ by "
        f"{error:.3g}, more than {AGREEMENT_LIMIT:.3g}. Precision is not to blame for that."
    )
    return [text]


def _marking_warnings(
    engines: EngineComparisons, results: Sequence[MarkedResult], outputs: OutputsResult
) -> list[str]:
    """Of engines with marks that are not like those without, so that they mislead."""
    warnings = []
    unmarked_error = engines.output_error(outputs.lowered)
    drifts = [engines.output_error(result.reference_drift) for result in results]
    if max(drifts, default=0.0) > AGREEMENT_LIMIT:
        warnings.append(
            f"Marking tensors changes the reference engine: its outputs move by up to "
            f"{max(drifts):.3g}, more than {AGREEMENT_LIMIT:.3g}."
        )
    errors = [engines.output_error(result.outputs) for result in results]
    apart = [error for error in errors if not _agree(error, unmarked_error)]
    if apart:
        worst = max(apart, key=lambda error: abs(error - unmarked_error))
        warnings.append(
            f"Marking tensors changes the lowered engine: its output error is {worst:.3g} with "
            f"marks and {unmarked_error:.3g} without, more than {MARKING_LIMIT:g}x apart. Marks "
            f"prevent fusion: the cumulative errors are those of another engine than is deployed."
        )
    return warnings


def _agree(first: float, second: float) -> bool:
    low, high = sorted((first, second))
    return high <= MARKING_LIMIT * low or high <= AGREEMENT_LIMIT / MARKING_LIMIT


def _skipped_warnings(skipped: Sequence[tuple[str, str]]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in skipped:
        by_reason.setdefault(reason, []).append(name)
    return [
        f"{count_of(len(names), 'layer')} {'was' if len(names) == 1 else 'were'} not marked, "
        f"{name_some(names)}: {reason}."
        for reason, names in by_reason.items()
    ]


def _first_line(failure: EngineError) -> str:
    return str(failure).splitlines()[0].rstrip(".")
