"""A quantised model as a float graph and the pairs that stand on its edges."""

from polygraphy_layerprec.model.quantized.passing_by import pass_pairs_by
from polygraphy_layerprec.model.quantized.records import Pair, QuantizedGraph, UnrankedNode

__all__ = ["Pair", "QuantizedGraph", "UnrankedNode", "pass_pairs_by"]
