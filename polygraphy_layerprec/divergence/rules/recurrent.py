"""Rules of RNN, GRU and LSTM: back-propagation through time (Werbos, 1990)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polygraphy_layerprec.divergence.rules.cells import Cell, GruCell, LstmCell, RnnCell, Tape
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    rule,
)

__all__: list[str] = []

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
    if not _is_standard(application):
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
    def of(cls, application: Application, sequence: Array, direction: int) -> _Pass:
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
        cell: Cell = RnnCell(recurrent)
        if application.op_type == "GRU":
            cell = GruCell(recurrent, reset_bias, resets_product)
        elif application.op_type == "LSTM":
            peepholes = np.zeros((3, hidden), weights.dtype)
            if application.has_input(_PEEPHOLES):
                peepholes = application.input(_PEEPHOLES)[direction].reshape(3, hidden)
            cell = LstmCell(recurrent, peepholes)
        lengths = np.full(batch, steps)
        if application.has_input(_LENGTHS):
            lengths = application.input(_LENGTHS)
        return cls(
            cell=cell,
            projected=sequence @ weights.T + (of_input + of_state),
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


def _is_standard(application: Application) -> bool:
    attributes = application.attributes
    given = tuple(name.lower() for name in attributes.get("activations") or ())
    standard = _ACTIVATIONS[application.op_type]
    uses_default = given in ((), standard, standard * 2)
    return uses_default and not attributes.get("clip") and not attributes.get("input_forget")


def _initial(
    application: Application, position: int, direction: int, shape: tuple[int, int]
) -> Array:
    if not application.has_input(position) or (application.op_type != "LSTM" and position == _CELL):
        return np.zeros(shape, application.input(_INPUT).dtype)
    states = application.input(position)
    return states[:, direction] if application.attributes.get("layout", 0) else states[direction]
