"""Options about reports for people to look at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.tools.args.output_path import check_output_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from polygraphy_layerprec.records import RankingAgreement, Verification
    from polygraphy_layerprec.report.before_after import FileComparison
    from polygraphy_layerprec.report.ranking_report import RankingReport

__all__ = ["ReportFileArgs"]


@export()
class ReportFileArgs(BaseArgs):
    """
    Report Files: saving reports for people to look at, and tables to paste.
    """

    def __init__(
        self,
        *,
        allow_files: bool = True,
        allow_plot: bool = False,
        allow_json: bool = True,
        report_is_output: bool = False,
    ) -> None:
        """
        Args:
            allow_files (bool): Whether files can be saved. Defaults to True.
            allow_plot (bool): Whether there are layers to draw. Defaults to False.
            allow_json (bool): Whether results are shown as JSON too. Defaults to True.
            report_is_output (bool):
                    Whether the report is the one artefact of the tool. Defaults to False.
        """
        super().__init__()
        self._allow_files = allow_files
        self._allow_plot = allow_plot
        self._allow_json = allow_json
        self._report_is_output = report_is_output

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        names = ["-o", "--output"] if self._report_is_output else ["--save-report"]
        if self._allow_files:
            self.group.add_argument(
                *names,
                metavar="PATH",
                help="Path to save a report: a page that opens offline if it ends in `.html`, text "
                f"to paste into an issue if it ends in `.md`. For example: {names[0]} report.html.",
                dest="save_report",
                default=None,
            )
        if self._allow_plot:
            self.group.add_argument(
                "--save-plot",
                metavar="PATH",
                help="Path to save a picture of the impacts along the depth of the network and of "
                "the worst layers, as `.png` or `.svg`. For example: --save-plot layers.svg.",
                default=None,
            )
        json = "; 'json': what `--save-verdict` or `--save-agreement` saves, for programs"
        self.group.add_argument(
            "--format",
            help="How results are shown: {'table': in columns that fit the terminal; 'markdown': "
            f"to paste into an issue{json if self._allow_json else ''}}}. All but tables are alone "
            "on standard output, and the log is on standard error. "
            "For example: --format markdown. Defaults to table.",
            choices=["table", "markdown", *["json"] * self._allow_json],
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            save_report (str): Path to save a report, or None.
            save_plot (str): Path to save a picture of the layers, or None.
            is_markdown (bool): Whether results are shown as Markdown.
            is_json (bool): Whether results are shown as JSON.
        """
        option = "--output" if self._report_is_output else "--save-report"
        self.save_report = args_util.get(args, "save_report") if self._allow_files else None
        self.save_plot = args_util.get(args, "save_plot") if self._allow_plot else None
        self.is_markdown = args_util.get(args, "format") == "markdown"
        self.is_json = args_util.get(args, "format") == "json"
        check_output_path(self.save_report, option=option, suffixes=(".html", ".md"))
        check_output_path(self.save_plot, option="--save-plot", suffixes=(".png", ".svg"))
        if self.is_page:
            from polygraphy_layerprec.report.html.packages import check_report_packages

            check_report_packages()
        if self.save_plot is not None:
            from polygraphy_layerprec.report.layer_plot import check_plot_package

            check_plot_package()

    @property
    def is_wanted(self) -> bool:
        """Whether any file was asked for."""
        return self.save_report is not None or self.save_plot is not None

    def show_markdown(self, lines: Sequence[str]) -> None:
        """Writes lines as they are: what the log puts before them would make them code."""
        from polygraphy_layerprec.terminal_output import write_output

        write_output("\n".join(lines) + "\n")

    def show_json(self, make: Callable[[], str]) -> None:
        """Writes JSON alone to standard output, if it was asked for."""
        if not self.is_json:
            return
        from polygraphy_layerprec.terminal_output import write_output

        write_output(make())

    def save_ranking(self, report: RankingReport) -> None:
        """Saves the files that were asked for about a ranking."""
        if self.save_report is not None:
            from polygraphy_layerprec.report.markdown import format_report_markdown

            def render() -> str:
                from polygraphy_layerprec.report.html.rendering import render_ranking_report

                return render_ranking_report(report)

            self._save(render, lambda: format_report_markdown(report))
        if self.save_plot is not None:
            from polygraphy_layerprec.report.layer_plot import save_layer_plot

            path = self.save_plot
            save_layer_plot(report, path)
            G_LOGGER.info(f"Saved the picture to {self.save_plot}")

    def save_verification(self, verification: Verification) -> None:
        """Saves the report that was asked for about a verification."""
        from polygraphy_layerprec.report.markdown import format_verification_markdown

        def render() -> str:
            from polygraphy_layerprec.report.html.rendering import render_verification_report

            return render_verification_report(verification)

        self._save(render, lambda: format_verification_markdown(verification))

    def save_comparison(self, found: FileComparison, first: str, second: str) -> None:
        """Saves the report that was asked for about two scripts or two verdicts."""
        from polygraphy_layerprec.report.before_after import format_comparison_markdown

        def render() -> str:
            from polygraphy_layerprec.report.html.rendering import render_comparison_report

            return render_comparison_report(found, first, second)

        self._save(render, lambda: format_comparison_markdown(found, first, second))

    def save_agreement(self, agreement: RankingAgreement) -> None:
        """Saves the report that was asked for about two rankings."""
        from polygraphy_layerprec.report.markdown import format_agreement_markdown

        def render() -> str:
            from polygraphy_layerprec.report.html.rendering import render_agreement_report

            return render_agreement_report(agreement)

        self._save(render, lambda: format_agreement_markdown(agreement))

    @property
    def is_page(self) -> bool:
        """Whether a page is saved."""
        path = self.save_report or ""
        return os.path.splitext(path)[1].lower() == ".html"

    def _save(self, page: Callable[[], str], markdown: Callable[[], Sequence[str]]) -> None:
        if self.save_report is None:
            return
        from polygraphy_layerprec.files.atomic_file import write_text_file

        text = page() if self.is_page else "\n".join(markdown()) + "\n"
        write_text_file(self.save_report, text)
        G_LOGGER.info(f"Saved the report to {self.save_report}")
