"""What `rank` and `constrain` share: selecting layers, and saving what keeps them in FP32."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.args import ArtefactArgs, SampleArgs, SelectionArgs
from polygraphy_layerprec.tools.args.report_files import ReportFileArgs
from polygraphy_layerprec.tools.progress import progress_bar
from polygraphy_layerprec.tools.subtool.base import LayerprecSubtool
from polygraphy_layerprec.tools.terminal import log_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import CurvePoint, Ranking, Selection
    from polygraphy_layerprec.report.html.ranking_report import RankingReport

__all__ = ["SelectingSubtool", "own_arguments"]


class SelectingSubtool(LayerprecSubtool):
    """Base of the subtools that subscribe to `SelectionArgs` and `ArtefactArgs`."""

    def select_and_save(
        self,
        ranking: Ranking,
        *,
        model_path: str | None,
        graph: Graph | None,
        measures: bool,
        outputs: Sequence[str] | None = None,
        external_data_folder: str | None = None,
    ) -> bool:
        """Selects layers, shows them and saves what was asked for.

        Where it `measures`, which needs a `graph`, sets of layers are measured on the samples of
        `SampleArgs`; otherwise the forecast decides.

        Returns:
            Whether the tolerance is met; True if there is none.
        """
        from polygraphy_layerprec.report.choice import format_selection

        measured = self._measurement(graph, outputs) if measures and graph is not None else {}
        selection = self._select(ranking, measured)
        lines = format_selection(
            selection,
            len(ranking.layers),
            refuted=self._is_refuted(ranking, selection),
            width=log_width(),
        )
        G_LOGGER.info("\n".join(lines))
        self.arg_groups[ArtefactArgs].save(
            ranking,
            selection,
            model_path,
            graph=graph,
            external_data_folder=external_data_folder,
        )
        curve = self._save_curve(ranking, measured)
        if ReportFileArgs in self.arg_groups and self.arg_groups[ReportFileArgs].is_wanted:
            report = self._ranking_report(
                ranking,
                selection,
                curve or self._curve(ranking, measured),
                model_path=model_path,
                external_data_dir=external_data_folder,
                arguments=own_arguments(self.name),
            )
            self.arg_groups[ReportFileArgs].save_ranking(report)
        self._show_build_commands(ranking, model_path, external_data_folder)
        if selection.reached:
            return True
        if self.arg_groups[SelectionArgs].tolerance is not None:
            self._explain_failure(ranking, selection)
            return False
        if selection.measured_error == math.inf:
            G_LOGGER.error(
                "An output stays NaN or infinite that is finite in FP32.\n"
                "Allow more layers, or see what the ranking could not measure."
            )
            return False
        return True

    def _is_refuted(self, ranking: Ranking, selection: Selection) -> bool:
        """Whether a measurement refutes the forecast, of the choice or else of the whole."""
        from polygraphy_layerprec.ranking.order import errors_agree, forecast_is_refuted

        measured = selection.measured_error
        of_another_kind = (
            self.arg_groups[SelectionArgs].is_max_abs or ranking.output_error.forecast_of_loss
        )
        if measured is None or of_another_kind:
            return forecast_is_refuted(ranking)
        return not errors_agree(selection.forecast_error, measured)

    def _measurement(self, graph: Graph, outputs: Sequence[str] | None) -> dict[str, Any]:
        samples = list(self.arg_groups[SampleArgs].samples(graph))
        return {"model": graph, "samples": samples, "outputs": outputs}

    def _select(self, ranking: Ranking, measured: Mapping[str, Any]) -> Selection:
        from polygraphy_layerprec.pipeline import select_constraints

        options = self.arg_groups[SelectionArgs]
        if options.is_max_abs and not measured:
            G_LOGGER.critical(
                "`--max-abs` needs the model: the forecast knows relative errors only.\n"
                "Name it, for example: --model model.onnx."
            )
        with progress_bar() as progress:
            try:
                return select_constraints(
                    ranking,
                    options.request(),
                    max_abs=options.is_max_abs,
                    progress=progress,
                    **measured,
                )
            except ValueError as error:  # what is wrong with the request is the user's to mend
                G_LOGGER.critical(str(error))

    def _save_curve(
        self, ranking: Ranking, measured: Mapping[str, Any]
    ) -> tuple[CurvePoint, ...] | None:
        """Saves the curve if a path was given, and returns it then."""
        path = self.arg_groups[SelectionArgs].save_curve
        if path is None:
            return None
        from polygraphy_layerprec.report.curve_file import save_curve
        from polygraphy_layerprec.report.curve_plot import save_curve_plot

        save = save_curve if path.lower().endswith(".csv") else save_curve_plot
        points = self._curve(ranking, measured)
        try:
            save(points, path)
        except ValueError as error:  # no matplotlib
            G_LOGGER.critical(str(error))
        G_LOGGER.info(f"Saved the curve to {path}")
        return points

    def _curve(self, ranking: Ranking, measured: Mapping[str, Any]) -> tuple[CurvePoint, ...]:
        from polygraphy_layerprec.pipeline import measure_curve

        with progress_bar() as progress:
            return measure_curve(ranking, progress=progress, **measured)

    def _ranking_report(
        self,
        ranking: Ranking,
        selection: Selection,
        curve: tuple[CurvePoint, ...],
        *,
        model_path: str | None,
        external_data_dir: str | None,
        arguments: Sequence[str],
    ) -> RankingReport:
        from polygraphy_layerprec.report.commands import commands_to_run
        from polygraphy_layerprec.report.html.ranking_report import RankingReport
        from polygraphy_layerprec.report.next_steps import installed_tensorrt

        options = self.arg_groups[SelectionArgs]
        saves = ArtefactArgs in self.arg_groups
        return RankingReport(
            ranking=ranking,
            selection=selection,
            curve=curve,
            commands=commands_to_run(
                arguments,
                model_path or ranking.model.name or "model.onnx",
                script_path=self.arg_groups[ArtefactArgs].save_script if saves else None,
                precision=ranking.precision,
                installed=installed_tensorrt(),
                shape_ranges=self.arg_groups[SampleArgs].shape_ranges,
                external_data_dir=external_data_dir,
            ),
            tolerance=options.tolerance,
            tolerance_is_absolute=options.is_max_abs,
        )

    def _show_build_commands(
        self, ranking: Ranking, model_path: str | None, external_data_dir: str | None
    ) -> None:
        from polygraphy_layerprec.report.next_steps import format_build_commands, installed_tensorrt

        script_path = self.arg_groups[ArtefactArgs].save_script
        if script_path is None:
            return
        lines = format_build_commands(
            model_path or ranking.model.name or "model.onnx",
            script_path,
            precision=ranking.precision,
            installed=installed_tensorrt(),
            shape_ranges=self.arg_groups[SampleArgs].shape_ranges,
            external_data_dir=external_data_dir,
        )
        G_LOGGER.info("\n".join(lines))

    def _explain_failure(self, ranking: Ranking, selection: Selection) -> None:
        best = selection.measured_error
        error = selection.forecast_error if best is None else best
        if best is None and ranking.output_error.measured == math.inf:
            G_LOGGER.error(
                "An output becomes NaN or infinite with every layer lowered, and nothing says that "
                "this choice mends it: no tolerance is met.\n"
                "Have it measured: give the model and its inputs."
            )
            return
        saved = ", which was saved," if self.arg_groups[ArtefactArgs].is_wanted else ""
        G_LOGGER.error(
            f"No set of layers meets the tolerance of {selection.tolerance:.5g}.\n"
            f"Note: The best that was found{saved} has an error of {error:.5g} with "
            f"{selection.cost.layer_count} layers in FP32.\n"
            f"Raise the tolerance, allow more layers, or see what the ranking could not measure."
        )


def own_arguments(verb: str) -> list[str]:
    """Returns the arguments of this command from its verb on, whichever door it came through."""
    return sys.argv[sys.argv.index(verb) :] if verb in sys.argv else [verb]
