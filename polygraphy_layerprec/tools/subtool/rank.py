"""`polygraphy layerprec rank`."""

from __future__ import annotations

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
from polygraphy_layerprec.tools.args.device import DeviceArgs
from polygraphy_layerprec.tools.args.distribution import PartialRankingArgs, ThreadArgs
from polygraphy_layerprec.tools.args.quantized import QDQ_NAME, QuantizedModelArgs
from polygraphy_layerprec.tools.args.ranked_engines import RankedEngineArgs
from polygraphy_layerprec.tools.args.report_files import ReportFileArgs
from polygraphy_layerprec.tools.args.saved_outputs import SavedOutputsArgs
from polygraphy_layerprec.tools.args.workers import WorkerArgs
from polygraphy_layerprec.tools.engine_groups import tensorrt_groups
from polygraphy_layerprec.tools.progress import progress_bar
from polygraphy_layerprec.tools.subtool.ranking_subtool import RankingSubtool

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from polygraphy_layerprec.distribution.worker_pool import WorkerPool
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.observing import RankRequest
    from polygraphy_layerprec.records import Ranking

__all__ = ["Rank"]


class Rank(RankingSubtool):
    r"""
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

    To rank what INT8 or FP8 does, the pairs of a quantised model, and leave out the worst of them:

        polygraphy layerprec rank model_qdq.onnx --precision qdq --reference model.onnx \
            --load-inputs inputs.npz --save-exclude exclude.txt --save-onnx fewer_pairs.onnx

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
            QuantizedModelArgs(),
            SampleArgs(),
            SavedOutputsArgs(),
            MeasureArgs(),
            DeviceArgs(),
            ThreadArgs(),
            WorkerArgs(),
            PartialRankingArgs(),
            RankingReportArgs(),
            ReportFileArgs(allow_plot=True),
            CriterionArgs(),
            ComparisonArgs(),
            SelectionArgs(),
            ArtefactArgs(),
            *tensorrt_groups(),
            RankedEngineArgs(),
        ]

    def run_job(self, args: argparse.Namespace) -> int:
        """Ranks, shows and saves."""
        memory_bytes = self.arg_groups[MeasureArgs].max_memory_bytes
        uses_engines = self.arg_groups[RankedEngineArgs].is_wanted
        with self.arg_groups[DeviceArgs].running(
            memory_bytes=memory_bytes, uses_engines=uses_engines
        ):
            return self._rank_and_show(args)

    def _rank_and_show(self, args: argparse.Namespace) -> int:
        self.arg_groups[ArtefactArgs].check_model(self.arg_groups[OnnxGraphArgs].path)
        precision = self.arg_groups[MeasureArgs].precision
        self.arg_groups[ArtefactArgs].check_precision(precision)
        self._check_pairs(precision)
        graph = self.arg_groups[QuantizedModelArgs].graph_for(
            self.arg_groups[OnnxGraphArgs].load_graph(), precision
        )
        partial = self.arg_groups[PartialRankingArgs]
        self._check_workers()
        if partial.save_partial is not None:
            self._save_partial(graph, partial.save_partial)
            return 0
        model, measure = self.arg_groups[OnnxGraphArgs], self.arg_groups[MeasureArgs]
        with self.arg_groups[WorkerArgs].pool(
            graph,
            model.path,
            threads=self.arg_groups[ThreadArgs].threads,
            external_data_folder=model.external_data_dir,
            max_memory_bytes=measure.max_memory_bytes,
            on_gpu=self.arg_groups[DeviceArgs].is_gpu,
        ) as pool:
            return self.show_and_act(
                self._rank(graph, pool),
                graph,
                self.measurement(graph, measure.outputs, pool),
                args=args,
                model_path=model.path,
                external_data_folder=model.external_data_dir,
            )

    def judges(self) -> Sequence[Judge]:
        """Returns the judge of the loss, if it has a tolerance."""
        judges: Sequence[Judge] = self.arg_groups[MeasureArgs].judges()
        return judges

    def _rank(self, graph: Graph, pool: WorkerPool | None) -> Ranking:
        engines: RankedEngineArgs = self.arg_groups[RankedEngineArgs]
        outputs: SavedOutputsArgs = self.arg_groups[SavedOutputsArgs]
        if engines.is_wanted:
            outputs.refuse_beside("--backend tensorrt")
            return engines.rank(graph)
        from polygraphy_layerprec.pipeline import rank

        samples = self.arg_groups[SampleArgs]
        if pool is not None:
            return self._rank_in_pool(graph, pool)
        checked = samples.samples(graph)
        saved = outputs.compare(graph, self.arg_groups[MeasureArgs].precision)
        with progress_bar() as progress:
            ranking = rank(
                graph,
                checked,
                self._request(),
                sample_count=samples.known_count(),
                progress=progress,
            )
        return ranking if saved is None else outputs.put_into(ranking, graph, saved)

    def _request(self) -> RankRequest:
        generated = self.arg_groups[SampleArgs].is_using_random_data()
        request: RankRequest = self.arg_groups[MeasureArgs].request(generated_inputs=generated)
        return request

    def _check_pairs(self, precision: str) -> None:
        """Stops at what engines would be asked for: pairs are measured by emulation alone."""
        if precision != QDQ_NAME:
            return
        for what, is_wanted in self._wishes_for_engines().items():
            if is_wanted:
                G_LOGGER.critical(
                    f"{what} compares engines in FP16 or BF16; `--precision qdq` ranks pairs, "
                    f"which are emulated.\nLeave out one of the two."
                )

    def _check_workers(self) -> None:
        workers, measure = self.arg_groups[WorkerArgs], self.arg_groups[MeasureArgs]
        wishes = {
            **self._wishes_for_engines(),
            "`--save-partial`": self.arg_groups[PartialRankingArgs].save_partial is not None,
            "`--exact`": measure.exact_count > 0,
            "`--impact exact`": measure.impact == "exact",
            "`--loss-script`": measure.loss_script is not None,
        }
        for what, is_wanted in wishes.items():
            if is_wanted:
                workers.refuse_beside(what)

    def _rank_in_pool(self, graph: Graph, pool: WorkerPool) -> Ranking:
        from polygraphy_layerprec.distribution.distributed_ranking import rank_in_pool

        samples = self.arg_groups[SampleArgs]
        with progress_bar() as progress:
            return rank_in_pool(
                pool,
                graph,
                samples.samples(graph),
                self._request(),
                sample_count=samples.known_count(),
                progress=progress,
            )

    def _chooses(self) -> bool:
        selection = self.arg_groups[SelectionArgs]
        asked = (selection.top_k, selection.fp32_fraction, selection.save_curve)
        return bool(selection.keep or selection.allow) or any(x is not None for x in asked)

    def _wishes_for_engines(self) -> dict[str, bool]:
        return {
            "`--backend tensorrt`": self.arg_groups[RankedEngineArgs].is_wanted,
            "`--load-outputs`": bool(self.arg_groups[SavedOutputsArgs].paths),
        }

    def _save_partial(self, graph: Graph, path: str) -> None:
        from polygraphy_layerprec.distribution.part import Shard
        from polygraphy_layerprec.tools.partial_ranking import measure_part

        options = self.arg_groups[PartialRankingArgs]
        for what, is_wanted in self._wishes_for_the_whole().items():
            if is_wanted:
                options.refuse_beside(what)
        measure_part(
            graph,
            options.shard or Shard(1, 1),
            path,
            samples=self.arg_groups[SampleArgs],
            measure=self.arg_groups[MeasureArgs],
            threads=self.arg_groups[ThreadArgs].threads,
        )

    def _wishes_for_the_whole(self) -> dict[str, bool]:
        """What says something of all samples, in words, and whether it is asked for."""
        measure, files = self.arg_groups[MeasureArgs], self.arg_groups[ReportFileArgs]
        return {
            **self._wishes_for_engines(),
            "`--save-ranking`": self.arg_groups[RankingReportArgs].save_ranking is not None,
            "`--exact`": measure.exact_count > 0,
            "`--impact exact`": measure.impact == "exact",
            "a choice of layers": self._chooses(),
            "a criterion": self.arg_groups[CriterionArgs].is_given,
            "a file that keeps layers in FP32": self.arg_groups[ArtefactArgs].is_wanted,
            "a report": files.is_wanted,
            "`--format`": files.is_markdown or files.is_json,
        }
