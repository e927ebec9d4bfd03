"""Gain: how much of an error at a tensor reaches the outputs, composed from scalar gains.

Each node's gain at an input is the norm of what an error becomes over the norm that it came with.
Composed backwards, and squared gains added where a tensor is read more than once, they say what an
error of independent signs does to the outputs: cheaper than the adjoint, blind to where in a
tensor the error sits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["NodeGains", "output_gains", "reader_shares"]

_AN_OUTPUT = -1


@dataclass(frozen=True, slots=True)
class NodeGains:
    """The gains of one node."""

    gains: Mapping[str, float]
    """Gain by input tensor, in [0, inf)."""

    outputs: tuple[str, ...]
    """Output tensors; empty names for absent ones."""

    layer: int | None = None
    """Its index if it is a layer; None if it only moves values."""


def output_gains(
    nodes: Sequence[NodeGains], output_scales: Mapping[str, float]
) -> dict[str, float]:
    """Returns for each tensor the squared gain from it to the outputs.

    Args:
        nodes: In execution order.
        output_scales: Squared factor by which the error of an output counts, by tensor name.
    """
    squared = dict(output_scales)
    for node in reversed(nodes):
        onward = max((squared.get(name, 0.0) for name in node.outputs if name), default=0.0)
        for name, gain in node.gains.items():
            squared[name] = squared.get(name, 0.0) + gain**2 * onward
    return squared


def reader_shares(
    nodes: Sequence[NodeGains], output_scales: Mapping[str, float]
) -> dict[str, dict[int, float]]:
    """Returns for each tensor the layers that read it, with the share of its squared gain.

    A node that only moves values stands for the layers behind it. What goes straight to an output
    is missing, so shares add up to at most 1.

    Args:
        nodes: As in `output_gains`.
        output_scales: As in `output_gains`.
    """
    squared = output_gains(nodes, output_scales)
    powers = {name: {_AN_OUTPUT: scale} for name, scale in output_scales.items()}
    for node in reversed(nodes):
        present = filter(None, node.outputs)
        leading = max(present, key=lambda name: squared.get(name, 0.0), default="")
        through = {node.layer: 1.0} if node.layer is not None else _shares(powers.get(leading, {}))
        onward = squared.get(leading, 0.0) if leading else 0.0
        for name, gain in node.gains.items():
            readers = powers.setdefault(name, {})
            for reader, share in through.items():
                power = gain**2 * onward * share
                readers[reader] = readers.get(reader, 0.0) + power
    return {
        name: {reader: share for reader, share in _shares(readers).items() if reader != _AN_OUTPUT}
        for name, readers in powers.items()
    }


def _shares(powers: Mapping[int, float]) -> dict[int, float]:
    total = sum(powers.values())
    return {reader: power / total for reader, power in powers.items()} if total else {}
