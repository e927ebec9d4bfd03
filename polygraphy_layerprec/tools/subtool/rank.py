"""`polygraphy layerprec rank`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from polygraphy.tools.args import ModelArgs

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.args import (
    ArtefactArgs,
    MeasureArgs,
    OnnxGraphArgs,
    RankingReportArgs,
    SampleArgs,
    SelectionArgs,
)
from polygraphy_layerprec.tools.progress import progress_bar
from polygraphy_layerprec.tools.subtool.selecting import SelectingSubtool

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["Rank"]


class Rank(SelectingSubtool):
    """
    Rank the layers of an ONNX model by what low precision does to its outputs.

    No GPU and no TensorRT are needed: layers are emulated with ONNX-Runtime on the CPU.

    The typical usage of `rank` is:

        polygraphy layerprec rank model.onnx --load-inputs inputs.json

    To save a script that keeps the worst layers in FP32, and build an engine with it:

        polygraphy layerprec rank model.onnx --load-inputs inputs.npz --save-script constraints.py
        polygraphy convert model.onnx -o model.engine --trt-npps constraints.py

    `--load-inputs` takes JSON as Polygraphy saves it, and `.npz` files: each is one sample, with an
    array for each input of the model. Several files are several samples.
    """

    def __init__(self) -> None:
        super().__init__("rank")

    def get_subscriptions_impl(self) -> list[Any]:
        """Returns the argument groups."""
        return [
            ModelArgs(model_opt_required=True, required_model_type="onnx"),
            OnnxGraphArgs(),
            SampleArgs(),
            MeasureArgs(),
            RankingReportArgs(),
            SelectionArgs(),
            ArtefactArgs(),
        ]

    def run_job(self, args: argparse.Namespace) -> int:  # noqa: ARG002 - parsed already
        """Ranks, shows and saves."""
        self.arg_groups[ArtefactArgs].check_model(self.arg_groups[OnnxGraphArgs].path)
        graph = self.arg_groups[OnnxGraphArgs].load_graph()
        ranking = self._rank(graph)
        report = self.arg_groups[RankingReportArgs]
        report.show(ranking)
        report.save(ranking)
        reached = self._act_on(ranking, graph)
        if ranking.unmeasured:
            G_LOGGER.error(
                f"Could not measure {len(ranking.unmeasured)} layers, so the ranking is without "
                f"them.\nThe report above says why."
            )
        return 0 if reached and not ranking.unmeasured else 1

    def _rank(self, graph: Graph) -> Ranking:
        from polygraphy_layerprec.pipeline import rank_model

        samples = self.arg_groups[SampleArgs]
        checked = samples.samples(graph)
        with progress_bar() as progress:
            return rank_model(
                graph,
                checked,
                generated_inputs=samples.is_using_random_data(),
                progress=progress,
                **self.arg_groups[MeasureArgs].to_arguments(),
            )

    def _act_on(self, ranking: Ranking, graph: Graph) -> bool:
        """Selects layers, if asked to; returns whether any tolerance is met.

        A tolerance is met by measured errors; otherwise the ranking says all there is to know.
        """
        selection = self.arg_groups[SelectionArgs]
        if not (selection.is_given or self.arg_groups[ArtefactArgs].is_wanted):
            from polygraphy_layerprec.report.next_steps import format_script_command

            G_LOGGER.info("\n".join(format_script_command(_own_arguments())))
            return True
        return self.select_and_save(
            ranking,
            model_path=self.arg_groups[OnnxGraphArgs].path,
            graph=graph if selection.needs_measuring else None,
            outputs=self.arg_groups[MeasureArgs].outputs,
            external_data_folder=self.arg_groups[OnnxGraphArgs].external_data_dir,
        )


def _own_arguments() -> list[str]:
    """Returns the arguments of this command from `rank` on, whichever door it came through."""
    return sys.argv[sys.argv.index("rank") :] if "rank" in sys.argv else ["rank"]
