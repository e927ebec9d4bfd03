"""Options about which rankings are compared."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.tools.args.output_path import check_output_path

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.records import Ranking
    from polygraphy_layerprec.report.before_after import FileComparison

__all__ = ["AgreementArgs"]

_DEFAULT_TOP: Final = 10


@export()
class AgreementArgs(BaseArgs):
    """
    Agreement: which files are compared, and what is shown.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "first",
            metavar="FIRST",
            help="Path of a ranking that `rank` saved with `--save-ranking`, as JSON; or of a "
            "script of `--save-script`; or of a verdict of `--save-verdict`.",
        )
        self.group.add_argument(
            "second",
            metavar="SECOND",
            help="Path of another one of that kind, of the same model.",
        )
        self.group.add_argument(
            "--top",
            metavar="NUM",
            help="How many of the layers that moved to list. For example: --top 50. "
            "Defaults to 10.",
            type=int,
            default=None,
        )
        self.group.add_argument(
            "--save-agreement",
            metavar="PATH",
            help="Path to save the whole comparison, as JSON. "
            "For example: --save-agreement agreement.json.",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            first (str): Path of the first ranking.
            second (str): Path of the second ranking.
            kind (str): What both are: `ranking`, `script` or `verdict`.
            top (int): How many of the layers that moved to list.
            save_agreement (str): Path to save the comparison, or None.
        """
        self.first = args_util.get(args, "first")
        self.second = args_util.get(args, "second")
        top = args_util.get(args, "top")
        self.top = _DEFAULT_TOP if top is None else top
        self.save_agreement = args_util.get(args, "save_agreement")
        self.kind = self._find_kind()
        if self.top < 1:
            G_LOGGER.critical(f"`--top` must be at least 1, got: {self.top}.")
        check_output_path(self.save_agreement, option="--save-agreement", suffixes=(".json",))

    def _find_kind(self) -> str:
        kinds = [_kind_of(path) for path in (self.first, self.second)]
        if kinds[0] != kinds[1]:
            G_LOGGER.critical(
                f"{self.first!r} is a {kinds[0]}, {self.second!r} a {kinds[1]}.\n"
                f"Give two files of one kind."
            )
        return kinds[0]

    def compare_files(self) -> FileComparison:
        """Returns what changed between two scripts or two verdicts."""
        from polygraphy_layerprec.emit.script_reading import load_network_script
        from polygraphy_layerprec.files.verdict_file import load_verdict
        from polygraphy_layerprec.report.before_after import compare_scripts, compare_verdicts

        if self.kind == "script":
            return compare_scripts(*map(load_network_script, (self.first, self.second)))
        return compare_verdicts(*map(load_verdict, (self.first, self.second)))

    def load_rankings(self) -> tuple[Ranking, Ranking]:
        """Returns both rankings."""
        from polygraphy_layerprec.files.ranking_file import load_ranking

        return load_ranking(self.first), load_ranking(self.second)


def _kind_of(path: str) -> str:
    from polygraphy_layerprec.files.verdict_file import is_verdict_file

    if os.path.splitext(path)[1].lower() == ".py":
        return "script"
    # What cannot be read is told where a ranking is loaded.
    return "verdict" if os.path.isfile(path) and is_verdict_file(path) else "ranking"
