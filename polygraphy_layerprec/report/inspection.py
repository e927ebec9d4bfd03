"""What a ranking or a script says, as lines of text for a terminal."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.columns import printable, shorten, wrap_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import Constraint, NetworkScript, Ranking

__all__ = ["format_constraints", "format_ranking_origin", "format_script"]

_INDENT: Final = "  "
_DIGEST_SHOWN: Final = 16


def format_script(script: NetworkScript, path: str, *, width: int = 80) -> list[str]:
    """Returns what a script asks for as lines of text without control characters.

    Args:
        script: What its literals say.
        path: Where it lies.
        width: Terminal cells in a line.
    """
    outputs = "FP32" if script.io_precision == "fp32" else script.precision.upper()
    strictness = "is a warning" if script.allow_unmatched else "stops the build"
    verify = shlex.join(
        [
            *("polygraphy", "layerprec", "verify", printable(script.model_name) or "model.onnx"),
            *("--script", printable(path), "--load-inputs", "inputs.npz"),
        ]
    )
    lines = [
        *wrap_text("Verdict: none, for a script says nothing of errors. Measure them:", width),
        *wrap_text(verify, width, indent=2 * _INDENT),
        *_format_model(script.model_name, script.model_digest, "", width),
        *wrap_text(
            f"Precision: {script.precision.upper()} | inputs and outputs of the engine in "
            f"{outputs}; a constraint that matches nothing {strictness}",
            width,
        ),
    ]
    return [*lines, *format_constraints(script.constraints, width=width)]


def format_ranking_origin(ranking: Ranking, *, width: int = 80) -> list[str]:
    """Returns which model a ranking is about and how it was measured, as lines of text.

    Args:
        ranking: The ranking.
        width: Terminal cells in a line.
    """
    model, conditions = ranking.model, ranking.conditions
    details = f", {count_of(model.node_count, 'node')}, opset {model.opset}"
    versions = ", ".join(f"{name} {version}" for name, version in conditions.versions)
    samples = count_of(conditions.sample_count, "sample")
    threads = "" if conditions.threads is None else f"; {conditions.threads} threads a session"
    if conditions.device:
        threads = f"; on {printable(conditions.device)}"
    measured = (
        f"Measured: {printable(conditions.backend)}, impact by {conditions.impact}; "
        f"{samples}, {printable(conditions.inputs)}{threads} | "
        f"{printable(versions)}"
    )
    return [
        *_format_model(model.name, model.digest, details, width),
        *wrap_text(f"Precision: {printable(ranking.precision).upper()}", width),
        *wrap_text(measured, width),
    ]


def format_constraints(constraints: Sequence[Constraint], *, width: int = 80) -> list[str]:
    """Returns every constraint with its reason, as lines of text without control characters.

    Args:
        constraints: Layers that stay in FP32.
        width: Terminal cells in a line.
    """
    stay = "stays" if len(constraints) == 1 else "stay"
    lines = [f"Constraints: {count_of(len(constraints), 'layer')} {stay} in FP32"]
    for constraint in constraints:
        name = constraint.name or next((name for name in constraint.outputs if name), "")
        text = (
            f"{shorten(printable(name), 60)} ({shorten(printable(constraint.op), 40)}) | "
            f"{printable(constraint.reason)}"
        )
        lines += wrap_text(text, width, indent=_INDENT)
    return lines


def _format_model(name: str, digest: str, details: str, width: int) -> list[str]:
    shown = printable(digest)[:_DIGEST_SHOWN] or "unknown"
    return wrap_text(
        f"Model: {printable(name) or 'without a name'} | digest {shown}{details}", width
    )
