"""`polygraphy layerprec report`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.args import (
    ComparisonArgs,
    CriterionArgs,
    RankedModelArgs,
    SampleArgs,
    SelectionArgs,
)
from polygraphy_layerprec.tools.args.quantized import QDQ_NAME, QuantizedModelArgs
from polygraphy_layerprec.tools.args.report_files import ReportFileArgs
from polygraphy_layerprec.tools.subtool.selecting import SelectingSubtool, model_arguments

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.records import Ranking

__all__ = ["Report"]


class Report(SelectingSubtool):
    r"""
    Report on a ranking that was saved: a page to look at, a picture, or text to paste.

    The page is one file that opens offline. The typical usage of `report` is:

        polygraphy layerprec report ranking.json -o report.html

    With the model and its inputs, the error of the chosen set and of others is measured:

        polygraphy layerprec report ranking.json --model model.onnx --load-inputs inputs.npz \
            --tolerance 1e-3 -o report.html

    For an issue or a pull request:

        polygraphy layerprec report ranking.json --format markdown --save-plot layers.svg
    """

    def __init__(self) -> None:
        super().__init__("report")

    def get_subscriptions_impl(self) -> list[Any]:
        """Returns the argument groups."""
        return [
            RankedModelArgs(),
            QuantizedModelArgs(),
            SampleArgs(allow_custom_input_shapes=False),
            CriterionArgs(),
            ComparisonArgs(),
            SelectionArgs(allow_choose=True),
            ReportFileArgs(allow_plot=True, allow_json=False, report_is_output=True),
        ]

    def run_job(self, args: argparse.Namespace) -> int:  # noqa: ARG002 - parsed already
        """Selects, draws and saves; shows Markdown if nothing else was asked for."""
        from polygraphy_layerprec.report.markdown import format_report_markdown

        files = self.arg_groups[ReportFileArgs]
        if not (files.is_wanted or files.is_markdown):
            G_LOGGER.critical(
                "Nothing was asked for.\nName a file, for example `-o report.html`, or give "
                "`--format markdown`."
            )
        ranked = self.arg_groups[RankedModelArgs]
        graph = ranked.load_graph()
        ranking = ranked.load_ranking(graph)
        if graph is not None:
            graph = self.arg_groups[QuantizedModelArgs].ranked_graph(graph, ranking)
        outputs = ranking.conditions.outputs or None
        measured = self.measurement(graph, outputs)
        selection = self.choose(ranking, measured)
        curve = self._save_curve(ranking, measured)
        report = self._ranking_report(
            ranking,
            selection,
            curve or self._curve(ranking, measured),
            model_path=ranked.model_path,
            external_data_dir=ranked.external_data_dir,
            arguments=_constrain_arguments(ranking, has_model=graph is not None),
        )
        files.save_ranking(report)
        if files.is_markdown:
            files.show_markdown(format_report_markdown(report))
        return 0


def _constrain_arguments(ranking: Ranking, *, has_model: bool) -> list[str]:
    """Returns the arguments of `constrain` that choose what this command chose."""
    after = sys.argv[sys.argv.index("report") + 1 :] if "report" in sys.argv else []
    # A script needs no model; one with fewer pairs is made of the model.
    needed = model_arguments(ranking) if ranking.precision == QDQ_NAME and not has_model else []
    return ["constrain", *after, *needed]
