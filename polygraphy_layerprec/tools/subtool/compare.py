"""`polygraphy layerprec compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.terminal_output import log_width, wrapped
from polygraphy_layerprec.tools.args import ReportFileArgs
from polygraphy_layerprec.tools.args.agreement import AgreementArgs
from polygraphy_layerprec.tools.subtool.base import LayerprecSubtool

if TYPE_CHECKING:
    import argparse

__all__ = ["Compare"]


class Compare(LayerprecSubtool):
    """
    Compare two rankings, scripts or verdicts: how far they agree, and what changed.

    For example the emulated ranking of a model with that of its saved outputs or of an engine, two
    versions of a backend, two sets of inputs. The typical usage of `compare` is:

        polygraphy layerprec compare emulated.json engine.json

    To keep the whole comparison:

        polygraphy layerprec compare emulated.json engine.json --save-agreement agreement.json

    What a change of the model or of a criterion did, from the scripts or verdicts before and after:

        polygraphy layerprec compare before.py after.py

    The exit code is 0 however little they agree.
    """

    def __init__(self) -> None:
        super().__init__("compare")

    def get_subscriptions_impl(self) -> list[Any]:
        """Returns the argument groups."""
        return [AgreementArgs(), ReportFileArgs()]

    def run_job(self, args: argparse.Namespace) -> int:  # noqa: ARG002 - parsed already
        """Compares, shows and saves."""
        if self.arg_groups[AgreementArgs].kind != "ranking":
            self._compare_before_and_after()
            return 0
        from polygraphy_layerprec.ranking.agreement import compare_rankings
        from polygraphy_layerprec.report.agreement import (
            format_agreement,
            format_agreement_json,
            save_agreement,
        )

        options = self.arg_groups[AgreementArgs]
        first, second = options.load_rankings()
        agreement = compare_rankings(
            first, second, first_label=options.first, second_label=options.second
        )
        files = self.arg_groups[ReportFileArgs]
        if files.is_markdown:
            from polygraphy_layerprec.report.markdown import format_agreement_markdown

            files.show_markdown(format_agreement_markdown(agreement, top=options.top))
        else:
            lines = format_agreement(agreement, top=options.top, width=log_width())
            G_LOGGER.info("\n".join(lines))
        files.show_json(lambda: format_agreement_json(agreement))
        files.save_agreement(agreement)
        for warning in agreement.warnings:
            G_LOGGER.warning(wrapped(warning))
        if options.save_agreement is not None:
            save_agreement(agreement, options.save_agreement)
            G_LOGGER.info(f"Saved the comparison to {options.save_agreement}")
        return 0

    def _compare_before_and_after(self) -> None:
        from polygraphy_layerprec.files.atomic_file import write_text_file
        from polygraphy_layerprec.report.before_after import (
            format_comparison,
            format_comparison_json,
            format_comparison_markdown,
        )

        options, files = self.arg_groups[AgreementArgs], self.arg_groups[ReportFileArgs]
        found = options.compare_files()
        paths = options.first, options.second
        if files.is_markdown:
            files.show_markdown(format_comparison_markdown(found, *paths))
        else:
            G_LOGGER.info("\n".join(format_comparison(found, *paths, width=log_width())))
        files.show_json(lambda: format_comparison_json(found, *paths))
        files.save_comparison(found, *paths)
        for warning in found.warnings:
            G_LOGGER.warning(wrapped(warning))
        if options.save_agreement is not None:
            write_text_file(options.save_agreement, format_comparison_json(found, *paths))
            G_LOGGER.info(f"Saved the comparison to {options.save_agreement}")
