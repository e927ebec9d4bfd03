"""Reference and candidate tensors, streamed."""

from polygraphy_layerprec.execution.canary import check_emulation
from polygraphy_layerprec.execution.emulated import EmulatedExecutor, SampleComparison
from polygraphy_layerprec.execution.errors import EmulationError, ExecutionError
from polygraphy_layerprec.execution.node_evaluation import Evaluation
from polygraphy_layerprec.execution.planned import PlannedExecutor

__all__ = [
    "EmulatedExecutor",
    "EmulationError",
    "Evaluation",
    "ExecutionError",
    "PlannedExecutor",
    "SampleComparison",
    "check_emulation",
]
