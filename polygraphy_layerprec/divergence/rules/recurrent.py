"""RNN, GRU and LSTM step by step: forwards, and back-propagation through time (Werbos, 1990)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polygraphy_layerprec.divergence.rules.cells import (
    Cell,
    GruCell,
    LstmCell,
    Multiply,
    RnnCell,
    Rounding,
    Tape,
    exactly,
)
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    rule,
)

__all__ = ["run_recurrent", "takes_default_steps"]

_INPUT, _WEIGHTS, _RECURRENT, _BIAS, _LENGTHS, _HIDDEN, _CELL, _PEEPHOLES = range(8)
_ACTIVATIONS = {
    "RNN": ("tanh",),
    "GRU": ("sigmoid", "tanh"),
    "LSTM": ("sigmoid", "tanh", "tanh"),
}


@rule("RNN", "GRU", "LSTM", since=7, reads_inputs=Reads.ALL)
def _recurrent(application: Application, output_gradients: Gradients) -> Gradients:
    """ONNX RNN, GRU, LSTM with their default activations: the steps run again, then backwards.

    Serves the sequence and the initial states, not the weights.
    """
    if not takes_default_steps(application.op_type, application.attributes):
        return ()
    is_batch_first = bool(application.attributes.get("layout", 0))
    directions = application.input_shape(_RECURRENT)[0]
    by_steps, by_hidden, by_cell = (*output_gradients, None, None, None)[:3]
    if is_batch_first:
        by_steps = None if by_steps is None else by_steps.transpose(1, 2, 0, 3)
        by_hidden, by_cell = (None if g is None else g.swapaxes(0, 1) for g in (by_hidden, by_cell))
    sequence = application.input(_INPUT)
    sequence = sequence.swapaxes(0, 1) if is_batch_first else sequence
    results = [
        _Pass.of(application, sequence, direction).backward(
            *(
                None if g is None else g[..., direction, :, :]
                for g in (by_steps, by_hidden, by_cell)
            )
        )
        for direction in range(directions)
    ]
    by_sequence = np.asarray(sum(result[0] for result in results))
    initial = [np.stack([result[i] for result in results]) for i in (1, 2)]
    if is_batch_first:
        by_sequence = by_sequence.swapaxes(0, 1)
        initial = [g.swapaxes(0, 1) for g in initial]
    return (by_sequence, None, None, None, None, *initial)[: len(application.input_shapes)]


def run_recurrent(
    op_type: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any],
    rounded: Rounding = exactly,
    multiply: Multiply = np.matmul,
) -> tuple[Array, Array, Array]:
    """Returns every hidden state, the last hidden state and the last cell state, as ONNX lays out.

    Args:
        op_type: `RNN`, `GRU` or `LSTM`, of which `takes_default_steps` is true.
        inputs: The node's inputs, None for absent ones.
        attributes: The node's attributes.
        rounded: What becomes of every product, sum and activation.
        multiply: How matrices are multiplied.
    """
    is_batch_first = bool(attributes.get("layout", 0))
    given = _Inputs(op_type, (*inputs, *[None] * (8 - len(inputs))), attributes)
    sequence = given.input(_INPUT)
    sequence = sequence.swapaxes(0, 1) if is_batch_first else sequence
    directions = given.input(_RECURRENT).shape[0]
    results = [
        _Pass.of(given, sequence, direction, rounded, multiply).forward(rounded)
        for direction in range(directions)
    ]
    steps = np.stack([result[0] for result in results], axis=1)
    last = [np.stack([result[i] for result in results]) for i in (1, 2)]
    if is_batch_first:
        return steps.transpose(2, 0, 1, 3), last[0].swapaxes(0, 1), last[1].swapaxes(0, 1)
    return steps, last[0], last[1]


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What `Application` offers of inputs, where there is no tape."""

    op_type: str
    inputs: Sequence[Array | None]
    attributes: Mapping[str, Any]

    def input(self, position: int) -> Array:
        found = self.inputs[position]
        assert found is not None
        return found

    def has_input(self, position: int) -> bool:
        return self.inputs[position] is not None


@dataclass(frozen=True, slots=True)
class _Pass:
    """One direction of a recurrent layer over its sequence."""

    cell: Cell
    """The step that is repeated."""

    projected: Array
    """Sequence times input weights plus bias, shape `(steps, batch, gates * hidden)`."""

    weights: Array
    """Input weights, shape `(gates * hidden, inputs)`."""

    initial: tuple[Array, Array]
    """Hidden and cell state before the first step, each `(batch, hidden)`."""

    is_valid: Array
    """Whether a step lies within the sequence, `(steps, batch, 1)`; states wait beyond its end."""

    is_reversed: bool
    """Whether the last step comes first."""

    @classmethod
    def of(
        cls,
        application: Application | _Inputs,
        sequence: Array,
        direction: int,
        rounded: Rounding = exactly,
        multiply: Multiply = np.matmul,
    ) -> _Pass:
        """Returns one direction of a node whose sequence is `(steps, batch, inputs)`."""
        weights = application.input(_WEIGHTS)[direction]
        recurrent = application.input(_RECURRENT)[direction]
        hidden = recurrent.shape[1]
        steps, batch = sequence.shape[:2]
        bias = np.zeros(2 * weights.shape[0], weights.dtype)
        if application.has_input(_BIAS):
            bias = application.input(_BIAS)[direction]
        of_input, of_state = np.split(bias, 2)
        # What is left for the cell is the bias that the reset gate scales.
        resets_product = bool(application.attributes.get("linear_before_reset", 0))
        reset_bias = of_state[-hidden:]
        if application.op_type == "GRU" and resets_product:
            of_state = np.concatenate([of_state[:-hidden], np.zeros_like(reset_bias)])
        cell: Cell = RnnCell(recurrent, multiply)
        if application.op_type == "GRU":
            cell = GruCell(recurrent, reset_bias, resets_product, multiply)
        elif application.op_type == "LSTM":
            peepholes = np.zeros((3, hidden), weights.dtype)
            if application.has_input(_PEEPHOLES):
                peepholes = application.input(_PEEPHOLES)[direction].reshape(3, hidden)
            cell = LstmCell(recurrent, peepholes, multiply)
        lengths = np.full(batch, steps)
        if application.has_input(_LENGTHS):
            lengths = application.input(_LENGTHS)
        return cls(
            cell=cell,
            projected=rounded(
                rounded(multiply(sequence, weights.T)) + rounded(of_input + of_state)
            ),
            weights=weights,
            initial=(
                _initial(application, _HIDDEN, direction, (batch, hidden)),
                _initial(application, _CELL, direction, (batch, hidden)),
            ),
            is_valid=(np.arange(steps)[:, None] < lengths)[..., None],
            is_reversed=direction == 1 or application.attributes.get("direction") == "reverse",
        )

    def backward(
        self, by_steps: Array | None, by_hidden: Array | None, by_cell: Array | None
    ) -> tuple[Array, Array, Array]:
        """Returns the gradients at the sequence, the initial hidden and the initial cell state."""
        tapes = self._tapes()
        zeros = np.zeros_like(self.initial[0])
        by_hidden = zeros if by_hidden is None else by_hidden
        by_cell = zeros if by_cell is None else by_cell
        by_projected = np.empty_like(self.projected)
        for step in reversed(self._order()):
            valid = self.is_valid[step]
            into_hidden = by_hidden if by_steps is None else by_hidden + by_steps[step]
            at_projected, (before_hidden, before_cell) = self.cell.backward(
                tapes[step], (into_hidden * valid, by_cell * valid)
            )
            by_projected[step] = at_projected
            by_hidden = np.where(valid, before_hidden, by_hidden)
            by_cell = np.where(valid, before_cell, by_cell)
        return by_projected @ self.weights, by_hidden, by_cell

    def forward(self, rounded: Rounding) -> tuple[Array, Array, Array]:
        """Returns the hidden state after each step, and the last hidden and cell state."""
        hidden, cell = self.initial
        steps = np.zeros((len(self.projected), *hidden.shape), hidden.dtype)
        for step in self._order():
            valid = self.is_valid[step]
            (next_hidden, next_cell), _ = self.cell.forward(
                self.projected[step], (hidden, cell), rounded
            )
            hidden = np.where(valid, next_hidden, hidden)
            cell = np.where(valid, next_cell, cell)
            steps[step] = np.where(valid, next_hidden, 0)
        return steps, hidden, cell

    def _tapes(self) -> dict[int, Tape]:
        hidden, cell = self.initial
        tapes = {}
        for step in self._order():
            valid = self.is_valid[step]
            (next_hidden, next_cell), tapes[step] = self.cell.forward(
                self.projected[step], (hidden, cell)
            )
            hidden = np.where(valid, next_hidden, hidden)
            cell = np.where(valid, next_cell, cell)
        return tapes

    def _order(self) -> list[int]:
        steps = list(range(len(self.projected)))
        return steps[::-1] if self.is_reversed else steps


def takes_default_steps(op_type: str, attributes: Mapping[str, Any]) -> bool:
    """Whether a node computes each step by its operator's default activations alone."""
    given = tuple(name.lower() for name in attributes.get("activations") or ())
    standard = _ACTIVATIONS[op_type]
    uses_default = given in ((), standard, standard * 2)
    return uses_default and not attributes.get("clip") and not attributes.get("input_forget")


def _initial(
    application: Application | _Inputs, position: int, direction: int, shape: tuple[int, int]
) -> Array:
    if not application.has_input(position) or (application.op_type != "LSTM" and position == _CELL):
        return np.zeros(shape, application.input(_INPUT).dtype)
    states = application.input(position)
    return states[:, direction] if application.attributes.get("layout", 0) else states[direction]
