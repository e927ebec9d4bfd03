"""What the backward sweep reads, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from polygraphy_layerprec.divergence.caveats import Caveat

__all__ = ["AdjointImpacts", "TapeEntry"]


@dataclass(frozen=True, slots=True)
class TapeEntry:
    """One node as the backward sweep needs it; the values are in the tape's store."""

    index: int
    """Position in execution order."""

    op_type: str
    """ONNX operator."""

    domain: str
    """Operator domain; empty for ONNX's own."""

    opset: int
    """Operator-set version of the domain."""

    attributes: Mapping[str, Any]
    """Attributes, as in `Application`."""

    inputs: tuple[str, ...]
    """Input tensors; empty names for absent ones."""

    captures: tuple[str, ...]
    """Tensors that its subgraphs read."""

    captured_shapes: tuple[tuple[int, ...] | None, ...]
    """Shape of each of these."""

    outputs: tuple[str, ...]
    """Output tensors; empty names for absent ones."""

    input_shapes: tuple[tuple[int, ...] | None, ...]
    """Shape of each input; None for an absent one and for a sequence."""

    output_shapes: tuple[tuple[int, ...] | None, ...]
    """Shape of each output."""

    wanted: frozenset[int]
    """Positions of the inputs that a gradient must reach."""

    wanted_captures: frozenset[int]
    """Positions of the captures that a gradient must reach."""

    is_layer: bool
    """Whether it introduces an error, which is kept for each of its float outputs."""

    gains: Mapping[str, float]
    """Gain for each variable input, for operators without a rule; where there is none either, an
    error is taken to keep its norm, as in what moves values."""

    coherent_axes: tuple[int, ...] = ()
    """Axes of the outputs along which the layer's error goes together: see `coherence`."""

    decided: Mapping[str, str] = field(default_factory=dict)
    """Tensors that decide integers which it takes, with the operator that decides: their errors
    arrive as well, though not by a gradient."""

    steps: Literal["", "quantized", "narrowed", "decides"] = ""
    """The kind of `Caveat` where it rounds what arrives by more than FP32 does; else empty."""

    step_gain: float = 1.0
    """How much larger errors leave its steps than they came: gradients are scaled with it."""


@dataclass(frozen=True, slots=True)
class AdjointImpacts:
    """What backward sweeps found."""

    powers: Mapping[int, float]
    """Squared impact of each layer, by node index."""

    caveats: Mapping[int, frozenset[Caveat]]
    """What the impacts do not see, for each layer of which there is something."""

    consumers: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    """For each layer, how its output's squared gradient divides among the layers that read it:
    fractions by node index; those that go straight to an output are missing."""

    independent_powers: Mapping[int, float] = field(default_factory=dict)
    """What the squared impacts were if all errors were independent, element by element: less than
    `powers` by what the coherence of rounded weights adds."""

    number_counts: Mapping[int, float] = field(default_factory=dict)
    """How many independent numbers tell each squared impact: a sum of squares that one of them
    dominates is as uncertain as this one is."""

    responses: Mapping[int, float] = field(default_factory=dict)
    """What the probe itself sees of each layer's error, with its sign; NaN where that is not known.
    The mean square over many probes is the linear response, whatever the errors have in common."""

    @property
    def estimated(self) -> frozenset[int]:
        """Layers whose gradient passed an operator without a rule, where the gain stood in."""
        return frozenset(
            index
            for index, caveats in self.caveats.items()
            if any(caveat.kind == "gain" for caveat in caveats)
        )
