"""What to mark as outputs: which layers, which of their tensors, and how many at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from polygraphy_layerprec.execution.errors import ExecutionError

if TYPE_CHECKING:
    from polygraphy_layerprec.records import RankedLayer, Ranking

__all__ = [
    "MarkedLayer",
    "MarkingPlan",
    "check_choices",
    "choose_layers",
    "halve",
    "plan_marking",
]

_BYTES_PER_ELEMENT: Final = 2 * 4
"""In FP32, once from the reference and once from the candidate."""

_Finder = Callable[["Ranking"], set[str]]
_FORMS: Final = "`regex:PATTERN`, `op:TYPE`, `top:NUM`, or `top:NUM:RANKING.json`"


@dataclass(frozen=True, slots=True)
class MarkedLayer:
    """A layer whose outputs are compared."""

    name: str
    """Unique name, as in `RankedLayer`."""

    tensors: tuple[str, ...]
    """Those of its outputs that can be marked."""

    nbytes: int
    """Memory that its outputs take in the reference and the candidate together, per sample."""


@dataclass(frozen=True, slots=True)
class MarkingPlan:
    """Which outputs each pair of engines has."""

    chunks: tuple[tuple[MarkedLayer, ...], ...]
    """What is marked together, in execution order."""

    skipped: tuple[tuple[str, str], ...]
    """Layers that cannot be measured, each with the reason."""


def check_choices(choices: Sequence[str], load_ranking: Callable[[str], Ranking]) -> None:
    """Checks as much of `choices` as can be without the layers.

    Raises:
        ExecutionError: If a choice or the ranking that it names cannot be read.
    """
    for choice in choices:
        _read_choice(choice, load_ranking)


def choose_layers(
    ranking: Ranking,
    choices: Sequence[str],
    load_ranking: Callable[[str], Ranking],
) -> tuple[RankedLayer, ...]:
    """Returns the layers that any of `choices` names, all without choices, in execution order.

    Args:
        ranking: The layers to choose from.
        choices: Each `regex:PATTERN` for names that contain a match, `op:TYPE` for an ONNX
            operator, `top:NUM` for the first of `ranking`, or `top:NUM:PATH` for the first of a
            ranking on file.
        load_ranking: Returns the ranking of a file.

    Raises:
        ExecutionError: If a choice cannot be read or names no layer, or a ranking on file is about
            another model.
    """
    chosen: set[str] = set()
    for choice in choices:
        found = _read_choice(choice, load_ranking)(ranking)
        if not found:
            raise ExecutionError(
                f"`--outputs-from {choice}` names no layer of this model.\n"
                f"Note: Its layers are called like {ranking.layers[0].name!r}, of type "
                f"{ranking.layers[0].op!r}. Change the choice, or leave it out."
            )
        chosen |= found
    layers = [layer for layer in ranking.layers if not choices or layer.name in chosen]
    return tuple(sorted(layers, key=lambda layer: layer.graph_index))


def plan_marking(
    layers: Sequence[RankedLayer],
    reasons: Mapping[str, str],
    *,
    model_outputs: Sequence[str],
    sample_count: int,
    spread: float,
    max_memory_bytes: int,
) -> MarkingPlan:
    """Returns what to mark, in as few chunks as the memory allows.

    Args:
        layers: The layers to measure, in execution order.
        reasons: Why an output tensor cannot be marked, by name; empty text where it can be.
        model_outputs: Outputs of the model, which every engine has.
        sample_count: Samples that the element counts of `layers` add up.
        spread: Elements of the largest sample's inputs over those of the mean sample, at least 1.
        max_memory_bytes: Memory for the marked tensors of both engines. A layer beyond it is
            marked by itself.
    """
    chunks: list[list[MarkedLayer]] = []
    skipped = []
    room = 0
    for layer in layers:
        names = [name for name in layer.outputs if name and name not in model_outputs]
        tensors = tuple(name for name in names if not reasons[name])
        if not tensors:
            if names:
                skipped.append((layer.name, reasons[names[0]]))
            continue
        nbytes = int(_BYTES_PER_ELEMENT * layer.element_count * spread / max(sample_count, 1))
        if not chunks or nbytes > room:
            chunks.append([])
            room = max_memory_bytes
        room -= nbytes
        chunks[-1].append(MarkedLayer(layer.name, tensors, nbytes))
    return MarkingPlan(tuple(map(tuple, chunks)), tuple(skipped))


def halve(chunk: Sequence[MarkedLayer]) -> tuple[tuple[MarkedLayer, ...], tuple[MarkedLayer, ...]]:
    """Returns the two halves of a chunk that is too much at once."""
    middle = len(chunk) // 2
    return tuple(chunk[:middle]), tuple(chunk[middle:])


def _read_choice(text: str, load_ranking: Callable[[str], Ranking]) -> _Finder:
    """Returns what finds the unique names of a choice's layers in a ranking."""
    kind, _, what = text.partition(":")
    if kind == "regex" and what:
        try:
            pattern = re.compile(what)
        except re.error as error:
            _refuse(text, f"it is no regular expression: {error}")
        return lambda ranking: {x.name for x in ranking.layers if pattern.search(x.name)}
    if kind == "op" and what:
        return lambda ranking: {x.name for x in ranking.layers if x.op.lower() == what.lower()}
    count, _, path = what.partition(":")
    if kind != "top" or not count.isdecimal() or int(count) < 1:
        _refuse(text, "it has none of these forms")
    try:
        source = load_ranking(path) if path else None
    except ValueError as error:
        raise ExecutionError(f"Cannot use `--outputs-from {text}`: {error}") from error
    return lambda ranking: _first(int(count), source or ranking, ranking, text)


def _first(count: int, source: Ranking, ranking: Ranking, choice: str) -> set[str]:
    if source.model.digest != ranking.model.digest:
        _refuse(choice, f"that ranking is about another model, {source.model.name!r}")
    first = {layer.name for layer in source.layers[:count]}
    return first & {layer.name for layer in ranking.layers}


def _refuse(choice: str, why: str) -> NoReturn:
    raise ExecutionError(f"Cannot use `--outputs-from {choice}`: {why}.\nGive {_FORMS}.")
