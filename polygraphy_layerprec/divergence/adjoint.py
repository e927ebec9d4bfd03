"""Adjoint impact: what each layer's introduced error does to the outputs, by one backward sweep.

With a random probe v of +-1 at the outputs, each output scaled by the norm of its reference, and
g = J^T v the gradient that reverse mode brings to a layer's output, the squared impact of the
layer is sum(g^2 e^2) with e its introduced error: the expectation of (v . J e)^2 over rounding
errors of independent signs (Hutchinson's estimator, with the signs of e random as well).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.divergence.activation_store import ActivationStore
from polygraphy_layerprec.divergence.coherence import coherent_power
from polygraphy_layerprec.divergence.metrics import error_from_halves
from polygraphy_layerprec.divergence.powers import sum_of_squares
from polygraphy_layerprec.divergence.rules import Application, Reads, find_rule
from polygraphy_layerprec.divergence.rules.registry import numpy_product

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.divergence.rules import Rule

__all__ = ["AdjointImpacts", "Tape", "TapeEntry", "output_seeds", "probe_count"]

_AN_OUTPUT = -1
_MOST_PROBES = 4
_ENOUGH_ROWS = 16


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


@dataclass(frozen=True, slots=True)
class AdjointImpacts:
    """What one backward sweep found."""

    powers: Mapping[int, float]
    """Squared impact of each layer, by node index."""

    estimated: frozenset[int]
    """Layers whose gradient passed an operator without a rule, where the gain stood in."""

    consumers: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    """For each layer, how its output's squared gradient divides among the layers that read it:
    fractions by node index; those that go straight to an output are missing."""


class Tape:
    """Records a forward pass and sweeps it backwards."""

    def __init__(
        self,
        read_constants: Callable[[Sequence[str]], Mapping[str, npt.NDArray[Any]]],
        *,
        budget_bytes: int | None = None,
        product: Callable[..., npt.NDArray[Any]] = numpy_product,
    ) -> None:
        self._entries: list[TapeEntry] = []
        self._product = product
        self._store = ActivationStore(budget_bytes)
        self._read_constants = read_constants

    def record(
        self,
        entry: TapeEntry,
        values: Mapping[str, npt.NDArray[Any]],
        error_halves: Mapping[str, npt.NDArray[np.uint16]],
    ) -> None:
        """Appends a node.

        Args:
            entry: The node.
            values: Reference values of its sources and outputs by tensor name; what no rule reads
                is not kept. Constants that `read_constants` knows may be missing.
            error_halves: Introduced error of each float output of a layer, as
                `measure_divergence` writes it.
        """
        self._entries.append(entry)
        for name in _names_read(entry):
            if name in values:
                self._store.put(name, values[name])
        for name, halves in error_halves.items():
            self._store.put(_error_key(name), halves)

    def sweep(self, *probes: Mapping[str, npt.NDArray[Any]]) -> AdjointImpacts:
        """Returns the impacts of all recorded layers, the mean over the probes.

        The recording is forgotten.

        Args:
            probes: One or more; each the gradient at every output that counts, by tensor name.
        """
        try:
            return _mean([self._sweep(probe) for probe in probes])
        finally:
            self._store.close()
            self._entries.clear()

    def _sweep(self, probe: Mapping[str, npt.NDArray[Any]]) -> AdjointImpacts:
        sweep = _Sweep(self._store, self._read_constants, self._product, dict(probe))
        sweep.mark_outputs()
        # What is not finite is dropped where it appears.
        with np.errstate(all="ignore"):
            for entry in reversed(self._entries):
                sweep.step(entry)
        return sweep.result()


def probe_count(outputs: Mapping[str, npt.NDArray[Any]]) -> int:
    """Returns how many probes tell the impacts apart, from 1 to 4.

    Every row of an output is probed on its own, and their squares average out. An output of a
    single row leaves a single square, which is as uncertain as it is large.
    """
    rows = max((y.size // max(y.shape[-1], 1) for y in outputs.values() if y.ndim), default=1)
    return min(_MOST_PROBES, -(-_ENOUGH_ROWS // max(rows, 1)))


def output_seeds(
    outputs: Mapping[str, npt.NDArray[Any]], *, rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Returns a random probe of +-1 for each float output, scaled by the norm of the output.

    The squared impacts that follow from it are mean squares of relative L2 errors over the
    outputs. Outputs without power or with values that are not finite are left out.

    Args:
        outputs: Reference outputs by name.
        rng: Where the signs come from.
    """
    floats = {name: y for name, y in outputs.items() if y.dtype in (np.float32, np.float64)}
    norms = {name: float(np.linalg.norm(y.astype(np.float64))) for name, y in floats.items()}
    usable = [name for name in floats if 0.0 < norms[name] < np.inf]
    return {
        name: (
            rng.choice(np.array([-1, 1], floats[name].dtype), size=floats[name].shape)
            / floats[name].dtype.type(norms[name] * np.sqrt(len(usable)))
        )
        for name in usable
    }


@dataclass(slots=True)
class _Sweep:
    store: ActivationStore
    read_constants: Callable[[Sequence[str]], Mapping[str, npt.NDArray[Any]]]
    product: Callable[..., npt.NDArray[Any]]
    gradients: dict[str, npt.NDArray[Any]]
    powers: dict[int, float] = field(default_factory=dict)
    estimated: set[int] = field(default_factory=set)
    consumers: dict[int, dict[int, float]] = field(default_factory=dict)
    _tainted: set[str] = field(default_factory=set)
    _readers: dict[str, dict[int, float]] = field(default_factory=dict)

    def mark_outputs(self) -> None:
        """Notes which gradients go straight to an output, past every layer."""
        for name, seed in self.gradients.items():
            self._readers[name] = {_AN_OUTPUT: float(np.vdot(seed, seed))}

    def step(self, entry: TapeEntry) -> None:
        arrived = [self.gradients.pop(name, None) if name else None for name in entry.outputs]
        tainted = any(name in self._tainted for name in entry.outputs)
        if entry.is_layer:
            self._account(entry, arrived, tainted=tainted)
        wanted = entry.wanted or entry.wanted_captures
        if wanted and any(gradient is not None for gradient in arrived):
            handed = self._hand_on(entry, arrived)
            if handed is None:
                handed = _from_gains(entry, arrived)
                tainted = True
            for name, gradient in handed.items():
                self._deliver(entry, name, gradient, tainted=tainted)
        for name in entry.outputs:
            self._readers.pop(name, None)

    def result(self) -> AdjointImpacts:
        return AdjointImpacts(self.powers, frozenset(self.estimated), self.consumers)

    def _account(
        self, entry: TapeEntry, arrived: Sequence[npt.NDArray[Any] | None], *, tainted: bool
    ) -> None:
        power = 0.0
        for name, gradient in zip(entry.outputs, arrived, strict=True):
            if gradient is not None and _error_key(name) in self.store:
                power += _weighted_power(
                    gradient, self.store.get(_error_key(name)), entry.coherent_axes
                )
        self.powers[entry.index] = power
        if tainted:
            self.estimated.add(entry.index)
        readers: dict[int, float] = {}
        for name in entry.outputs:
            for reader, share in self._readers.get(name, {}).items():
                readers[reader] = readers.get(reader, 0.0) + share
        total = sum(readers.values())
        self.consumers[entry.index] = {
            reader: share / total
            for reader, share in readers.items()
            if total and reader != _AN_OUTPUT
        }

    def _hand_on(
        self, entry: TapeEntry, arrived: Sequence[npt.NDArray[Any] | None]
    ) -> dict[str, npt.NDArray[Any]] | None:
        """The gradients at the inputs, or None where the operator has no rule for them."""
        found = find_rule(entry.op_type, entry.domain, entry.opset)
        if found is None or entry.captures or _passes_a_sequence(entry):
            return None
        values = self._values_read(entry, found)
        application = Application(
            op_type=entry.op_type,
            opset=entry.opset,
            attributes=entry.attributes,
            inputs=[values.get(name) if name else None for name in entry.inputs],
            outputs=[values.get(name) if name else None for name in entry.outputs],
            input_shapes=entry.input_shapes,
            output_shapes=entry.output_shapes,
            wanted=entry.wanted,
            product=self.product,
        )
        handed = found.apply(application, arrived)
        gradients: dict[str, npt.NDArray[Any]] = {}
        for position in sorted(entry.wanted):
            gradient = handed[position]
            if gradient is None:
                return None
            name = entry.inputs[position]
            # One tensor may be read twice by a node: x * x.
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        return gradients

    def _values_read(self, entry: TapeEntry, found: Rule) -> dict[str, npt.NDArray[Any]]:
        names = _names_read(entry, found)
        kept = {name: self.store.get(name) for name in names if name in self.store}
        constants = self.read_constants([name for name in names if name not in kept])
        return {**constants, **kept}

    def _deliver(
        self, entry: TapeEntry, name: str, gradient: npt.NDArray[Any], *, tainted: bool
    ) -> None:
        power = sum_of_squares(gradient.ravel())
        if not np.isfinite(power):
            gradient = np.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
            power = float(np.linalg.norm(gradient.astype(np.float64)) ** 2)
        present = self.gradients.get(name)
        self.gradients[name] = gradient if present is None else present + gradient
        if tainted:
            self._tainted.add(name)
        readers = self._readers.setdefault(name, {})
        if entry.is_layer:
            readers[entry.index] = readers.get(entry.index, 0.0) + power
            return
        # A node that only moves values stands for the layers behind it.
        behind: dict[int, float] = {}
        for output in entry.outputs:
            for reader, share in self._readers.get(output, {}).items():
                behind[reader] = behind.get(reader, 0.0) + share
        total = sum(behind.values())
        for reader, share in behind.items():
            readers[reader] = readers.get(reader, 0.0) + (power * share / total if total else 0.0)


def _mean(sweeps: Sequence[AdjointImpacts]) -> AdjointImpacts:
    count = len(sweeps)
    consumers: dict[int, dict[int, float]] = {}
    for sweep in sweeps:
        for index, readers in sweep.consumers.items():
            shares = consumers.setdefault(index, {})
            for reader, share in readers.items():
                shares[reader] = shares.get(reader, 0.0) + share / count
    return AdjointImpacts(
        {index: sum(s.powers[index] for s in sweeps) / count for index in sweeps[0].powers},
        frozenset().union(*(sweep.estimated for sweep in sweeps)),
        consumers,
    )


def _names_read(entry: TapeEntry, found: Rule | None = None) -> list[str]:
    """Names of the values that the node's rule reads, integer inputs and constants included."""
    found = found or find_rule(entry.op_type, entry.domain, entry.opset)
    if found is None or not entry.wanted:
        return []
    positions = set(range(len(entry.inputs))) - entry.wanted
    if found.reads_inputs is Reads.ALL or (
        found.reads_inputs is Reads.OTHERS and len(entry.wanted) > 1
    ):
        positions |= entry.wanted
    names = [entry.inputs[position] for position in sorted(positions) if entry.inputs[position]]
    if found.reads_outputs:
        names += [name for name in entry.outputs if name]
    return names


def _from_gains(
    entry: TapeEntry, arrived: Sequence[npt.NDArray[Any] | None]
) -> dict[str, npt.NDArray[Any]]:
    """Gradients of the magnitude that the gains say, with random signs.

    For a Jacobian J of n_out x n_in and independent errors, gain^2 = |J|_F^2 / n_in, and a
    gradient of root mean square r at the output has root mean square gain * r at the input. A
    sequence has no shape: its gradient is one number, the norm.
    """
    present = [gradient for gradient in arrived if gradient is not None]
    dtype = present[0].dtype
    power = sum(float(np.vdot(g, g)) for g in present)
    mean_square = power / max(sum(gradient.size for gradient in present), 1)
    rng = np.random.default_rng(entry.index)
    handed = {}
    for name, shape in _wanted_shapes(entry).items():
        signs = rng.choice(np.array([-1, 1], dtype), size=shape or ())
        gain = entry.gains.get(name)
        size = power / max(signs.size, 1) if gain is None else gain**2 * mean_square
        handed[name] = np.asarray(signs * dtype.type(np.sqrt(size)))
    return handed


def _passes_a_sequence(entry: TapeEntry) -> bool:
    outputs = zip(entry.outputs, entry.output_shapes, strict=True)
    return any(entry.input_shapes[position] is None for position in entry.wanted) or any(
        name and shape is None for name, shape in outputs
    )


def _wanted_shapes(entry: TapeEntry) -> dict[str, tuple[int, ...] | None]:
    inputs = {entry.inputs[i]: entry.input_shapes[i] for i in sorted(entry.wanted)}
    captures = {entry.captures[i]: entry.captured_shapes[i] for i in sorted(entry.wanted_captures)}
    return {**captures, **inputs}


def _error_key(name: str) -> str:
    return f"error of {name}"


def _weighted_power(
    gradient: npt.NDArray[Any], halves: npt.NDArray[np.uint16], coherent_axes: tuple[int, ...]
) -> float:
    """sum(g^2 e^2), with g e summed along the coherent axes before it is squared."""
    product = error_from_halves(halves)
    np.multiply(product, gradient.reshape(-1), out=product, casting="same_kind")
    power = coherent_power(product.reshape(gradient.shape), coherent_axes)
    return power if np.isfinite(power) else 0.0
