"""From constraints in a file to the layers of a model, and whether the file is about that model."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.emit.name_bridge import shorten
from polygraphy_layerprec.execution.errors import ExecutionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Constraint, ModelIdentity

__all__ = ["check_same_model", "describe_unmatched", "fp32_outputs_of", "unmatched_constraints"]

_NEAREST_NAMES: Final = 3
_MOST_DESCRIBED: Final = 10
_LONGEST_COMPARED: Final = 80  # hostile names would take minutes to compare in full


def check_same_model(found: ModelIdentity, *, name: str, digest: str, made: str) -> None:
    """Checks that a file was made for the model that is there.

    Args:
        found: The model that is there.
        name: File name of the model that the file was made for.
        digest: Digest of that model.
        made: What was made for it, in words: `The script 'constraints.py'`.

    Raises:
        ValueError: If the digests differ.
    """
    if digest == found.digest:
        return
    raise ValueError(
        f"{made} is about another model: {name!r}, digest {digest[:12]}.\n"
        f"Note: {found.name!r} has digest {found.digest[:12]}. A model that was exported again is "
        f"another one, even under the same name.\n"
        f"Give the model that it was made for, or rank this one first, with "
        f"`polygraphy layerprec rank`."
    )


def fp32_outputs_of(graph: Graph, constraints: Sequence[Constraint]) -> frozenset[str]:
    """Returns the output tensors of the constrained layers.

    Raises:
        ExecutionError: If a constraint matches no layer of the model; the text names the nearest.
    """
    unmatched = unmatched_constraints(graph, constraints)
    if unmatched:
        raise ExecutionError(
            f"{len(unmatched)} of {len(constraints)} constraints match no layer of "
            f"{graph.name!r}:\n{describe_unmatched(graph, unmatched)}\n"
            f"Rank this model first, with `polygraphy layerprec rank`."
        )
    names = {name for constraint in constraints for name in constraint.outputs if name}
    return frozenset(names & graph.producers.keys())


def unmatched_constraints(
    graph: Graph, constraints: Sequence[Constraint]
) -> tuple[Constraint, ...]:
    """Returns the constraints none of whose output tensors a node of the model makes."""
    return tuple(
        constraint
        for constraint in constraints
        if not any(name in graph.producers for name in constraint.outputs)
    )


def describe_unmatched(graph: Graph, unmatched: Sequence[Constraint]) -> str:
    """Returns a line for each unmatched constraint, with the names nearest to it."""
    known = {name: name[:_LONGEST_COMPARED] for name in graph.producers}
    known |= {node.proto.name: node.name[:_LONGEST_COMPARED] for node in graph.nodes}
    candidates = sorted(set(known.values()))
    lines = []
    for constraint in unmatched[:_MOST_DESCRIBED]:
        tensor = next((name for name in constraint.outputs if name), "")
        near = dict.fromkeys(
            name
            for wanted in (tensor, constraint.name)
            for name in difflib.get_close_matches(
                wanted[:_LONGEST_COMPARED], candidates, n=_NEAREST_NAMES
            )
        )
        names = ", ".join(ascii(name) for name in list(near)[:_NEAREST_NAMES])
        hint = f"nearest: {names}" if names else "nothing near"
        lines.append(f"  {shorten(constraint.name)} that makes {shorten(tensor)}; {hint}")
    if len(unmatched) > _MOST_DESCRIBED:
        lines.append(f"  and {len(unmatched) - _MOST_DESCRIBED} more")
    return "\n".join(lines)
