"""The tool `layerprec` and its subtools."""

from __future__ import annotations

from typing import Final

from polygraphy.tools.base import Tool

__all__ = ["Layerprec"]


class Layerprec(Tool):
    """
    Find the layers of an ONNX model that suffer from low precision, and keep them in FP32.

    The typical usage of `layerprec` is:

        polygraphy layerprec rank model.onnx --load-inputs inputs.json --save-script constraints.py
    """

    NAME: Final = "layerprec"

    def __init__(self, *, is_listed_only: bool = False) -> None:
        super().__init__(self.NAME)
        self._is_listed_only = is_listed_only

    def get_subtools_impl(self) -> tuple[str, list[Tool]]:
        """Returns a title and the subtools, none of them where the tool is listed only."""
        if self._is_listed_only:
            return "", []
        from polygraphy_layerprec.tools.subtool import (
            Compare,
            Constrain,
            Inspect,
            Merge,
            Rank,
            Report,
            Verify,
        )

        tools: list[Tool] = [Rank(), Merge(), Constrain(), Verify(), Inspect(), Compare(), Report()]
        return "Layer Precision Subtools", tools
