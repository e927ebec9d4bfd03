"""Mixed-precision ONNX: chosen layers stay in FP32, the others compute in a low precision.

A plan for the target `onnx` says the width of every tensor; `rewriting` makes a model of it, and
`lowering` or `files` fills in the weights, converted where asked.
"""

from __future__ import annotations

from polygraphy_layerprec.emit.mixed_onnx.files import save_mixed_onnx
from polygraphy_layerprec.emit.mixed_onnx.lowering import lower_model
from polygraphy_layerprec.emit.mixed_onnx.summary import LoweringSummary

__all__ = ["LoweringSummary", "lower_model", "save_mixed_onnx"]
