"""What can go wrong while nodes run."""

from __future__ import annotations

from polygraphy_layerprec.errors import UserError

__all__ = ["EmulationError", "ExecutionError", "NodeError"]


class ExecutionError(UserError):
    """The run as a whole cannot go on; the text says why and what to do."""


class EmulationError(ExecutionError):
    """This ONNX-Runtime does not emulate the precision faithfully."""


class NodeError(Exception):
    """One node cannot run; the others may."""
