"""Whether a model takes inputs of certain shapes, found by running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor
from polygraphy_layerprec.precision import FP16

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.execution.errors import NodeError
    from polygraphy_layerprec.model import Graph, Node

__all__ = ["Refusal", "TrialRun"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The first node that does not take what reaches it."""

    node: Node
    """The node."""

    reason: str
    """What ONNX-Runtime says."""


class _RefusedError(Exception):
    """Ends a run at the first refusal."""


class TrialRun:
    """Runs a model in FP32, node by node as a ranking does, so that large weights stay on disk."""

    def __init__(self, graph: Graph) -> None:
        self._executor = PlannedExecutor(graph, FP16)

    def refusal(self, sample: Mapping[str, npt.NDArray[Any]]) -> Refusal | None:
        """Returns the first node whose kernel fails, None if there is none.

        A node without a kernel is no refusal: no shape would help. What needs its result does not
        run.

        Args:
            sample: An array for each input of the model.
        """
        refusals: list[Refusal] = []

        def note(node: Node, error: NodeError) -> None:
            if "while running" in str(error):
                refusals.append(Refusal(node, str(error)))
                raise _RefusedError

        try:
            self._executor.run(sample, on_failure=note)
        except _RefusedError:
            return refusals[0]
        return None
