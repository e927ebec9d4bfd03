"""Names that nobody else has, and the blocks that layers belong to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["FreshNames", "block_of", "unique_names"]

_NUMBERED = re.compile(r"\d")


class FreshNames:
    """Names that are not taken, however many want the same."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._counts: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def make(self, name: str) -> str:
        """Returns a name, with a number behind it where it is taken, and takes it."""
        # To count from the start each time would take time by the square of those who want one.
        candidate, count = name, self._counts.get(name, 1)
        while candidate in self._taken:
            count += 1
            candidate = f"{name}_{count}"
        self._counts[name] = count
        self._taken.add(candidate)
        return candidate


def unique_names(nodes: Iterable[tuple[str, str, Sequence[str]]]) -> list[str]:
    """Returns one name for each `(name, op, outputs)`, in order, no two alike.

    A node without a name, or whose name others have too, is told apart by its first output,
    which is unique in a model.
    """
    nodes = list(nodes)
    counts = Counter(name for name, _, _ in nodes)
    fresh = FreshNames(name for name in counts if name and counts[name] == 1)
    names = []
    for name, op, outputs in nodes:
        if name and counts[name] == 1:
            names.append(name)
            continue
        first = next((output for output in outputs if output), "")
        # Taken where it is another node's own name, or there are no outputs.
        names.append(fresh.make(f"{name or op}:{first}"))
    return names


def block_of(name: str) -> str:
    """Returns the part of the model that a layer belongs to, empty for the top level.

    Exporters name nodes by path: `/encoder/layer.3/attention/query/MatMul`. The block is the path
    down to its first numbered part, `encoder/layer.3`, or else the first two parts above the node.
    """
    parts = [part for part in name.split("/") if part][:-1]
    for depth, part in enumerate(parts):
        if _NUMBERED.search(part):
            return "/".join(parts[: depth + 1])
    return "/".join(parts[:2])
