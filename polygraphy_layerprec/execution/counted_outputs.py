"""Which outputs of a model an error is about."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from polygraphy_layerprec.execution.errors import ExecutionError

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph

__all__ = ["outputs_that_count"]


def outputs_that_count(graph: Graph, outputs: Collection[str] | None) -> tuple[str, ...]:
    """Returns the outputs that were asked for, all by default, in the model's order.

    Raises:
        ExecutionError: If the model has no such output.
    """
    unknown = [name for name in outputs or () if name not in graph.outputs]
    if unknown:
        raise ExecutionError(
            f"The model has no output named {unknown[0]!r}.\n"
            f"Note: Its outputs are: {list(graph.outputs)!r}. Choose among them with `--outputs`."
        )
    return tuple(name for name in graph.outputs if not outputs or name in outputs)
