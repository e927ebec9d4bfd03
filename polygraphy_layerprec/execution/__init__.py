"""Reference and candidate tensors, streamed."""

from polygraphy_layerprec.execution.emulation.canary import check_emulation
from polygraphy_layerprec.execution.emulation.emulated import EmulatedExecutor, SampleComparison
from polygraphy_layerprec.execution.emulation.node_comparer import NodeRun
from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor
from polygraphy_layerprec.execution.errors import EmulationError, ExecutionError

__all__ = [
    "EmulatedExecutor",
    "EmulationError",
    "ExecutionError",
    "NodeRun",
    "PlannedExecutor",
    "SampleComparison",
    "check_emulation",
]
