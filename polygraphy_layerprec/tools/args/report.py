"""Options about how a ranking is shown and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.terminal_output import log_width
from polygraphy_layerprec.tools.args.output_path import check_output_path

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

    def __init__(self, *, allow_save: bool = True) -> None:
        """
        Args:
            allow_save (bool): Whether there is a new ranking to save. Defaults to True.
        """
        super().__init__()
        self._allow_save = allow_save

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--show",
            "--top",
            metavar="NUM",
            help="How many layers to list in a table, with all that was measured. For example: "
            "--show 50. Without it, and without `--sort-by`, culprits are shown in one look.",
            dest="show",
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
        if not self._allow_save:
            return
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
            is_table (bool): Whether layers are listed, and not summed up in one look.
            sort_by (str): The order of the list.
            save_ranking (str): Path to save the ranking, or None.
        """
        top, sort_by = args_util.get(args, "show"), args_util.get(args, "sort_by")
        self.top = _DEFAULT_TOP if top is None else top
        self.is_table = top is not None or sort_by is not None
        self.sort_by: SortKey = sort_by or "impact"
        self.save_ranking = args_util.get(args, "save_ranking") if self._allow_save else None
        if self.top < 1:
            G_LOGGER.critical(f"`--show` (`--top`) must be at least 1, got: {self.top}.")
        check_output_path(self.save_ranking, option="--save-ranking", suffixes=(".json", ".csv"))

    def show(self, ranking: Ranking) -> None:
        """Logs the layers in a table, and what was measured of all of them."""
        from polygraphy_layerprec.report.table import format_ranking

        lines = format_ranking(ranking, top=self.top, sort_by=self.sort_by, width=log_width())
        G_LOGGER.info("\n".join(lines))

    def save(self, ranking: Ranking) -> None:
        """Saves the ranking, if a path was given."""
        if self.save_ranking is None:
            return
        from polygraphy_layerprec.files.ranking_file import save_ranking

        save_ranking(ranking, self.save_ranking)
        G_LOGGER.info(f"Saved the ranking to {self.save_ranking}")
