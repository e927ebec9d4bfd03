"""One time step of each recurrent layer, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from polygraphy_layerprec.divergence.rules.activations import sigmoid
from polygraphy_layerprec.divergence.rules.registry import Array

__all__ = [
    "Cell",
    "GruCell",
    "LstmCell",
    "Multiply",
    "RnnCell",
    "Rounding",
    "State",
    "Tape",
    "exactly",
]

State = tuple[Array, Array]
Tape = tuple[Array, ...]
Rounding = Callable[[Array], Array]
"""What becomes of every result: nothing, or rounding to a precision."""
Multiply = Callable[[Array, Array], Array]
"""A product of matrices, as the hardware computes it."""


def exactly(values: Array) -> Array:
    """Returns the values as they are."""
    return values


class Cell(Protocol):
    """One step: from projected input `(batch, gates * hidden)` and state to the next state.

    A state is the hidden and the cell state, each `(batch, hidden)`; only LSTM uses the latter.
    """

    def forward(
        self, projected: Array, state: State, rounded: Rounding = exactly
    ) -> tuple[State, Tape]:
        """Returns the next state, and what `backward` needs to know.

        Every product, sum and activation goes through `rounded`, as a builder that unrolls the
        step computes each in the type of its tensors.
        """
        ...

    def backward(self, tape: Tape, gradients: State) -> tuple[Array, State]:
        """Returns the gradients at the projected input and at the state before."""
        ...


@dataclass(frozen=True, slots=True)
class RnnCell:
    """ONNX RNN: H = tanh(x + H R^T)."""

    recurrent: Array
    """Shape `(hidden, hidden)`."""

    multiply: Multiply = np.matmul
    """How matrices are multiplied."""

    def forward(
        self, projected: Array, state: State, rounded: Rounding = exactly
    ) -> tuple[State, Tape]:
        """Returns the next state, and it again."""
        total = rounded(projected + rounded(self.multiply(state[0], self.recurrent.T)))
        hidden = rounded(np.tanh(total))
        return (hidden, state[1]), (hidden,)

    def backward(self, tape: Tape, gradients: State) -> tuple[Array, State]:
        """Returns g (1 - H^2), and that times R."""
        (hidden,) = tape
        at_sum = gradients[0] * (1 - hidden * hidden)
        return at_sum, (at_sum @ self.recurrent, gradients[1])


@dataclass(frozen=True, slots=True)
class LstmCell:
    """ONNX LSTM: C = f C' + i c, H = o tanh(C), gates in the order i, o, f, c."""

    recurrent: Array
    """Shape `(4 * hidden, hidden)`."""

    peepholes: Array
    """Weights of the cell state in the gates i, o and f, shape `(3, hidden)`."""

    multiply: Multiply = np.matmul
    """How matrices are multiplied."""

    def forward(
        self, projected: Array, state: State, rounded: Rounding = exactly
    ) -> tuple[State, Tape]:
        """Returns the next state, and the gates."""
        hidden, cell = state
        total = rounded(projected + rounded(self.multiply(hidden, self.recurrent.T)))
        at_input, at_output, at_forget, at_candidate = np.split(total, 4, axis=-1)

        def gate(at_gate: Array, peephole: Array, seen: Array) -> Array:
            if peephole.any():
                at_gate = rounded(at_gate + rounded(peephole * seen))
            return rounded(sigmoid(at_gate))

        input_gate = gate(at_input, self.peepholes[0], cell)
        forget_gate = gate(at_forget, self.peepholes[2], cell)
        candidate = rounded(np.tanh(at_candidate))
        next_cell = rounded(rounded(forget_gate * cell) + rounded(input_gate * candidate))
        output_gate = gate(at_output, self.peepholes[1], next_cell)
        squashed = rounded(np.tanh(next_cell))
        tape = (input_gate, output_gate, forget_gate, candidate, cell, squashed)
        return (rounded(output_gate * squashed), next_cell), tape

    def backward(self, tape: Tape, gradients: State) -> tuple[Array, State]:
        """Returns the gradients by the chain rule, the output gate's peephole first."""
        input_gate, output_gate, forget_gate, candidate, cell, squashed = tape
        by_hidden, by_cell = gradients
        at_output = by_hidden * squashed * output_gate * (1 - output_gate)
        by_cell = (
            by_cell
            + by_hidden * output_gate * (1 - squashed * squashed)
            + at_output * self.peepholes[1]
        )
        at_input = by_cell * candidate * input_gate * (1 - input_gate)
        at_forget = by_cell * cell * forget_gate * (1 - forget_gate)
        at_candidate = by_cell * input_gate * (1 - candidate * candidate)
        total = np.concatenate([at_input, at_output, at_forget, at_candidate], axis=-1)
        before = (
            by_cell * forget_gate + at_input * self.peepholes[0] + at_forget * self.peepholes[2]
        )
        return total, (total @ self.recurrent, before)


@dataclass(frozen=True, slots=True)
class GruCell:
    """ONNX GRU: H = (1 - z) h + z H', gates in the order z, r, h."""

    recurrent: Array
    """Shape `(3 * hidden, hidden)`."""

    reset_bias: Array
    """Bias `(hidden,)` that the reset gate scales too; read with `resets_product` alone."""

    resets_product: bool
    """Whether r scales the product H' R instead of H' (`linear_before_reset`)."""

    multiply: Multiply = np.matmul
    """How matrices are multiplied."""

    def forward(
        self, projected: Array, state: State, rounded: Rounding = exactly
    ) -> tuple[State, Tape]:
        """Returns the next state, and the gates."""
        hidden = state[0]
        update, reset, at_candidate = np.split(projected, 3, axis=-1)
        of_update, of_reset, of_candidate = np.split(self.recurrent, 3)
        update = rounded(sigmoid(rounded(update + rounded(self.multiply(hidden, of_update.T)))))
        reset = rounded(sigmoid(rounded(reset + rounded(self.multiply(hidden, of_reset.T)))))
        if self.resets_product:
            recalled = rounded(rounded(self.multiply(hidden, of_candidate.T)) + self.reset_bias)
            product = rounded(reset * recalled)
        else:
            recalled = hidden
            product = rounded(self.multiply(rounded(reset * hidden), of_candidate.T))
        candidate = rounded(np.tanh(rounded(at_candidate + product)))
        next_hidden = rounded(rounded(rounded(1 - update) * candidate) + rounded(update * hidden))
        return (next_hidden, state[1]), (update, reset, candidate, hidden, recalled)

    def backward(self, tape: Tape, gradients: State) -> tuple[Array, State]:
        """Returns the gradients by the chain rule, the candidate's first."""
        update, reset, candidate, hidden, recalled = tape
        by_hidden = gradients[0]
        of_update, of_reset, of_candidate = np.split(self.recurrent, 3)
        at_candidate = by_hidden * (1 - update) * (1 - candidate * candidate)
        at_update = by_hidden * (hidden - candidate) * update * (1 - update)
        if self.resets_product:
            by_reset = at_candidate * recalled
            before = (at_candidate * reset) @ of_candidate
        else:
            by_product = at_candidate @ of_candidate
            by_reset = by_product * recalled
            before = by_product * reset
        at_reset = by_reset * reset * (1 - reset)
        before += by_hidden * update + at_update @ of_update + at_reset @ of_reset
        return np.concatenate([at_update, at_reset, at_candidate], axis=-1), (before, gradients[1])
