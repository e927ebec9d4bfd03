"""Ranks the layers of an ONNX model by what low precision does to its outputs.

`polygraphy layerprec rank model.onnx` on the command line; in Python:

    from polygraphy_layerprec import rank_model
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polygraphy_layerprec.files.ranking_file import load_ranking, save_ranking
    from polygraphy_layerprec.pipeline import rank_model
    from polygraphy_layerprec.records import Ranking

__all__ = ["Ranking", "__version__", "load_ranking", "rank_model", "save_ranking"]

__version__ = "0.1.0"

_HOMES = {
    "Ranking": "polygraphy_layerprec.records",
    "load_ranking": "polygraphy_layerprec.files.ranking_file",
    "rank_model": "polygraphy_layerprec.pipeline",
    "save_ranking": "polygraphy_layerprec.files.ranking_file",
}


# Every `polygraphy` command imports this package for its plugin hook: nothing heavy before use.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
