"""One file for each verb of `polygraphy layerprec`."""

from polygraphy_layerprec.tools.subtool.compare import Compare
from polygraphy_layerprec.tools.subtool.constrain import Constrain
from polygraphy_layerprec.tools.subtool.inspect import Inspect
from polygraphy_layerprec.tools.subtool.merge import Merge
from polygraphy_layerprec.tools.subtool.rank import Rank
from polygraphy_layerprec.tools.subtool.report import Report
from polygraphy_layerprec.tools.subtool.verify import Verify

__all__ = ["Compare", "Constrain", "Inspect", "Merge", "Rank", "Report", "Verify"]
