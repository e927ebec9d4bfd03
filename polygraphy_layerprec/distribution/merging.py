"""From the parts of a ranking to the whole: what does not belong together is refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.distribution.part import PartConditions
from polygraphy_layerprec.distribution.partial_file import PartialFile
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.execution.kernels.sessions import threads_per_session
from polygraphy_layerprec.model import identify
from polygraphy_layerprec.model.digest import reference_digest
from polygraphy_layerprec.observing import Observer, RankRequest
from polygraphy_layerprec.precision import PRECISIONS, QDQ, precision_named
from polygraphy_layerprec.ranking.assembly import installed_versions

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.side_by_side import Progress
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["check_parts", "merge_parts"]

_WHAT_TO_DO = {
    "model": "Rank one model in all parts.",
    "threads": "Give each `rank` the same `--threads`.",
    "device": "Rank every part on a GPU of one kind, or every part on CPUs.",
    "versions": "Install the same versions wherever a part is ranked.",
    "shard_count": "Give each `rank` the same N of `--shard I/N`.",
    "data_set_size": "Give each `rank` the same input data.",
    "inputs": "Give each `rank` the same input data.",
}
_SAME_OPTIONS = "Give each `rank` the same options."


def check_parts(parts: Sequence[PartialFile]) -> PartConditions:
    """Returns how all parts were measured, once they are those of one ranking.

    Raises:
        UserError: If two differ in anything but their shard, or overlap, or one is missing; the
            text names the files, what differs, and what to do.
    """
    if not parts:
        raise UserError("there is no part")
    first = parts[0]
    by_number: dict[int, PartialFile] = {}
    for part in parts:
        _check_same(first, part)
        other = by_number.setdefault(part.shard.number, part)
        if other is not part:
            raise UserError(
                f"{other.path!r} and {part.path!r} overlap: both are shard {part.shard}.\n"
                f"Name each part once."
            )
    count = first.shard.count
    missing = [number for number in range(1, count + 1) if number not in by_number][:10]
    if missing:
        named = ", ".join(f"{number}/{count}" for number in missing)
        raise UserError(
            f"{count - len(by_number)} of {count} parts are missing: {named}"
            f"{' and more' if count - len(by_number) > len(missing) else ''}.\n"
            f"Rank the rest with `--shard {missing[0]}/{count} --save-partial FILE.npz`."
        )
    return first.conditions


def merge_parts(
    parts: Sequence[PartialFile], graph: Graph, *, progress: Progress | None = None
) -> Ranking:
    """Returns the ranking that one process would have made of all samples.

    Args:
        parts: All parts, in any order.
        graph: The model.
        progress: As in `rank_model`.

    Raises:
        UserError: If the parts are not those of one ranking, or of another model, or made by
            other versions than those that merge them; or if one is damaged.
        ExecutionError: As `rank_model`.
    """
    conditions = check_parts(parts)
    _check_here(parts[0], graph)
    with threads_per_session(conditions.threads):
        observer = Observer(graph, _request_of(conditions))
        comparer = observer.comparer()
        merged = comparer.nothing()
        for part in sorted(parts, key=lambda part: part.shard.number):
            merged.merge(part.read(comparer.nothing(), graph))
        observed = observer.observed(merged, of_loss=bool(conditions.loss))
        ranking = observed.ranking(progress=progress)
    measured_on = dataclasses.replace(ranking.conditions, device=conditions.device)
    return dataclasses.replace(ranking, conditions=measured_on)


def _request_of(conditions: PartConditions) -> RankRequest:
    return RankRequest(
        precision_named(conditions.precision),
        conditions.impact,
        outputs=conditions.outputs or None,
        generated_inputs=conditions.inputs == "generated",
    )


def _check_here(part: PartialFile, graph: Graph) -> None:
    conditions = part.conditions
    here = dataclasses.replace(
        conditions, model=identify(graph), versions=installed_versions(), precision="fp16"
    )
    if conditions.model.digest != here.model.digest:
        raise UserError(
            f"{part.path!r} is about another model than {graph.name!r}.\n"
            f"Note: Their digests are: {conditions.model.digest!r} and {here.model.digest!r}.\n"
            f"Give the model that was ranked with `--model`."
        )
    if conditions.reference != reference_digest(graph):
        raise UserError(
            f"{part.path!r} compares with another reference than was given here.\n"
            f"Give the float model that each `rank` was given with `--reference`."
        )
    if conditions.versions != here.versions:
        raise _differ("versions", part.path, "this program", conditions.versions, here.versions)
    if conditions.precision not in {*PRECISIONS, QDQ.name}:
        raise UserError(
            f"{part.path!r} is in {conditions.precision!r:.60}, this program knows "
            f"{', '.join((*PRECISIONS, QDQ.name))}."
        )


def _check_same(first: PartialFile, part: PartialFile) -> None:
    for field in dataclasses.fields(PartConditions):
        ours, theirs = getattr(first.conditions, field.name), getattr(part.conditions, field.name)
        if field.name == "model":
            ours, theirs = ours.digest, theirs.digest
        if ours != theirs:
            raise _differ(field.name, first.path, part.path, ours, theirs)


def _differ(name: str, first: str, second: str, ours: Any, theirs: Any) -> UserError:
    if name == "versions":
        known, others = dict(ours), dict(theirs)
        packages = sorted(p for p in known | others if known.get(p) != others.get(p))
        ours = ", ".join(f"{package} {known.get(package)}" for package in packages)
        theirs = ", ".join(f"{package} {others.get(package)}" for package in packages)
    other = second if second == "this program" else repr(second)
    return UserError(
        f"{first!r} and {other} differ in `{name}`, so their numbers do not add up.\n"
        f"Note: They have: {ours!r:.200} and {theirs!r:.200}.\n"
        f"{_WHAT_TO_DO.get(name, _SAME_OPTIONS)}"
    )
