"""Operators in numpy as low precision computes them: rounded in, FP32 inside, rounded out."""

from __future__ import annotations

import numpy as np

__all__ = ["OPERATORS", "emulate", "half"]


def half(values):
    """Returns float32 values rounded to FP16 by numpy's own conversion."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def emulate(operator, *operands):
    """Returns `operator` on FP16 operands, accumulated in FP64, rounded to FP16."""
    exact = OPERATORS[operator](*(half(operand).astype(np.float64) for operand in operands))
    return half(exact.astype(np.float32))


def _softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _layer_norm(x, gamma, beta):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * gamma + beta


def _conv(x, weight, bias):
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,mcij->nmhw", windows, weight) + bias[None, :, None, None]


OPERATORS = {
    "Add": lambda a, b: a + b,
    "Mul": lambda a, b: a * b,
    "MatMul": lambda a, b: a @ b,
    "Gemm": lambda a, b, c: a @ b + c,
    "Conv": _conv,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
}
