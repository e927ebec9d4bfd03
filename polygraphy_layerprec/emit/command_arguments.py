"""The chosen layers as arguments for tools that pick precisions themselves."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Constraint

__all__ = [
    "render_autocast_arguments",
    "render_exclusions",
    "render_layer_precisions",
    "unnamed_constraints",
]

_SHORT_OPTIONS = ("-h", "-o", "-q", "-v")
"""Those of `polygraphy convert` and `polygraphy run`, to which a value may be joined."""


def render_layer_precisions(constraints: Sequence[Constraint]) -> str:
    """Returns one shell line: `--layer-precisions` of Polygraphy, for TensorRT up to 10.

    TensorRT's layers are called like the nodes of the model, so nodes without a name are left out.
    """
    # What starts like an option and holds a space is none, and Polygraphy strips the value.
    values = [f"{name}:{' ' * name.startswith('-')}float32" for name in _names(constraints)]
    option = ["--layer-precisions", *values] if values else []  # it takes at least one value
    return _line(["--precision-constraints", "obey", *option])


def render_autocast_arguments(constraints: Sequence[Constraint]) -> str:
    """Returns one shell line: arguments of ModelOpt AutoCast that keep these nodes, and no others.

    AutoCast matches names with regular expressions from the start, so these are anchored; an
    infinite `--data_max` turns off its own rule by magnitude.
    """
    # Not `$`, which matches before a line break as well.
    patterns = [rf"^{re.escape(name)}\Z" for name in _names(constraints)]
    option = ["--nodes_to_exclude", *patterns] if patterns else []
    return _line(["--data_max", "inf", *option])


def render_exclusions(constraints: Sequence[Constraint]) -> str:
    """Returns one shell line: arguments of ModelOpt's quantisation that leave these nodes out.

    ModelOpt matches names as AutoCast does.
    """
    patterns = [rf"^{re.escape(name)}\Z" for name in _names(constraints)]
    return _line(["--nodes_to_exclude", *patterns] if patterns else [])


def unnamed_constraints(constraints: Iterable[Constraint]) -> int:
    """Returns how many layers cannot be told by name.

    Their nodes have none, or one that any command line would take for an option: `-v1`, `--a=b`.
    """
    return sum(not _is_tellable(constraint.name) for constraint in constraints)


def _names(constraints: Iterable[Constraint]) -> list[str]:
    return list(dict.fromkeys(c.name for c in constraints if _is_tellable(c.name)))


def _is_tellable(name: str) -> bool:
    is_option = name.startswith(_SHORT_OPTIONS) or (name.startswith("-") and "=" in name)
    return bool(name) and not is_option


def _line(arguments: Sequence[str]) -> str:
    return shlex.join(arguments) + "\n"
