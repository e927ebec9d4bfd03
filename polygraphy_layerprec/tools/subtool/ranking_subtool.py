"""What `rank` and `merge` share: a new ranking is decided on, shown and saved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.tools.args import ArtefactArgs, RankingReportArgs
from polygraphy_layerprec.tools.args.report_files import ReportFileArgs
from polygraphy_layerprec.tools.subtool.base import own_arguments
from polygraphy_layerprec.tools.subtool.choice_output import how_to_choose
from polygraphy_layerprec.tools.subtool.selecting import SelectingSubtool

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking, Selection
    from polygraphy_layerprec.tools.measurement import Measurement

__all__ = ["RankingSubtool"]


class RankingSubtool(SelectingSubtool):
    """Base of the subtools that make a ranking."""

    def show_and_act(
        self,
        ranking: Ranking,
        graph: Graph,
        measured: Measurement | None,
        *,
        args: argparse.Namespace,
        model_path: str,
        external_data_folder: str | None,
    ) -> int:
        """Decides, shows and saves, and returns the exit code.

        Args:
            ranking: The ranking.
            graph: The model.
            measured: What sets are measured with, as `measurement` gives it.
            args: The options, which say how many files will be saved.
            model_path: Path of the model.
            external_data_folder: Where its data files are, if not beside it.
        """
        selection = self.choose(ranking, measured)
        ranking = replace(ranking, decision=selection.decision)
        report = self.arg_groups[RankingReportArgs]
        self.show(
            ranking,
            selection,
            args,
            hint=_how_to_choose(report.save_ranking),
            commands=[
                *self.build_commands(ranking, selection, model_path, external_data_folder),
                *self._next_steps(selection, ranking.precision),
            ],
        )
        report.save(ranking)
        reached = self.act_on(
            ranking,
            selection,
            measured,
            model_path=model_path,
            graph=graph,
            external_data_folder=external_data_folder,
        )
        if next_steps := self._next_steps(selection, ranking.precision):
            G_LOGGER.info("\n".join(next_steps))
        failed = sum(layer.failed for layer in ranking.unmeasured)
        if failed:
            G_LOGGER.error(
                f"Could not measure {count_of(failed, 'layer')}, so the ranking is without "
                f"them.\nThe report above says why."
            )
        return 0 if reached and not failed else 1

    def _next_steps(self, selection: Selection, precision: str) -> list[str]:
        """Returns how to keep the chosen layers, where nothing that does is saved."""
        from polygraphy_layerprec.report.next_steps import format_script_command

        saves = self.arg_groups[ArtefactArgs].is_wanted or self.arg_groups[ReportFileArgs].is_wanted
        if saves or not (selection.layers and selection.reached):
            return []
        return format_script_command(own_arguments(self.name), precision=precision)


def _how_to_choose(ranking_path: str | None) -> str:
    if ranking_path is not None and ranking_path.lower().endswith(".json"):
        return how_to_choose(ranking_path)
    return "another: first add `--save-ranking ranking.json`"
