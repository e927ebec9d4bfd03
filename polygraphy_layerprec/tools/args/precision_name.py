"""Precisions on the command line: all that the library knows, as people write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from polygraphy_layerprec._native import G_LOGGER

__all__ = ["read_precision_name"]

_OTHER_NAMES: Final = {"float16": "fp16", "half": "fp16", "bfloat16": "bf16"}
"""What PyTorch, numpy and ONNX call them."""


def read_precision_name(name: str, *, option: str, also: Sequence[str] = ()) -> str:
    """Returns the library's name of a precision, or stops if there is none that is called `name`.

    Not `choices` of the option: these would load numpy for every `polygraphy` command.

    Args:
        name: As the user wrote it.
        option: The option, for messages.
        also: Names that it takes beside those of float formats.
    """
    from polygraphy_layerprec.precision import PRECISIONS

    known = _OTHER_NAMES.get(name.lower(), name.lower())
    if known not in {*PRECISIONS, *also}:
        names = ", ".join((*PRECISIONS, *also))
        G_LOGGER.critical(f"`{option}` must be one of {names}, got: {name!r}.")
    return known
