"""Emitters of text files: each entry of `TEXT_EMITTERS` is an option of `rank` and `constrain`.

Every `polygraphy` command imports this module for its options: nothing heavy here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polygraphy_layerprec.emit.command_arguments import (
    render_autocast_arguments,
    render_exclusions,
    render_layer_precisions,
)

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Constraint

__all__ = ["TEXT_EMITTERS", "TextEmitter"]


@dataclass(frozen=True, slots=True)
class TextEmitter:
    """Writes the layers that stay in FP32 for one tool to read."""

    option: str
    """The option that takes the path, for example `--save-layer-precisions`."""

    help: str
    """Its help text, whole sentences."""

    render: Callable[[Sequence[Constraint]], str]
    """Returns the text of the file; the same constraints give the same text."""

    tells_layers_by_name: bool = True
    """Whether layers without a name are left out, which the user is then told."""

    of_pairs: bool = False
    """Whether it is about the layers of a quantised model, and not about precisions."""


TEXT_EMITTERS: tuple[TextEmitter, ...] = (
    TextEmitter(
        "--save-layer-precisions",
        "Path to save arguments for Polygraphy's `--layer-precisions`, for TensorRT up to 10. "
        "For example: --save-layer-precisions precisions.txt.",
        render_layer_precisions,
    ),
    TextEmitter(
        "--save-autocast-args",
        "Path to save arguments for ModelOpt AutoCast. "
        "For example: --save-autocast-args autocast.txt.",
        render_autocast_arguments,
    ),
    TextEmitter(
        "--save-exclude",
        "With `--precision qdq`: path to save the arguments for `python -m "
        "modelopt.onnx.quantization` that leave the selected layers out of quantisation. "
        "For example: --save-exclude exclude.txt.",
        render_exclusions,
        of_pairs=True,
    ),
)
"""All of them, in the order of the help."""
