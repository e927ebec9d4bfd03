"""What can go wrong while nodes run."""

from __future__ import annotations

from polygraphy_layerprec.errors import UserError

__all__ = ["EmulationError", "ExecutionError", "NodeError", "WorkersError"]


class ExecutionError(UserError):
    """The run as a whole cannot go on; the text says why and what to do."""


class EmulationError(ExecutionError):
    """This ONNX-Runtime does not emulate the precision faithfully."""


class WorkersError(ExecutionError):
    """Workers are gone or unfit: what they were asked stays open, and nothing else answers it."""


class NodeError(Exception):
    """One node cannot run; the others may."""
