"""Names of layers and of the blocks that they belong to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["block_of", "unique_names"]

_NUMBERED = re.compile(r"\d")


def unique_names(nodes: Iterable[tuple[str, str, Sequence[str]]]) -> list[str]:
    """Returns one name for each `(name, op, outputs)`, in order, no two alike.

    A node without a name, or whose name others have too, is told apart by its first output,
    which is unique in a model.
    """
    nodes = list(nodes)
    counts = Counter(name for name, _, _ in nodes)
    taken = {name for name in counts if name and counts[name] == 1}
    names = []
    for name, op, outputs in nodes:
        if name and counts[name] == 1:
            names.append(name)
            continue
        first = next((output for output in outputs if output), "")
        made = f"{name or op}:{first}"
        while made in taken:  # another node's own name, or one without outputs
            made += "'"
        taken.add(made)
        names.append(made)
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
