"""`polygraphy layerprec inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.terminal_output import log_width, wrapped
from polygraphy_layerprec.tools.args import ReportFileArgs
from polygraphy_layerprec.tools.args.inspection import InspectionArgs
from polygraphy_layerprec.tools.subtool.base import LayerprecSubtool

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.records import Constraint

__all__ = ["Inspect"]


class Inspect(LayerprecSubtool):
    """
    Inspect a ranking or a script: what it keeps in FP32, why, and for which model.

    Nothing of a script is run. The typical usage of `inspect` is:

        polygraphy layerprec inspect constraints.py --model model.onnx

    A ranking shows its layers, and what it proposes to keep in FP32:

        polygraphy layerprec inspect ranking.json

    The exit code is 1 if the file was made for another model than the one given.
    """

    def __init__(self) -> None:
        super().__init__("inspect")

    def get_subscriptions_impl(self) -> list[Any]:
        """Returns the argument groups."""
        return [InspectionArgs(), ReportFileArgs(allow_files=False, allow_json=False)]

    def run_job(self, args: argparse.Namespace) -> int:  # noqa: ARG002 - parsed already
        """Shows the file, and compares it with a model if there is one."""
        if self.arg_groups[InspectionArgs].is_ranking:
            digest, constraints = self._show_ranking()
        else:
            digest, constraints = self._show_script()
        if self.arg_groups[InspectionArgs].model is None:
            return 0
        return 0 if self._fits_model(digest, constraints) else 1

    def _show_ranking(self) -> tuple[str, tuple[Constraint, ...]]:
        from polygraphy_layerprec.files.ranking_file import load_ranking
        from polygraphy_layerprec.report.choice import format_selection
        from polygraphy_layerprec.report.columns import printable, wrap_text
        from polygraphy_layerprec.report.inspection import format_ranking_origin
        from polygraphy_layerprec.report.table import format_ranking
        from polygraphy_layerprec.selection import SelectionRequest, constraints_of, select_layers

        options = self.arg_groups[InspectionArgs]
        ranking = load_ranking(options.path)
        selection = select_layers(ranking, SelectionRequest())
        files = self.arg_groups[ReportFileArgs]
        if files.is_markdown:
            from polygraphy_layerprec.report.markdown import format_ranking_markdown

            kept = {layer.name for layer in selection.layers}
            files.show_markdown(format_ranking_markdown(ranking, top=options.top, kept=kept))
            return ranking.model.digest, constraints_of(selection)
        decision = selection.decision
        verdict = "none, for nothing was measured: what it keeps in FP32 is forecast."
        if decision is not None:
            verdict = decision.sentence
        lines = [
            *wrap_text(f"Verdict: {printable(verdict)}", log_width()),
            *format_ranking_origin(ranking, width=log_width()),
            *format_ranking(ranking, top=options.top, width=log_width()),
            *format_selection(selection, ranking.layer_count, width=log_width()),
        ]
        G_LOGGER.info("\n".join(lines))
        for warning in ranking.warnings:
            G_LOGGER.warning(wrapped(warning))
        return ranking.model.digest, constraints_of(selection)

    def _show_script(self) -> tuple[str, tuple[Constraint, ...]]:
        from polygraphy_layerprec.emit.script_reading import load_network_script
        from polygraphy_layerprec.report.inspection import format_script

        path = self.arg_groups[InspectionArgs].path
        script = load_network_script(path)
        files = self.arg_groups[ReportFileArgs]
        if files.is_markdown:
            from polygraphy_layerprec.report.markdown import format_script_markdown

            files.show_markdown(format_script_markdown(script))
        else:
            G_LOGGER.info("\n".join(format_script(script, path, width=log_width())))
        if script.altered:
            G_LOGGER.warning(
                "The script is not what this version writes for its data: it was changed, or "
                "another version made it. Read it before you build with it."
            )
        return script.model_digest, script.constraints

    def _fits_model(self, digest: str, constraints: tuple[Constraint, ...]) -> bool:
        from polygraphy_layerprec.matching.constraint_matching import (
            describe_unmatched,
            unmatched_constraints,
        )
        from polygraphy_layerprec.matching.earlier_versions import constraints_of_today
        from polygraphy_layerprec.model import identify
        from polygraphy_layerprec.records.model_identity import are_comparable

        graph = self.arg_groups[InspectionArgs].load_graph()
        found = identify(graph)
        constraints = constraints_of_today(graph, digest, constraints)
        unmatched = unmatched_constraints(graph, constraints)
        if unmatched:
            G_LOGGER.error(
                f"{len(unmatched)} of {len(constraints)} constraints match no layer of "
                f"{found.name!r}:\n{describe_unmatched(graph, unmatched)}"
            )
        else:
            G_LOGGER.info(
                f"{count_of(len(constraints), 'constraint')}: all match layers of {found.name!r}."
            )
        if not digest:
            G_LOGGER.warning("The file does not say which model it was made for.")
        elif not are_comparable(digest, found.digest):
            G_LOGGER.warning(
                "The file is from a version with another kind of digest, so that only names of "
                "tensors say that it is about this model."
            )
            return not unmatched
        elif digest != found.digest:
            G_LOGGER.error(
                f"The file was made for another model: digest {digest[:16]!r}, but {found.name!r} "
                f"has digest {found.digest[:16]!r}.\n"
                f"Rank this model, with `polygraphy layerprec rank`."
            )
        return not unmatched and digest in ("", found.digest)
