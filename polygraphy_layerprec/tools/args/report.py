"""Options about how a ranking is shown and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.tools.args.output_path import check_output_path
from polygraphy_layerprec.tools.terminal import log_width, wrapped

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.records import Ranking
    from polygraphy_layerprec.report.table import SortKey

__all__ = ["RankingReportArgs"]

_DEFAULT_TOP: Final = 20


@export()
class RankingReportArgs(BaseArgs):
    """
    Report: showing and saving the ranking.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--top",
            metavar="NUM",
            help="How many layers to list. For example: --top 50. Defaults to 20.",
            type=int,
            default=None,
        )
        self.group.add_argument(
            "--sort-by",
            help="The order of the list. The ranking itself is always by impact. "
            "Defaults to impact.",
            choices=["impact", "introduced", "cumulative", "name"],
            default=None,
        )
        self.group.add_argument(
            "--save-ranking",
            metavar="PATH",
            help="Path to save the whole ranking. A `.json` file holds everything, a `.csv` file a "
            "row for each layer. For example: --save-ranking ranking.json.",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            top (int): How many layers to list.
            sort_by (str): The order of the list.
            save_ranking (str): Path to save the ranking, or None.
        """
        top = args_util.get(args, "top")
        self.top = _DEFAULT_TOP if top is None else top
        self.sort_by: SortKey = args_util.get(args, "sort_by") or "impact"
        self.save_ranking = args_util.get(args, "save_ranking")
        if self.top < 1:
            G_LOGGER.critical(f"`--top` must be at least 1, got: {self.top}.")
        check_output_path(self.save_ranking, option="--save-ranking", suffixes=(".json", ".csv"))

    def show(self, ranking: Ranking) -> None:
        """Logs the ranking and what the reader must know about it."""
        from polygraphy_layerprec.report.table import format_ranking

        lines = format_ranking(ranking, top=self.top, sort_by=self.sort_by, width=log_width())
        G_LOGGER.info("\n".join(lines))
        for warning in ranking.warnings:
            G_LOGGER.warning(wrapped(warning))

    def save(self, ranking: Ranking) -> None:
        """Saves the ranking, if a path was given."""
        if self.save_ranking is None:
            return
        from polygraphy_layerprec.report.ranking_file import save_ranking

        save_ranking(ranking, self.save_ranking)
        G_LOGGER.info(f"Saved the ranking to {self.save_ranking}")
