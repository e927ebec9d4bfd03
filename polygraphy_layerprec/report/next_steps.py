"""What to do after a ranking, as commands to copy into a shell."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "ShapeRange",
    "TensorRT",
    "build_commands",
    "format_build_commands",
    "format_script_command",
    "installed_tensorrt",
]

TensorRT = Literal["weakly typed", "strongly typed", "inherently typed", "rtx"]
"""How a TensorRT learns the precision of a layer: from constraints and builder flags (8.6 - 10.x),
from the types of a network that asks for it (10.x), or from the types always (11.x and RTX)."""

ShapeRange = tuple[tuple[int, ...], tuple[int, ...]]
"""Smallest and largest extent of each axis."""

_ALL: Final[tuple[TensorRT, ...]] = (
    "weakly typed",
    "strongly typed",
    "inherently typed",
    "rtx",
)

_TYPED_BY_TENSORS: Final[frozenset[TensorRT]] = frozenset({"inherently typed", "rtx"})

_VERSIONS: Final[dict[TensorRT, str]] = {
    "weakly typed": "TensorRT 8.6 - 10.x",
    "strongly typed": "TensorRT 10.x, strongly typed",
    "inherently typed": "TensorRT 11 or newer",
    "rtx": "TensorRT-RTX",
}


def installed_tensorrt(
    version_of: Callable[[str], str] = importlib.metadata.version,
) -> tuple[TensorRT, ...]:
    """Returns the kinds of TensorRT that are installed, without importing them; maybe none.

    Args:
        version_of: Returns the version of an installed distribution, or raises
            `importlib.metadata.PackageNotFoundError`.
    """
    kinds: list[TensorRT] = []
    major = _major_version("tensorrt", version_of)
    if major is not None and major <= 10:
        kinds.append("weakly typed")
    if major == 10:
        kinds.append("strongly typed")
    if major is not None and major > 10:
        kinds.append("inherently typed")
    if _major_version("tensorrt_rtx", version_of) is not None:
        kinds.append("rtx")
    return tuple(kinds)


def format_build_commands(
    model_path: str,
    script_path: str,
    *,
    precision: str,
    installed: Sequence[TensorRT],
    kept: tuple[int, int] | None = None,
    shape_ranges: Mapping[str, ShapeRange] | None = None,
    external_data_dir: str | None = None,
) -> list[str]:
    """Returns lines with a command that builds an engine, one for each kind of TensorRT.

    Args:
        model_path: The model that was ranked.
        script_path: The script that was saved for it.
        precision: Name of the low precision: `fp16` or `bf16`.
        installed: Kinds of TensorRT to build with; all are shown when it is empty.
        kept: How many layers stay in FP32, and of how many.
        shape_ranges: Smallest and largest shape of each input of dynamic shape; None where no
            sample says.
        external_data_dir: Where the model's data files are, if not beside it.
    """
    lines = [f"Next: build {_engine(precision, kept)}"]
    for version, command in build_commands(
        model_path,
        script_path,
        precision=precision,
        installed=installed,
        shape_ranges=shape_ranges,
        external_data_dir=external_data_dir,
    ):
        lines += [f"    {version}:", f"      {command}"]
    if shape_ranges and all(low == high for low, high in shape_ranges.values()):
        lines.append("    The profile is the one shape of your samples: widen it for others.")
    if shape_ranges is None:
        lines.append(
            "    Inputs of dynamic shape need a profile: add `--trt-min-shapes` and so on."
        )
    if not _TYPED_BY_TENSORS.isdisjoint(installed or _ALL):
        lines.append(
            f"    On TensorRT 11 and RTX, `--{precision}` builds an FP32 engine without a word."
        )
    return lines


def build_commands(
    model_path: str,
    script_path: str,
    *,
    precision: str,
    installed: Sequence[TensorRT],
    shape_ranges: Mapping[str, ShapeRange] | None = None,
    external_data_dir: str | None = None,
) -> list[tuple[str, str]]:
    """Returns the command that builds an engine, and before it for which TensorRT it is.

    Args:
        model_path: As in `format_build_commands`.
        script_path: As in `format_build_commands`.
        precision: As in `format_build_commands`.
        installed: As in `format_build_commands`.
        shape_ranges: As in `format_build_commands`.
        external_data_dir: As in `format_build_commands`.
    """
    model_path, script_path = _no_option(_from_here(model_path)), _no_option(script_path)
    engine_path = os.path.splitext(model_path)[0] + ".engine"
    base = ["polygraphy", "convert", model_path, "-o", engine_path]
    if external_data_dir is not None:
        base += ["--external-data-dir", _no_option(external_data_dir)]
    commands = []
    for kind in installed or _ALL:
        prefix = "POLYGRAPHY_USE_TENSORRT_RTX=1 " if kind == "rtx" else ""
        flags = [*_flags(kind, precision), *_profile(shape_ranges or {})]
        scripts = ["--trt-npps", script_path]
        if kind == "rtx":  # where TF32 is on by default, which the same file switches off
            scripts += ["--trt-cpps", script_path]
        command = shlex.join([*base, *flags, *scripts])
        commands.append((_VERSIONS[kind], f"{prefix}{command}"))
    return commands


def format_script_command(arguments: Sequence[str], *, precision: str = "fp16") -> list[str]:
    """Returns lines with the command that was run, and the option that saves a script added.

    For the pairs of a quantised model, `qdq`, the option that saves it with fewer of them.
    """
    if precision == "qdq":
        words = [*arguments, "--save-onnx", "fewer_pairs.onnx", "--save-exclude", "exclude.txt"]
        return [
            "Next: save the model without the pairs of these layers, and what to exclude",
            f"      {shlex.join(['polygraphy', 'layerprec', *words])}",
        ]
    command = shlex.join(["polygraphy", "layerprec", *arguments, "--save-script", "constraints.py"])
    return [
        "Next: save a script that keeps the chosen layers in FP32 in an engine",
        f"      {command}",
    ]


def _engine(precision: str, kept: tuple[int, int] | None) -> str:
    """What is built, in words."""
    if kept is not None and not kept[0]:
        return f"an engine in {precision.upper()}: no layer has to stay in FP32"
    if kept is not None and kept[0] == kept[1]:
        return "an FP32 engine: every layer stays in FP32"
    return "an engine that keeps the chosen layers in FP32"


def _from_here(path: str) -> str:
    """Returns a path within the current folder without that folder, as it was probably typed."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here) or path


def _no_option(path: str) -> str:
    """Returns a path that is not taken for an option."""
    return os.path.join(os.curdir, path) if path.startswith("-") else path


def _flags(kind: TensorRT, precision: str) -> list[str]:
    if kind == "weakly typed":
        return [f"--{precision}", "--precision-constraints", "obey"]
    if kind == "strongly typed":
        return ["--strongly-typed"]
    return []


def _profile(shape_ranges: Mapping[str, ShapeRange]) -> list[str]:
    """Returns the options without which an engine for dynamic shapes takes 1 on every axis."""
    options = []
    for which, end in (("min", 0), ("opt", 1), ("max", 1)) if shape_ranges else ():
        options.append(f"--trt-{which}-shapes")
        for name, shapes in shape_ranges.items():
            # What starts like an option and holds a space is none.
            space = " " * name.startswith("-")
            options.append(f"{name}:{space}[{','.join(map(str, shapes[end]))}]")
    return options


def _major_version(distribution: str, version_of: Callable[[str], str]) -> int | None:
    try:
        version = version_of(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    number = re.match(r"\d+", version)
    return int(number.group()) if number else None
