"""From constraints in a file to the layers of a model, and whether the file is about that model."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.emit.name_bridge import shorten
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.model import identify
from polygraphy_layerprec.model.digest import reference_digest
from polygraphy_layerprec.plan import KeptLayers, Planner, Target
from polygraphy_layerprec.plan.quantized_planning import planner_for
from polygraphy_layerprec.precision import PRECISIONS, QDQ
from polygraphy_layerprec.records.model_identity import are_comparable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.plan import Plan
    from polygraphy_layerprec.plan.quantized_planning import QuantizedPlanner
    from polygraphy_layerprec.records import Constraint, Ranking, RequestedPrecisions

__all__ = [
    "check_ranked_model",
    "check_same_model",
    "describe_unmatched",
    "kept_layers_of",
    "plan_of",
    "planner_of",
    "unmatched_constraints",
]

_NEAREST_NAMES: Final = 3
_MOST_DESCRIBED: Final = 10
_DIGEST_SHOWN: Final = 14
_LONGEST_COMPARED: Final = 80  # hostile names would take minutes to compare in full


def check_same_model(
    graph: Graph, *, name: str, digest: str, tensors: Iterable[str], made: str
) -> tuple[str, ...]:
    """Checks that a file was made for the model that is there, and returns what is uncertain.

    Args:
        graph: The model that is there.
        name: File name of the model that the file was made for.
        digest: Digest of that model, of any version.
        tensors: Names of tensors that its layers make, which say more where the versions differ.
        made: What was made for it, in words: `The script 'constraints.py'`.

    Raises:
        UserError: If the digests differ, or cannot be compared and a tensor is missing.
    """
    found = identify(graph)
    if digest == found.digest:
        return ()
    missing = [tensor for tensor in tensors if tensor and tensor not in graph.producers]
    if are_comparable(digest, found.digest) or missing:
        lacks = f" It makes no tensor {missing[0]!a}." if missing else ""
        raise UserError(
            f"{made} is about another model: {name!r}, digest {_shortened(digest)}.\n"
            f"Note: {found.name!r} has digest {_shortened(found.digest)}.{lacks} A model that was "
            f"exported again is another one, even under the same name.\n"
            f"Give the model that it was made for, or rank this one first, with "
            f"`polygraphy layerprec rank`."
        )
    warning = (
        f"{made} is from a version with another kind of digest, so that only names of tensors say "
        f"that it is about {found.name!r}. Rank the model again to be sure."
    )
    return (warning,)


def check_ranked_model(graph: Graph, ranking: Ranking, *, made: str) -> tuple[str, ...]:
    """Checks that a ranking is about the model that is there; see `check_same_model`.

    That of a quantised model is about the float model as well that it was compared with.
    """
    uncertain = check_same_model(
        graph,
        name=ranking.model.name,
        digest=ranking.model.digest,
        tensors=[next(filter(None, layer.outputs), "") for layer in ranking.layers],
        made=made,
    )
    if reference_digest(graph) != ranking.conditions.reference:
        raise UserError(
            f"{made} compares with another reference than was given here.\n"
            f"Give the float model that `rank` was given with `--reference`."
        )
    return uncertain


def _shortened(digest: str) -> str:
    return digest[:_DIGEST_SHOWN]


def kept_layers_of(graph: Graph, constraints: Sequence[Constraint]) -> KeptLayers:
    """Returns the constrained layers.

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
    return KeptLayers.of_outputs(names & graph.producers.keys())


def plan_of(graph: Graph, asked: RequestedPrecisions) -> Plan:
    """Returns what becomes of a model as was requested.

    Raises:
        ExecutionError: As `kept_layers_of`.
    """
    return planner_of(graph, asked).plan(kept_layers_of(graph, asked.constraints))


def planner_of(graph: Graph, asked: RequestedPrecisions) -> Planner | QuantizedPlanner:
    """Returns what makes plans of a model in the precision, and for the target, requested."""
    if asked.precision == QDQ.name:
        return planner_for(graph, QDQ)
    return Planner(
        graph, PRECISIONS[asked.precision], Target(asked.target), schema_opset=asked.opset
    )


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
