"""`polygraphy layerprec merge`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.args import (
    ArtefactArgs,
    ComparisonArgs,
    CriterionArgs,
    RankingReportArgs,
    SampleArgs,
    SelectionArgs,
)
from polygraphy_layerprec.tools.args.parts import PartArgs
from polygraphy_layerprec.tools.args.quantized import QuantizedModelArgs
from polygraphy_layerprec.tools.args.report_files import ReportFileArgs
from polygraphy_layerprec.tools.args.workers import WorkerArgs
from polygraphy_layerprec.tools.progress import progress_bar
from polygraphy_layerprec.tools.subtool.ranking_subtool import RankingSubtool

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.distribution.part import PartConditions
    from polygraphy_layerprec.distribution.partial_file import PartialFile
    from polygraphy_layerprec.distribution.worker_pool import WorkerPool
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking
    from polygraphy_layerprec.tools.measurement import Measurement

__all__ = ["Merge"]


class Merge(RankingSubtool):
    r"""
    Merge the parts of a ranking that the jobs of an array measured, each some of the samples.

    The typical usage of `merge` is:

        polygraphy layerprec rank model.onnx --load-inputs samples --threads 2 \
            --shard 1/2 --save-partial part-1.npz
        polygraphy layerprec rank model.onnx --load-inputs samples --threads 2 \
            --shard 2/2 --save-partial part-2.npz
        polygraphy layerprec merge part-1.npz part-2.npz --model model.onnx \
            --save-ranking ranking.json

    The ranking is the one that a single process makes of all samples. Parts of other models,
    options, versions or numbers of threads, missing parts and parts that overlap are refused. A
    tolerance is measured on the samples that `--load-inputs` gives here.
    """

    def __init__(self) -> None:
        super().__init__("merge")

    def get_subscriptions_impl(self) -> list[Any]:
        """Returns the argument groups."""
        return [
            PartArgs(),
            QuantizedModelArgs(),
            WorkerArgs(),
            SampleArgs(allow_custom_input_shapes=False),
            RankingReportArgs(),
            ReportFileArgs(allow_plot=True),
            CriterionArgs(),
            ComparisonArgs(),
            SelectionArgs(),
            ArtefactArgs(),
        ]

    def run_job(self, args: argparse.Namespace) -> int:
        """Merges, shows and saves."""
        options = self.arg_groups[PartArgs]
        self.arg_groups[ArtefactArgs].check_model(options.model_path)
        parts = options.open_parts()
        graph = options.load_graph()
        conditions = parts[0].conditions
        self.arg_groups[ArtefactArgs].check_precision(conditions.precision)
        graph = self.arg_groups[QuantizedModelArgs].graph_for(graph, conditions.precision)
        with self.arg_groups[WorkerArgs].pool(
            graph,
            options.model_path,
            threads=conditions.threads,
            external_data_folder=options.external_data_dir,
        ) as pool:
            return self.show_and_act(
                self._merge(parts, graph),
                graph,
                self._measured(graph, conditions, pool),
                args=args,
                model_path=options.model_path,
                external_data_folder=options.external_data_dir,
            )

    def _measured(
        self, graph: Graph, conditions: PartConditions, pool: WorkerPool | None
    ) -> Measurement | None:
        if self.arg_groups[SampleArgs].is_using_random_data() and conditions.inputs == "user":
            G_LOGGER.info(
                "No set of layers is measured, and the forecast decides: give the samples of the "
                "parts, or some of them, with `--load-inputs`."
            )
            return None
        return self.measurement(graph, conditions.outputs or None, pool)

    def _merge(self, parts: list[PartialFile], graph: Graph) -> Ranking:
        from polygraphy_layerprec.distribution.merging import merge_parts

        with progress_bar() as progress:
            return merge_parts(parts, graph, progress=progress)
