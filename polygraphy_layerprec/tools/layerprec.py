"""The tool `layerprec` and its subtools."""

from __future__ import annotations

from polygraphy.tools.base import Tool

from polygraphy_layerprec.tools.subtool import Compare, Constrain, Inspect, Rank, Report, Verify

__all__ = ["Layerprec"]


class Layerprec(Tool):
    """
    Find the layers of an ONNX model that suffer from low precision, and keep them in FP32.

    The typical usage of `layerprec` is:

        polygraphy layerprec rank model.onnx --load-inputs inputs.json --save-script constraints.py
    """

    def __init__(self) -> None:
        super().__init__("layerprec")

    def get_subtools_impl(self) -> tuple[str, list[Tool]]:
        """Returns a title and the subtools."""
        tools: list[Tool] = [Rank(), Constrain(), Verify(), Inspect(), Compare(), Report()]
        return "Layer Precision Subtools", tools
