"""`python -m polygraphy_layerprec`: the same tool as `polygraphy layerprec`."""

from __future__ import annotations

import sys

from polygraphy_layerprec.tools.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
