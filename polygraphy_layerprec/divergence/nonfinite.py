"""Where infinities and NaN start, and how far they travel."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["NonFiniteTrace", "NonFiniteVisit", "trace_nonfinite"]


@dataclass(frozen=True, slots=True)
class NonFiniteVisit:
    """A layer whose output has infinities or NaN, in the candidate or the reference."""

    parent: int | None
    """The layer that handed them on; None where they start."""

    has_nan: bool
    """Whether NaN is among them."""

    in_reference: bool
    """Whether the reference has them too."""


@dataclass(frozen=True, slots=True)
class NonFiniteTrace:
    """One origin and the way from it."""

    origin: int
    """Index of the layer where it starts."""

    value: Literal["inf", "nan"]
    """What starts there."""

    in_reference: bool
    """Whether the reference has it too."""

    path: tuple[int, ...]
    """Layers from the origin to the last one that still has it, or to the first NaN's heir."""


def trace_nonfinite(
    visits: Mapping[int, NonFiniteVisit], *, reaching_outputs: Collection[int]
) -> list[NonFiniteTrace]:
    """Returns the origins whose infinities reach an output or become NaN, in graph order.

    Infinities that a layer absorbs, such as a mask's before a softmax, are left out.

    Args:
        visits: By node index.
        reaching_outputs: Layers whose non-finite values are among the model's outputs.
    """
    origins: dict[int, int] = {}
    heirs: dict[int, list[int]] = {}
    for index in sorted(visits):
        parent = visits[index].parent
        origins[index] = index if parent is None else origins.get(parent, index)
        heirs.setdefault(origins[index], []).append(index)
    traces = []
    for origin, members in sorted(heirs.items()):
        visible = [member for member in members if member in reaching_outputs]
        harmful = visible or [member for member in members if visits[member].has_nan]
        if not harmful:
            continue
        traces.append(
            NonFiniteTrace(
                origin,
                "nan" if visits[origin].has_nan else "inf",
                visits[origin].in_reference,
                _path(visits, harmful[-1]),
            )
        )
    return traces


def _path(visits: Mapping[int, NonFiniteVisit], index: int) -> tuple[int, ...]:
    path = [index]
    parent = visits[index].parent
    while parent is not None and parent in visits:
        path.append(parent)
        parent = visits[parent].parent
    return tuple(reversed(path))
