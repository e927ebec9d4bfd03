"""The command line: `polygraphy layerprec`.

Every `polygraphy` command imports this package, so it and what it imports at module level must
stay light: no numpy, onnx or ONNX-Runtime.
"""

from polygraphy_layerprec.tools.layerprec import Layerprec

__all__ = ["Layerprec"]
