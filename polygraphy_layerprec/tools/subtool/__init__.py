"""One file for each verb of `polygraphy layerprec`."""

from polygraphy_layerprec.tools.subtool.constrain import Constrain
from polygraphy_layerprec.tools.subtool.inspect import Inspect
from polygraphy_layerprec.tools.subtool.rank import Rank
from polygraphy_layerprec.tools.subtool.verify import Verify

__all__ = ["Constrain", "Inspect", "Rank", "Verify"]
