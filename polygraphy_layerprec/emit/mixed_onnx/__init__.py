"""Mixed-precision ONNX: chosen layers stay in FP32, the others compute in a low precision.

The stages, in order: `detached` takes the weights out of the model, `graph_view` reads names and
types, `decisions` settles the precision of every node, `casting` rewrites the graph, and
`lowering` or `files` puts the weights back, converted where asked.
"""

from __future__ import annotations

from polygraphy_layerprec.emit.mixed_onnx.files import save_mixed_onnx
from polygraphy_layerprec.emit.mixed_onnx.lowering import lower_model
from polygraphy_layerprec.emit.mixed_onnx.summary import Fp32Node, LoweringSummary

__all__ = ["Fp32Node", "LoweringSummary", "lower_model", "save_mixed_onnx"]
