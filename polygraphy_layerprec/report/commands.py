"""The commands that a report tells its reader to run."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.report.next_steps import build_commands
from polygraphy_layerprec.report.ranking_report import Command

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from polygraphy_layerprec.report.next_steps import ShapeRange, TensorRT

__all__ = ["REPORT_OPTIONS", "commands_to_run", "without_options"]

REPORT_OPTIONS: Final = ("-o", "--output", "--save-report", "--save-plot", "--format")
"""Options about reports, which the command for a script goes without."""

_NEW_SCRIPT: Final = "constraints.py"
_FEWER_PAIRS: Final = "fewer_pairs.onnx"


def commands_to_run(
    arguments: Sequence[str],
    model_path: str,
    *,
    script_path: str | None,
    precision: str,
    keeps_any: bool = True,
    installed: Sequence[TensorRT],
    shape_ranges: Mapping[str, ShapeRange] | None = None,
    external_data_dir: str | None = None,
) -> tuple[Command, ...]:
    """Returns the commands from a report to an engine.

    Args:
        arguments: Arguments after `polygraphy layerprec` that select the same layers.
        model_path: The model that was ranked.
        script_path: The script that was saved for it, or None.
        precision: Name of the low precision: `fp16`, `bf16`, or `qdq` of a quantised model.
        keeps_any: Whether any layer is chosen.
        installed: Kinds of TensorRT to build with; all are shown when it is empty.
        shape_ranges: Smallest and largest shape of each input of dynamic shape.
        external_data_dir: Where the model's data files are, if not beside it.
    """
    commands = []
    if precision == "qdq":
        return _commands_for_pairs(arguments, model_path, keeps_any=keeps_any)
    if script_path is None:
        script_path = _NEW_SCRIPT
        words = [*without_options(arguments, REPORT_OPTIONS), "--save-script", script_path]
        line = shlex.join(["polygraphy", "layerprec", *words])
        low = precision.upper()
        does = "keep the chosen layers in FP32" if keeps_any else f"run every layer in {low}"
        commands.append(Command(f"Save a script that has TensorRT {does}:", line))
    builds = build_commands(
        model_path,
        script_path,
        precision=precision,
        installed=installed,
        shape_ranges=shape_ranges,
        external_data_dir=external_data_dir,
    )
    commands += [Command(f"Build an engine with it, {version}:", line) for version, line in builds]
    return tuple(commands)


def _commands_for_pairs(
    arguments: Sequence[str], model_path: str, *, keeps_any: bool
) -> tuple[Command, ...]:
    """From a report on a quantised model to a model with fewer pairs, and an engine of it."""
    words = without_options(arguments, (*REPORT_OPTIONS, "--save-onnx", "--save-exclude"))
    words += ["--save-onnx", _FEWER_PAIRS, "--save-exclude", "exclude.txt"]
    engine = f"{os.path.splitext(os.path.basename(model_path))[0]}.engine"
    if not keeps_any:
        line = shlex.join(["polygraphy", "convert", model_path, "-o", engine])
        return (Command("Build an engine of the model as it is:", line),)
    return (
        Command(
            "Save the model without the pairs of these layers:",
            shlex.join(["polygraphy", "layerprec", *words]),
        ),
        Command(
            "Build an engine of it:",
            shlex.join(["polygraphy", "convert", _FEWER_PAIRS, "-o", engine]),
        ),
    )


def without_options(arguments: Sequence[str], options: Collection[str]) -> list[str]:
    """Returns `arguments` without these options of one value, in either way of writing them."""
    kept = []
    skips = False
    for word in arguments:
        if skips:
            skips = False
        elif word in options:
            skips = True
        elif word.split("=", 1)[0] not in options:
            kept.append(word)
    return kept
