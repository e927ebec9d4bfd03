"""Vector-Jacobian rules: how a gradient at a node's outputs becomes one at its inputs.

A rule is a function `(application, output_gradients) -> input_gradients`, registered for the ONNX
operators and the operator-set version it holds from. It declares which values it reads, so that
only these are kept until the backward sweep.

Every rule runs with numpy's floating-point warnings off, and its gradients come out in the dtype
of the output gradients with non-finite values replaced by 0: a local derivative that does not
exist (at the root of 0, at a division by 0) says nothing, and must not spoil the whole sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from polygraphy_layerprec.arrays import library_of, namespace_of, on_host
from polygraphy_layerprec.divergence.rules.chain import finite

__all__ = [
    "Application",
    "Array",
    "Gradients",
    "Reads",
    "Rule",
    "find_rule",
    "numpy_product",
    "rule",
    "single_output_rule",
]

Array = npt.NDArray[Any]
Gradients = Sequence[Array | None]


class Reads(Enum):
    """Which input values a rule reads to form the gradient with respect to input `i`."""

    NONE = "none"
    """No input value: the operator is linear in input `i`, or its output says enough."""

    OTHERS = "others"
    """Every input but `i`: the operator is linear in each of its inputs."""

    ALL = "all"
    """Every input, `i` included."""


def numpy_product(
    first: Array,
    second: Array,
    *,
    transpose_first: bool = False,
    transpose_second: bool = False,
) -> Array:
    """Returns the matrix product over the last two axes, with either operand transposed there."""
    left = first.swapaxes(-1, -2) if transpose_first else first
    product: Array = np.matmul(left, second.swapaxes(-1, -2) if transpose_second else second)
    return product


@dataclass(frozen=True, slots=True)
class Application:
    """One node applied to its reference values, as a rule sees it."""

    op_type: str
    """ONNX operator name, for example `MatMul`."""

    opset: int
    """Operator-set version of the node's domain in the model."""

    attributes: Mapping[str, Any]
    """Attributes present on the node: int, float, str, lists of these, or arrays."""

    inputs: Sequence[Array | None]
    """Reference value of each input; None where absent or where the rule does not read it."""

    outputs: Sequence[Array | None]
    """Reference value of each output; None where absent or where the rule does not read it."""

    input_shapes: Sequence[tuple[int, ...] | None]
    """Shape of each input; None where absent."""

    output_shapes: Sequence[tuple[int, ...] | None]
    """Shape of each output; None where absent."""

    wanted: frozenset[int]
    """Positions of the inputs whose gradient is asked for."""

    product: Callable[..., Array] = numpy_product
    """Multiplies matrices, with the arguments of `numpy_product`."""

    def input(self, position: int) -> Array:
        """Returns the value of one input.

        Raises:
            ValueError: When it is absent or was not kept.
        """
        return _present(self.inputs, position, f"{self.op_type} input")

    def output(self, position: int = 0) -> Array:
        """Returns the value of one output.

        Raises:
            ValueError: When it is absent or was not kept.
        """
        return _present(self.outputs, position, f"{self.op_type} output")

    def has_input(self, position: int) -> bool:
        """Tells whether the node is given an input at `position`."""
        return position < len(self.input_shapes) and self.input_shapes[position] is not None

    def input_shape(self, position: int = 0) -> tuple[int, ...]:
        """Returns the shape of one input.

        Raises:
            ValueError: When it is absent.
        """
        return _present(self.input_shapes, position, f"{self.op_type} input shape")


VectorJacobian = Callable[[Application, Gradients], Gradients]
SingleOutputRule = Callable[[Application, Array], Gradients]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Rule:
    """How gradients pass backwards through one operator."""

    since: int
    """First operator-set version the rule holds for, until a later rule takes over."""

    reads_inputs: Reads
    """Input values that `apply` reads."""

    reads_always: frozenset[int]
    """Positions of the inputs that `apply` reads whichever gradient it forms."""

    reads_outputs: bool
    """Whether `apply` reads output values."""

    takes_coarse: bool
    """Whether large values that `apply` reads may be off by 2**-9 of themselves: gradients are
    multiplied with them or with a smooth function of theirs, and nothing is compared with them."""

    apply: VectorJacobian
    """Returns one gradient for each input, with the input's shape and the dtype of the output
    gradients; None for inputs not in `wanted`, and for those that the rule cannot serve. A None
    output gradient stands for zeros. A gradient may be a read-only view, or share memory with an
    output gradient: add to it out of place."""


_RULES: dict[tuple[str, str], list[Rule]] = {}


def rule(
    *op_types: str,
    domain: str = "",
    since: int = 1,
    reads_inputs: Reads = Reads.NONE,
    reads_always: frozenset[int] = frozenset(),
    reads_outputs: bool = False,
    takes_coarse: bool = False,
) -> Callable[[VectorJacobian], VectorJacobian]:
    """Registers the decorated function for operators of one domain (`""` is ONNX's own).

    The function may return fewer gradients than there are inputs; those left out are None.
    """

    def register(function: VectorJacobian) -> VectorJacobian:
        guarded = _guarded(function)
        for op_type in op_types:
            rules = _RULES.setdefault((domain, op_type), [])
            rules.append(
                Rule(since, reads_inputs, reads_always, reads_outputs, takes_coarse, guarded)
            )
            rules.sort(key=lambda candidate: candidate.since)
        return function

    return register


def single_output_rule(
    *op_types: str,
    domain: str = "",
    since: int = 1,
    reads_inputs: Reads = Reads.NONE,
    reads_always: frozenset[int] = frozenset(),
    reads_outputs: bool = False,
    takes_coarse: bool = False,
) -> Callable[[SingleOutputRule], SingleOutputRule]:
    """Registers, like `rule`, a function that takes the gradient of the first output alone."""

    def register(function: SingleOutputRule) -> SingleOutputRule:
        @wraps(function)
        def of_all_outputs(application: Application, output_gradients: Gradients) -> Gradients:
            gradient = output_gradients[0]
            return () if gradient is None else function(application, gradient)

        rule(
            *op_types,
            domain=domain,
            since=since,
            reads_inputs=reads_inputs,
            reads_always=reads_always,
            reads_outputs=reads_outputs,
            takes_coarse=takes_coarse,
        )(of_all_outputs)
        return function

    return register


def find_rule(op_type: str, domain: str, opset: int) -> Rule | None:
    """Returns the newest rule that holds at `opset`, or None when the operator has none."""
    applicable = [r for r in _RULES.get((domain, op_type), []) if r.since <= opset]
    return applicable[-1] if applicable else None


def _present(values: Sequence[Value | None], position: int, what: str) -> Value:
    value = values[position] if position < len(values) else None
    if value is None:
        msg = f"must be present, got no {what} {position}"
        raise ValueError(msg)
    return value


def _guarded(function: VectorJacobian) -> VectorJacobian:
    @wraps(function)
    def apply(application: Application, output_gradients: Gradients) -> Gradients:
        like = next((g for g in output_gradients if g is not None), None)
        gradients: list[Array | None] = [None] * len(application.input_shapes)
        if like is None:
            return gradients
        xp = namespace_of(like)
        with np.errstate(all="ignore"):
            handed = _where_it_can(function, application, output_gradients, like)
            for position, gradient in enumerate(handed):
                if gradient is not None and position in application.wanted:
                    gradients[position] = finite(xp.asarray(gradient, like.dtype))
        return gradients

    return apply


def _where_it_can(
    function: VectorJacobian, application: Application, output_gradients: Gradients, like: Array
) -> Gradients:
    """Applies a rule where its arrays lie, or on the host if it knows numpy's alone."""
    if library_of(like) is None:
        return function(application, output_gradients)
    try:
        return function(application, output_gradients)
    except (AttributeError, NotImplementedError, TypeError):
        # So libraries of device arrays refuse what they lack, and numpy's arrays among theirs.
        def moved(values: Array | None) -> Array | None:
            return None if values is None else on_host(values)

        hosted = replace(
            application,
            inputs=[moved(values) for values in application.inputs],
            outputs=[moved(values) for values in application.outputs],
            product=numpy_product,
        )
        return function(hosted, [moved(gradient) for gradient in output_gradients])
