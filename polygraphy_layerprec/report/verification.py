"""A verification as lines of text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.columns import (
    Column,
    align_columns,
    printable,
    wrap_text,
)
from polygraphy_layerprec.report.obtained_precisions import format_obtained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import (
        EngineMeasurement,
        Outcome,
        OutputDivergence,
        Verification,
        VerifiedOutput,
    )

__all__ = ["format_verdict", "format_verification", "rows_of_criteria"]

_INDENT: Final = "  "
_OUTPUTS_SHOWN: Final = 8
_BACKENDS: Final = {
    "onnxruntime-emulated": "emulated with ONNX-Runtime",
    "tensorrt": "on TensorRT engines",
}
_FP32_TITLES: Final = {"onnxruntime-emulated": "FP32 on ORT", "tensorrt": "FP32 on TRT"}
# Infinities count as the largest finite number when they are measured.
_INFINITE_ERROR: Final = 1e30


def format_verification(verification: Verification, *, width: int = 80) -> list[str]:
    """Returns what was measured as lines of text without control characters.

    Args:
        verification: What was measured.
        width: Terminal cells in a line; lines fit from 72 on.
    """
    return [
        *_format_head(verification, width),
        *_format_outputs(verification, width),
        *_format_engines(verification, width),
    ]


def format_verdict(verification: Verification, *, width: int = 80) -> list[str]:
    """Returns whether it passes, and why not, as lines of text without control characters.

    Args:
        verification: What was measured.
        width: Terminal cells in a line.
    """
    if not verification.passed:
        lines = wrap_text(f"FAILED: {printable(verification.failures[0])}", width)
        for failure in verification.failures[1:]:
            lines += wrap_text(f"and {printable(failure)}", width, indent=_INDENT)
        return lines
    text = "the outputs are equal"
    if verification.outcome is not None:
        text = verification.outcome.headline.text
    return wrap_text(f"PASSED: {printable(text)}", width)


def rows_of_criteria(verification: Verification) -> list[tuple[str, ...]]:
    """Returns titles, and a row for each criterion; titles alone where nothing was judged."""
    low = f"All {verification.precision.upper()}"
    rows: list[tuple[str, ...]] = [("Criterion", low, "Constrained", "Result")]
    if verification.outcome is None:
        return rows
    lowered = {} if verification.lowered is None else _numbers(verification.lowered)
    for judgement in verification.outcome.judgements:
        text = judgement.criterion.text
        met = "met" if judgement.passed else "not met"
        rows.append((text, lowered.get(text, "-"), judgement.number, met))
    return rows


def _numbers(outcome: Outcome) -> dict[str, str]:
    return {judgement.criterion.text: judgement.number for judgement in outcome.judgements}


def _format_head(verification: Verification, width: int) -> list[str]:
    samples = count_of(verification.sample_count, "sample")
    head = (
        f"Verification: {printable(verification.model.name) or 'model'} | "
        f"{verification.precision.upper()} {_BACKENDS[verification.backend]}; {samples}"
    )
    asked = "Asked: no constraints were given, so every layer is lowered"
    if verification.source:
        asked = (
            f"Asked: {verification.kept_count} of {count_of(verification.layer_count, 'layer')} "
            f"{'stays' if verification.layer_count == 1 else 'stay'} in FP32 | "
            f"{printable(verification.source)}{_counts(verification)}"
        )
    return [*wrap_text(head, width), *wrap_text(asked, width)]


def _counts(verification: Verification) -> str:
    if verification.pair_count is not None:
        gone = "is" if verification.pair_count == 1 else "are"
        return f"; {count_of(verification.pair_count, 'pair')} {gone} removed"
    if verification.node_count is None:
        return ""
    casts = count_of(verification.cast_count or 0, "tensor")
    verb = "is" if verification.cast_count == 1 else "are"
    return (
        f"; {count_of(verification.node_count, 'node')} with what moves values, {casts} {verb} cast"
    )


def _format_outputs(verification: Verification, width: int) -> list[str]:
    rows = _rows_shown(verification.outputs)
    low = f"All {verification.precision.upper()}"
    total = _Total(verification)
    title = "RMS relative L2 error of each output, over all samples"
    columns = [
        Column("Output", (*(row.name for row in rows), "(all)"), minimum=10),
        Column(
            _FP32_TITLES[verification.backend],
            (*(_divergence(row.fp32) for row in rows), total.fp32),
            "right",
        ),
        Column(low, (*(_divergence(row.lowered) for row in rows), total.lowered), "right"),
        Column(
            "Constrained",
            (*(_divergence(row.constrained) for row in rows), total.constrained),
            "right",
        ),
        Column("Recovered", (*(_percent(row.recovered) for row in rows), total.recovered), "right"),
        Column("NaN/Inf", (*map(_nonfinite, rows), total.nonfinite), "right"),
        Column("Unequal", (*map(_unequal, rows), ""), "right"),
    ]
    table = align_columns(columns, width=width - len(_INDENT), gap=1)
    left_out = len(verification.outputs) - len(rows)
    if left_out:
        table.append(f"and {count_of(left_out, 'output')} with smaller errors: a report lists them")
    return [*wrap_text(title, width), *(_INDENT + line for line in table)]


def _rows_shown(rows: Sequence[VerifiedOutput]) -> list[VerifiedOutput]:
    """The outputs with the largest errors, as they stand."""
    if len(rows) <= _OUTPUTS_SHOWN:
        return list(rows)
    places = sorted(range(len(rows)), key=lambda place: _trouble(rows[place]), reverse=True)
    return [rows[place] for place in sorted(places[:_OUTPUTS_SHOWN])]


def _trouble(row: VerifiedOutput) -> tuple[int, float, float]:
    """What is worse compares greater."""
    after, before = row.constrained, row.lowered
    if after is None:
        return (0, 0.0, 0.0)
    return (
        after.nonfinite_count,
        max(after.error or 0.0, after.mismatch_fraction or 0.0),
        0.0 if before is None else before.error or 0.0,
    )


class _Total:
    """The last row of the table: all outputs together."""

    def __init__(self, verification: Verification) -> None:
        self.fp32 = _error(verification.fp32_error)
        self.lowered = _error(verification.lowered_error)
        self.constrained = _error(verification.constrained_error)
        self.recovered = _percent(verification.recovered)
        counts = [
            row.constrained.nonfinite_count for row in verification.outputs if row.constrained
        ]
        self.nonfinite = str(sum(counts)) if counts else "-"


def _format_engines(verification: Verification, width: int) -> list[str]:
    engines = verification.engines
    if not engines:
        return []
    columns = [
        Column("Engine", tuple(engine.name for engine in engines)),
        Column("Size", tuple(f"{e.size_bytes / 2**20:.1f} MiB" for e in engines), "right"),
        Column("Latency", tuple(map(_latency, engines)), "right"),
        Column("Low tensors", tuple(map(_low_tensors, engines)), "right"),
    ]
    was_run = any(engine.latency_seconds is not None for engine in engines)
    told = "median latency, copies to and from the GPU included" if was_run else "built, not run"
    lines = [f"Engines: {told}"]
    lines += [_INDENT + line for line in align_columns(columns, width=width - len(_INDENT))]
    low = verification.precision.upper()
    for engine in engines:
        if engine.name == "constrained":
            lines += format_obtained(engine.obtained, low, width=width)
    return lines


def _latency(engine: EngineMeasurement) -> str:
    return "-" if engine.latency_seconds is None else f"{1e3 * engine.latency_seconds:.3f} ms"


def _low_tensors(engine: EngineMeasurement) -> str:
    return _percent(None if engine.obtained is None else engine.obtained.low_tensor_fraction)


def _nonfinite(row: VerifiedOutput) -> str:
    return "-" if row.constrained is None else str(row.constrained.nonfinite_count)


def _unequal(row: VerifiedOutput) -> str:
    return _percent(None if row.constrained is None else row.constrained.mismatch_fraction)


def _divergence(divergence: OutputDivergence | None) -> str:
    return _error(None if divergence is None else divergence.error)


def _error(value: float | None) -> str:
    if value is None:
        return "-"
    return "inf" if value > _INFINITE_ERROR else f"{value:.1e}"


def _percent(fraction: float | None) -> str:
    if fraction is None:
        return "-"
    return f"{100 * fraction:.1f}%" if abs(fraction) < 100 else "worse"
