"""What verbs that select layers tell beside the choice: curves, reports, commands to run next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.args import ArtefactArgs, CriterionArgs, SampleArgs, SelectionArgs
from polygraphy_layerprec.tools.progress import progress_bar
from polygraphy_layerprec.tools.subtool.base import LayerprecSubtool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import CurvePoint, Ranking, Selection
    from polygraphy_layerprec.report.ranking_report import RankingReport
    from polygraphy_layerprec.tools.measurement import Measurement

__all__ = ["ReportingSubtool"]


class ReportingSubtool(LayerprecSubtool):
    """Base of the subtools that show the error against the layers in FP32, and what to run next."""

    def _save_curve(
        self, ranking: Ranking, measured: Measurement | None
    ) -> tuple[CurvePoint, ...] | None:
        """Saves the curve if a path was given, and returns it then."""
        path = self.arg_groups[SelectionArgs].save_curve
        if path is None:
            return None
        from polygraphy_layerprec.report.curve_file import save_curve
        from polygraphy_layerprec.report.curve_plot import save_curve_plot

        save = save_curve if path.lower().endswith(".csv") else save_curve_plot
        points = self._curve(ranking, measured)
        save(points, path)
        G_LOGGER.info(f"Saved the curve to {path}")
        return points

    def _worth_measuring(self, measured: Measurement | None) -> Measurement | None:
        """What to measure a curve with: many sets, for those who said what error they want."""
        return measured if self.arg_groups[CriterionArgs].is_given else None

    def _curve(self, ranking: Ranking, measured: Measurement | None) -> tuple[CurvePoint, ...]:
        from polygraphy_layerprec.pipeline import measure_curve

        model = None if measured is None else measured.of(ranking)
        with progress_bar() as progress:
            return measure_curve(ranking, model=model, progress=progress)

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
        from polygraphy_layerprec.report.next_steps import installed_tensorrt
        from polygraphy_layerprec.report.ranking_report import RankingReport

        saves = ArtefactArgs in self.arg_groups
        return RankingReport(
            ranking=ranking,
            selection=selection,
            curve=curve,
            commands=()
            if not selection.reached
            else commands_to_run(
                arguments,
                model_path or ranking.model.name or "model.onnx",
                keeps_any=bool(selection.layers),
                script_path=self.arg_groups[ArtefactArgs].save_script if saves else None,
                precision=ranking.precision,
                installed=installed_tensorrt(),
                shape_ranges=self.arg_groups[SampleArgs].shape_ranges,
                external_data_dir=external_data_dir,
            ),
        )

    def build_commands(
        self,
        ranking: Ranking,
        selection: Selection,
        model_path: str | None,
        external_data_dir: str | None,
    ) -> list[str]:
        """Returns lines with the commands that build with the script that is saved; maybe none."""
        from polygraphy_layerprec.report.next_steps import format_build_commands, installed_tensorrt

        script_path = self.arg_groups[ArtefactArgs].save_script
        if script_path is None:
            return []
        samples = self.arg_groups[SampleArgs]
        return format_build_commands(
            model_path or ranking.model.name or "model.onnx",
            script_path,
            precision=ranking.precision,
            installed=installed_tensorrt(),
            kept=(len(selection.layers), ranking.layer_count),
            shape_ranges=samples.shape_ranges if samples.data_set_size else None,
            external_data_dir=external_data_dir,
        )
