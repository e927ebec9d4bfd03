"""What the layers of a model obtained in an engine, as lines of text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.columns import Column, align_columns, wrap_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import (
        LayerPrecision,
        ObtainedPrecision,
        ObtainedPrecisions,
        Verification,
    )

__all__ = ["describe_obtained", "format_all_layers", "format_obtained", "summarize_obtained"]

_INDENT: Final = "  "
_LAYERS_SHOWN: Final = 5
_WORST_FIRST: Final = ("low", "absent", "fused", "fp32")


def format_obtained(obtained: ObtainedPrecisions | None, low: str, *, width: int) -> list[str]:
    """Returns how many layers obtained what was asked, and a table of those that did not.

    Args:
        obtained: What became of them; None if the engine does not tell.
        low: Name of the low precision, as it is shown: `FP16`.
        width: Terminal cells in a line.
    """
    if obtained is None:
        return wrap_text("Obtained: the engine does not tell the precision of its layers", width)
    lines = wrap_text(f"Obtained: {summarize_obtained(obtained, low)}", width)
    failures = sorted(obtained.failures, key=_badness)
    lines += _table(failures[:_LAYERS_SHOWN], low, width)
    if len(failures) > _LAYERS_SHOWN:
        lines.append(f"{_INDENT}and {len(failures) - _LAYERS_SHOWN} more")
    return lines


def format_all_layers(verification: Verification, *, width: int) -> list[str]:
    """Returns a table of every layer of the constrained engine, worst first; empty without one.

    Args:
        verification: What was measured.
        width: Terminal cells in a line.
    """
    low = verification.precision.upper()
    return [
        line
        for engine in verification.engines
        if engine.obtained is not None and engine.obtained.layers
        for line in _table(sorted(engine.obtained.layers, key=_badness), low, width)
    ]


def summarize_obtained(obtained: ObtainedPrecisions, low: str) -> str:
    """Returns how many layers obtained what was asked, in words.

    Args:
        obtained: What became of them.
        low: Name of the low precision, as it is shown: `FP16`.
    """
    kept, failed = len(obtained.kept), len(obtained.failures)
    verb = "is" if kept == 1 else "are"
    layers = count_of(kept, "layer")
    text = f"{obtained.count_kept('fp32')} of {layers} asked for {verb} in FP32"
    counts = {
        f"in {low}": failed,
        "inside fused kernels, which do not tell": obtained.count_kept("fused"),
        "folded or not to be seen": obtained.count_kept("absent"),
    }
    text += "".join(f", {count} {what}" for what, count in counts.items() if count)
    lowered = len(obtained.layers) - kept
    if not obtained.not_lowered:
        return text
    return f"{text}; {len(obtained.not_lowered)} of {lowered} to be lowered are in FP32"


def describe_obtained(obtained: ObtainedPrecision, low: str) -> str:
    """Returns what one layer obtained, in a few words."""
    words = {"fp32": "FP32", "low": low, "fused": "inside a fused kernel", "absent": "folded"}
    return words[obtained]


def _badness(layer: LayerPrecision) -> tuple[bool, bool, int]:
    return (not layer.is_failure, layer.asked == "low", _WORST_FIRST.index(layer.obtained))


def _table(layers: Sequence[LayerPrecision], low: str, width: int) -> list[str]:
    if not layers:
        return []
    columns = [
        Column("Layer", tuple(layer.name for layer in layers), minimum=12),
        Column("Op", tuple(layer.op for layer in layers), minimum=6, cut="end"),
        Column("Asked", tuple("FP32" if x.asked == "fp32" else low for x in layers)),
        Column("Obtained", tuple(describe_obtained(x.obtained, low) for x in layers)),
        Column("Types", tuple(layer.types for layer in layers), minimum=8, cut="end"),
        Column("Kernel", tuple(", ".join(x.kernels) for x in layers), minimum=8),
    ]
    return [_INDENT + line for line in align_columns(columns, width=width - len(_INDENT), gap=1)]
