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
    movement,
    normalization,
    pooling,
    products,
    quantization,
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
    "movement",
    "normalization",
    "pooling",
    "products",
    "quantization",
    "recurrent",
    "reduction",
    "resampling",
    "rule",
]
