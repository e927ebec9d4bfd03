"""What `rank` and `merge` share: a new ranking is shown, saved and acted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.args import ArtefactArgs, RankingReportArgs, SelectionArgs
from polygraphy_layerprec.tools.args.report_files import ReportFileArgs
from polygraphy_layerprec.tools.subtool.selecting import SelectingSubtool, own_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["RankingSubtool"]


class RankingSubtool(SelectingSubtool):
    """Base of the subtools that make a ranking."""

    def show_and_act(
        self,
        ranking: Ranking,
        graph: Graph,
        *,
        model_path: str,
        outputs: Sequence[str] | None,
        external_data_folder: str | None,
    ) -> int:
        """Shows and saves a ranking, selects layers if asked to, and returns the exit code."""
        report = self.arg_groups[RankingReportArgs]
        if self.arg_groups[ReportFileArgs].is_markdown:
            self._show_markdown(ranking)
        else:
            report.show(ranking)
        report.save(ranking)
        reached = self._act_on(
            ranking,
            graph,
            model_path=model_path,
            outputs=outputs,
            external_data_folder=external_data_folder,
        )
        failed = sum(layer.failed for layer in ranking.unmeasured)
        if failed:
            G_LOGGER.error(
                f"Could not measure {failed} layers, so the ranking is without "
                f"them.\nThe report above says why."
            )
        return 0 if reached and not failed else 1

    def _show_markdown(self, ranking: Ranking) -> None:
        from polygraphy_layerprec.report.markdown import format_ranking_markdown

        report = self.arg_groups[RankingReportArgs]
        lines = format_ranking_markdown(ranking, top=report.top, sort_by=report.sort_by)
        self.arg_groups[ReportFileArgs].show_markdown(lines)

    def _act_on(
        self,
        ranking: Ranking,
        graph: Graph,
        *,
        model_path: str,
        outputs: Sequence[str] | None,
        external_data_folder: str | None,
    ) -> bool:
        """Selects layers, if asked to; returns whether any tolerance is met.

        A tolerance is met by measured errors; otherwise the ranking says all there is to know.
        """
        from polygraphy_layerprec.ranking.order import forecast_holds

        selection = self.arg_groups[SelectionArgs]
        wants_files = (
            self.arg_groups[ArtefactArgs].is_wanted or self.arg_groups[ReportFileArgs].is_wanted
        )
        if not (selection.is_given or wants_files):
            from polygraphy_layerprec.report.next_steps import format_script_command

            G_LOGGER.info("\n".join(format_script_command(own_arguments(self.name))))
            return True
        # Where the forecast does not hold for the whole, the choice is measured.
        needs_measuring = selection.needs_measuring or not forecast_holds(ranking.output_error)
        return self.select_and_save(
            ranking,
            model_path=model_path,
            graph=graph,
            measures=needs_measuring,
            outputs=outputs,
            external_data_folder=external_data_folder,
        )
