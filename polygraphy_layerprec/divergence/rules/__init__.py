"""Vector-Jacobian rules of ONNX operators: one module for each family, found by `find_rule`."""

from __future__ import annotations

from polygraphy_layerprec.divergence.rules import (
    activations,
    arithmetic,
    attention,
    convolution,
    functions,
    grid_sampling,
    indexing,
    integer_products,
    movement,
    normalization,
    pooling,
    products,
    quantization,
    quantized_operators,
    recurrent,
    reduction,
    resampling,
)
from polygraphy_layerprec.divergence.rules.registry import Application, Reads, Rule, find_rule, rule

__all__ = [
    "Application",
    "Reads",
    "Rule",
    "activations",
    "arithmetic",
    "attention",
    "convolution",
    "find_rule",
    "functions",
    "grid_sampling",
    "indexing",
    "integer_products",
    "movement",
    "normalization",
    "pooling",
    "products",
    "quantization",
    "quantized_operators",
    "recurrent",
    "reduction",
    "resampling",
    "rule",
]
