"""One sweep from the outputs back to every layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from polygraphy_layerprec.arrays import namespace_of
from polygraphy_layerprec.divergence.caveats import Caveat, CaveatTrail, of_layer
from polygraphy_layerprec.divergence.coherence import weighted_powers
from polygraphy_layerprec.divergence.powers import sum_of_squares
from polygraphy_layerprec.divergence.recorded_values import RecordedValues
from polygraphy_layerprec.divergence.rules import Application, Reads, find_rule
from polygraphy_layerprec.divergence.tape_entry import AdjointImpacts, TapeEntry

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.divergence.compact_errors import CompactErrors
    from polygraphy_layerprec.divergence.rules import Rule

__all__ = ["AtOnce", "BackwardSweep", "Later", "names_read", "takes_coarse"]

_AN_OUTPUT = -1


class Later(Protocol):
    """Does pieces of work in order, which none of those that hand them over waits for."""

    def put(self, work: Callable[[], None], nbytes: int = 0) -> None:
        """Hands over work that keeps arrays of `nbytes` alive."""
        ...


class AtOnce:
    """As `Later`, without delay."""

    def put(self, work: Callable[[], None], nbytes: int = 0) -> None:  # noqa: ARG002
        """Does the work."""
        work()


@dataclass(slots=True)
class BackwardSweep:
    """Takes the entries of a tape from the last to the first."""

    recorded: RecordedValues
    """Values and errors that were recorded, and constants."""

    product: Callable[..., npt.NDArray[Any]]
    """Multiplies matrices: see `Application.product`."""

    gradients: dict[str, npt.NDArray[Any]]
    """Gradients that wait at tensors; at the start those of the outputs."""

    wants_responses: bool = False
    """Whether the responses of large tensors are wanted, too."""

    powers: dict[int, float] = field(default_factory=dict)
    """Squared impacts so far, by node index."""

    independent_powers: dict[int, float] = field(default_factory=dict)
    """As in `AdjointImpacts`."""

    caveats: dict[int, frozenset[Caveat]] = field(default_factory=dict)
    """As in `AdjointImpacts`."""

    consumers: dict[int, dict[int, float]] = field(default_factory=dict)
    """As in `AdjointImpacts`."""

    number_counts: dict[int, float] = field(default_factory=dict)
    """As in `AdjointImpacts`."""

    responses: dict[int, float] = field(default_factory=dict)
    """As in `AdjointImpacts`."""

    later: Later = field(default_factory=AtOnce)
    """What weighs errors with gradients, while the sweep goes on."""

    _trail: CaveatTrail = field(default_factory=CaveatTrail)
    _readers: dict[str, dict[int, float]] = field(default_factory=dict)

    def mark_outputs(self, decisions: Mapping[str, str]) -> None:
        """Notes which gradients go straight to an output, past every layer.

        Args:
            decisions: The operator that makes an integer output of a tensor, by its name.
        """
        for name, seed in self.gradients.items():
            self._readers[name] = {_AN_OUTPUT: sum_of_squares(seed.ravel())}
            self._trail.start(name, decisions.get(name, ""))

    def step(self, entry: TapeEntry) -> None:
        """Accounts for one node, and hands its gradients on to its inputs."""
        arrived = [self.gradients.pop(name, None) if name else None for name in entry.outputs]
        caveats = self._trail.arrive(entry.outputs)
        if entry.is_layer:
            self._account(entry, arrived, of_layer(caveats))
        if caveats is not None:
            self._pass_on(entry, arrived, caveats)
        for name in entry.outputs:
            self._readers.pop(name, None)

    def read(self, entry: TapeEntry) -> None:
        """Reads the values that `step` takes, if it takes any: other sweeps find them there."""
        waiting = any(name in self.gradients for name in entry.outputs)
        found = self._rule_of(entry)
        if waiting and found is not None and (entry.wanted or entry.wanted_captures):
            self.recorded.values(entry.index, names_read(entry, found))

    def result(self) -> AdjointImpacts:
        """Returns what was found."""
        return AdjointImpacts(
            powers=self.powers,
            caveats=self.caveats,
            consumers=self.consumers,
            independent_powers=self.independent_powers,
            number_counts=self.number_counts,
            responses=self.responses,
        )

    def _pass_on(
        self,
        entry: TapeEntry,
        arrived: Sequence[npt.NDArray[Any] | None],
        caveats: frozenset[Caveat],
    ) -> None:
        if entry.steps and entry.wanted:
            caveats |= {Caveat(entry.steps, entry.op_type)}
        wanted = entry.wanted or entry.wanted_captures
        if wanted and any(gradient is not None for gradient in arrived):
            handed = self._hand_on(entry, arrived)
            if handed is None:
                handed = _from_gains(entry, arrived)
                caveats |= {Caveat("gain", entry.op_type)}
            for name, gradient in handed.items():
                self._deliver(entry, name, gradient)
        self._trail.leave(caveats, _wanted_shapes(entry), entry.decided)

    def _account(
        self,
        entry: TapeEntry,
        arrived: Sequence[npt.NDArray[Any] | None],
        caveats: frozenset[Caveat],
    ) -> None:
        errors = []
        for name, gradient in zip(entry.outputs, arrived, strict=True):
            compact = None if gradient is None else self.recorded.errors(name)
            if gradient is not None and compact is not None:
                errors.append((gradient, compact))
        nbytes = sum(gradient.nbytes + compact.nbytes for gradient, compact in errors)
        self.later.put(partial(self._weigh, entry, errors), nbytes)
        if caveats:
            self.caveats[entry.index] = caveats
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

    def _weigh(
        self, entry: TapeEntry, errors: Sequence[tuple[npt.NDArray[Any], CompactErrors]]
    ) -> None:
        power = independent = count = response = 0.0
        with np.errstate(all="ignore"):
            for gradient, compact in errors:
                found = weighted_powers(
                    gradient, compact, entry.coherent_axes, wants_response=self.wants_responses
                )
                power += found.coherent
                independent += found.independent
                count += found.count
                response += found.response
        self.powers[entry.index] = power
        self.independent_powers[entry.index] = independent
        self.number_counts[entry.index] = count
        self.responses[entry.index] = response

    def _hand_on(
        self, entry: TapeEntry, arrived: Sequence[npt.NDArray[Any] | None]
    ) -> dict[str, npt.NDArray[Any]] | None:
        """The gradients at the inputs, or None where the operator has no rule for them."""
        found = self._rule_of(entry)
        if found is None:
            return None
        values = self.recorded.values(entry.index, names_read(entry, found))
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
            if entry.step_gain != 1.0:
                gradient = gradient * gradient.dtype.type(entry.step_gain)
            # One tensor may be read twice by a node: x * x.
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
        return gradients

    @staticmethod
    def _rule_of(entry: TapeEntry) -> Rule | None:
        """The rule that serves a node, if there is one."""
        if entry.captures or _passes_a_sequence(entry):
            return None
        return find_rule(entry.op_type, entry.domain, entry.opset)

    def _deliver(self, entry: TapeEntry, name: str, gradient: npt.NDArray[Any]) -> None:
        power = sum_of_squares(gradient.ravel())
        if not np.isfinite(power):
            gradient = np.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
            power = sum_of_squares(gradient.astype(np.float64).ravel())
        present = self.gradients.get(name)
        self.gradients[name] = gradient if present is None else present + gradient
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


def names_read(entry: TapeEntry, found: Rule | None = None) -> list[str]:
    """Names of the values that the node's rule reads, integer inputs and constants included."""
    found = found or find_rule(entry.op_type, entry.domain, entry.opset)
    if found is None or not entry.wanted:
        return []
    positions = set(range(len(entry.inputs))) - entry.wanted
    positions |= found.reads_always.intersection(range(len(entry.inputs)))
    if found.reads_inputs is Reads.ALL or (
        found.reads_inputs is Reads.OTHERS and len(entry.wanted) > 1
    ):
        positions |= entry.wanted
    names = [entry.inputs[position] for position in sorted(positions) if entry.inputs[position]]
    if found.reads_outputs:
        names += [name for name in entry.outputs if name]
    return names


def takes_coarse(entry: TapeEntry) -> bool:
    """As `Rule.takes_coarse`, of the node's rule."""
    found = find_rule(entry.op_type, entry.domain, entry.opset)
    return found is not None and found.takes_coarse


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
    power = sum(sum_of_squares(g.ravel()) for g in present)
    mean_square = power / max(sum(gradient.size for gradient in present), 1)
    rng = np.random.default_rng(entry.index)
    handed = {}
    for name, shape in _wanted_shapes(entry).items():
        signs = rng.choice(np.array([-1, 1], dtype), size=shape or ())
        gain = entry.gains.get(name)
        size = power / max(signs.size, 1) if gain is None else gain**2 * mean_square
        handed[name] = namespace_of(present[0]).asarray(signs * dtype.type(np.sqrt(size)))
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
