"""Argument groups, in the format that Polygraphy parses: the docstrings are the help texts."""

from polygraphy_layerprec.tools.args.artefacts import ArtefactArgs
from polygraphy_layerprec.tools.args.comparison import ComparisonArgs
from polygraphy_layerprec.tools.args.criterion import CriterionArgs
from polygraphy_layerprec.tools.args.measure import MeasureArgs
from polygraphy_layerprec.tools.args.model import OnnxGraphArgs
from polygraphy_layerprec.tools.args.ranked_model import RankedModelArgs
from polygraphy_layerprec.tools.args.report import RankingReportArgs
from polygraphy_layerprec.tools.args.report_files import ReportFileArgs
from polygraphy_layerprec.tools.args.samples import SampleArgs
from polygraphy_layerprec.tools.args.selection import SelectionArgs

__all__ = [
    "ArtefactArgs",
    "ComparisonArgs",
    "CriterionArgs",
    "MeasureArgs",
    "OnnxGraphArgs",
    "RankedModelArgs",
    "RankingReportArgs",
    "ReportFileArgs",
    "SampleArgs",
    "SelectionArgs",
]
