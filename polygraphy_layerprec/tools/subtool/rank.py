"""`polygraphy layerprec rank`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from polygraphy.tools.args import ModelArgs

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.args import (
    ArtefactArgs,
    ComparisonArgs,
    CriterionArgs,
    MeasureArgs,
    OnnxGraphArgs,
    RankingReportArgs,
    SampleArgs,
    SelectionArgs,
)
from polygraphy_layerprec.tools.args.engine_backend import EngineBackendArgs
from polygraphy_layerprec.tools.args.report_files import ReportFileArgs
from polygraphy_layerprec.tools.args.saved_outputs import SavedOutputsArgs
from polygraphy_layerprec.tools.engine_groups import tensorrt_groups
from polygraphy_layerprec.tools.progress import progress_bar
from polygraphy_layerprec.tools.subtool.selecting import (
    SelectingSubtool,
    how_to_choose,
    own_arguments,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking, Selection

__all__ = ["Rank"]


class Rank(SelectingSubtool):
    """
    Rank the layers of an ONNX model by what low precision does to its outputs.

    No GPU and no TensorRT are needed: layers are emulated with ONNX-Runtime on the CPU. Only
    `--backend tensorrt`, which measures them on engines that it builds and runs, needs both.

    The typical usage of `rank` is:

        polygraphy layerprec rank model.onnx --load-inputs inputs.json

    To save a script that keeps the worst layers in FP32, and build an engine with it:

        polygraphy layerprec rank model.onnx --load-inputs inputs.npz --save-script constraints.py
        polygraphy convert model.onnx -o model.engine --trt-npps constraints.py

    `--load-inputs` takes JSON as Polygraphy saves it, and `.npz` files: each is one sample, with an
    array for each input of the model. Several files, or a folder of them, are several samples.
    Without data, shapes and values are made up, with a warning.

    To take the divergences from results that `polygraphy run` saved, of an engine for example:

        polygraphy layerprec rank model.onnx --load-inputs x.json --load-outputs fp32.json fp16.json
    """

    def __init__(self) -> None:
        super().__init__("rank")

    def get_subscriptions_impl(self) -> list[Any]:
        """Returns the argument groups."""
        return [
            ModelArgs(model_opt_required=True, required_model_type="onnx"),
            OnnxGraphArgs(),
            SampleArgs(),
            SavedOutputsArgs(),
            MeasureArgs(),
            RankingReportArgs(),
            ReportFileArgs(allow_plot=True),
            CriterionArgs(),
            ComparisonArgs(),
            SelectionArgs(),
            ArtefactArgs(),
            *tensorrt_groups(),
            EngineBackendArgs(),
        ]

    def run_job(self, args: argparse.Namespace) -> int:
        """Ranks, shows and saves."""
        self.arg_groups[ArtefactArgs].check_model(self.arg_groups[OnnxGraphArgs].path)
        graph = self.arg_groups[OnnxGraphArgs].load_graph()
        ranking = self._rank(graph)
        measured = self.measurement(graph, self.arg_groups[MeasureArgs].outputs)
        selection = self.choose(ranking, measured)
        ranking = replace(ranking, decision=selection.decision)
        report = self.arg_groups[RankingReportArgs]
        if self.arg_groups[ReportFileArgs].is_markdown:
            self._show_markdown(ranking, selection)
        model = self.arg_groups[OnnxGraphArgs]
        self.show(
            ranking,
            selection,
            args,
            hint=_how_to_choose(report.save_ranking),
            commands=self.build_commands(ranking, model.path, model.external_data_dir),
        )
        report.save(ranking)
        reached = self.act_on(
            ranking,
            selection,
            measured,
            model_path=model.path,
            graph=graph,
            external_data_folder=model.external_data_dir,
        )
        self._show_next(selection)
        failed = sum(layer.failed for layer in ranking.unmeasured)
        if failed:
            G_LOGGER.error(
                f"Could not measure {failed} layers, so the ranking is without "
                f"them.\nThe report above says why."
            )
        return 0 if reached and not failed else 1

    def judges(self) -> Sequence[Judge]:
        """Returns the judge of the loss, if it has a tolerance."""
        judges: Sequence[Judge] = self.arg_groups[MeasureArgs].judges()
        return judges

    def _rank(self, graph: Graph) -> Ranking:
        engines: EngineBackendArgs = self.arg_groups[EngineBackendArgs]
        outputs: SavedOutputsArgs = self.arg_groups[SavedOutputsArgs]
        if engines.is_wanted:
            outputs.refuse_beside("--backend tensorrt")
            return engines.rank(graph)
        from polygraphy_layerprec.pipeline import rank_model

        samples = self.arg_groups[SampleArgs]
        checked = samples.samples(graph)
        saved = outputs.compare(graph, self.arg_groups[MeasureArgs].precision)
        with progress_bar() as progress:
            ranking = rank_model(
                graph,
                checked,
                generated_inputs=samples.is_using_random_data(),
                progress=progress,
                **self.arg_groups[MeasureArgs].to_arguments(),
            )
        return ranking if saved is None else outputs.put_into(ranking, graph, saved)

    def _show_markdown(self, ranking: Ranking, selection: Selection) -> None:
        from polygraphy_layerprec.report.markdown import format_ranking_markdown

        report = self.arg_groups[RankingReportArgs]
        lines = format_ranking_markdown(
            ranking,
            top=report.top,
            sort_by=report.sort_by,
            kept={layer.name for layer in selection.layers},
        )
        self.arg_groups[ReportFileArgs].show_markdown(lines)

    def _show_next(self, selection: Selection) -> None:
        """Says how to keep the chosen layers, where nothing was saved that does."""
        saves = self.arg_groups[ArtefactArgs].is_wanted or self.arg_groups[ReportFileArgs].is_wanted
        if selection.layers and selection.reached and not saves:
            from polygraphy_layerprec.report.next_steps import format_script_command

            G_LOGGER.info("\n".join(format_script_command(own_arguments("rank"))))


def _how_to_choose(ranking_path: str | None) -> str:
    if ranking_path is not None and ranking_path.lower().endswith(".json"):
        return how_to_choose(ranking_path)
    return "another: first add `--save-ranking ranking.json`"
