"""Rules of the elementary functions of one variable."""

from __future__ import annotations

from math import pi, sqrt
from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.divergence.rules.chain import chain
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__: list[str] = []

_BY_OUTPUT: dict[str, Callable[[Array], Array]] = {
    "Sqrt": lambda y: 0.5 / y,
    "Exp": lambda y: y,
    "Reciprocal": lambda y: -y * y,
    "Tan": lambda y: 1 + y * y,
    "Tanh": lambda y: 1 - y * y,
    "Sigmoid": lambda y: y * (1 - y),
    "Softplus": lambda y: -np.expm1(-y),
    "Softsign": lambda y: (1 - np.abs(y)) ** 2,
}

_BY_INPUT: dict[str, Callable[[Array], Array]] = {
    "Log": lambda x: 1 / x,
    "Sin": np.cos,
    "Cos": lambda x: -np.sin(x),
    "Asin": lambda x: 1 / np.sqrt(1 - x * x),
    "Acos": lambda x: -1 / np.sqrt(1 - x * x),
    "Atan": lambda x: 1 / (1 + x * x),
    "Sinh": np.cosh,
    "Cosh": np.sinh,
    "Asinh": lambda x: 1 / np.sqrt(x * x + 1),
    "Acosh": lambda x: 1 / np.sqrt(x * x - 1),
    "Atanh": lambda x: 1 / (1 - x * x),
    "Erf": lambda x: (2 / sqrt(pi)) * np.exp(-x * x),
}


@single_output_rule(*_BY_OUTPUT, reads_outputs=True)
def _by_output(application: Application, gradient: Array) -> Gradients:
    """ONNX Sqrt, Exp, Tanh and others: dy/dx from the table of derivatives, in terms of y."""
    return [chain(gradient, _BY_OUTPUT[application.op_type](application.output()))]


@single_output_rule(*(_BY_INPUT.keys() - {"Erf"}), reads_inputs=Reads.ALL)
@single_output_rule("Erf", reads_inputs=Reads.ALL, takes_coarse=True)
def _by_input(application: Application, gradient: Array) -> Gradients:
    """ONNX Log, Sin, Erf and others: dy/dx from the table of derivatives, in terms of x."""
    return [chain(gradient, _BY_INPUT[application.op_type](application.input(0)))]
