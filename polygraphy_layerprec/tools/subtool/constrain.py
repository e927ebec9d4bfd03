"""`polygraphy layerprec constrain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.terminal_output import wrapped
from polygraphy_layerprec.tools.args import (
    ArtefactArgs,
    ComparisonArgs,
    CriterionArgs,
    RankedModelArgs,
    RankingReportArgs,
    ReportFileArgs,
    SampleArgs,
    SelectionArgs,
)
from polygraphy_layerprec.tools.args.device import DeviceArgs
from polygraphy_layerprec.tools.args.distribution import ThreadArgs
from polygraphy_layerprec.tools.args.quantized import QuantizedModelArgs
from polygraphy_layerprec.tools.args.workers import WorkerArgs
from polygraphy_layerprec.tools.subtool.base import own_arguments
from polygraphy_layerprec.tools.subtool.choice_output import how_to_choose
from polygraphy_layerprec.tools.subtool.selecting import SelectingSubtool, model_arguments

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.distribution.worker_pool import WorkerPool
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["Constrain"]


_DECIDED_BEFORE = (
    "No model was given with `--model`, so nothing is measured anew: what was decided when the "
    "ranking was made decides."
)
_MADE_UP = (
    "The ranking was measured with your own inputs, but this selection is measured with made-up "
    "ones.\nGive the same inputs, for example with `--load-inputs`."
)


class Constrain(SelectingSubtool):
    r"""
    Choose the layers that stay in FP32, from a ranking that was saved.

    A new tolerance or number of layers needs no new ranking. The typical usage of `constrain` is:

        polygraphy layerprec constrain ranking.json --top-k 10 --save-script constraints.py

    To take another set of the list that `rank` showed, without measuring again:

        polygraphy layerprec constrain ranking.json --choose 2 --save-script constraints.py

    With the model and its inputs, sets of layers are measured, and the cheapest that meets a
    criterion is found:

        polygraphy layerprec constrain ranking.json --model model.onnx --load-inputs inputs.npz \
            --tolerance 1e-3 --save-script constraints.py

    The exit code is 1 if no set of layers meets the criterion.
    """

    def __init__(self) -> None:
        super().__init__("constrain")

    def get_subscriptions_impl(self) -> list[Any]:
        """Returns the argument groups."""
        return [
            RankedModelArgs(),
            QuantizedModelArgs(),
            RankingReportArgs(allow_save=False),
            ThreadArgs(),
            WorkerArgs(),
            SampleArgs(allow_custom_input_shapes=False),
            CriterionArgs(),
            ComparisonArgs(),
            SelectionArgs(allow_choose=True),
            DeviceArgs(),
            ArtefactArgs(),
            ReportFileArgs(allow_files=False),
        ]

    def measuring_arguments(self, ranking: Ranking) -> list[str]:
        """Returns this command with the model and its inputs."""
        arguments = own_arguments(self.name)
        if len(arguments) < 2:
            arguments = [self.name, self.arg_groups[RankedModelArgs].path]
        return [*arguments, *model_arguments(ranking)]

    def run_job(self, args: argparse.Namespace) -> int:
        """Selects, shows and saves."""
        device = self.arg_groups[DeviceArgs]
        if self.arg_groups[RankedModelArgs].model_path is None:
            device.refuse_without_model()
            return self._select_and_show(args)
        with device.running():
            return self._select_and_show(args)

    def _select_and_show(self, args: argparse.Namespace) -> int:
        ranked = self.arg_groups[RankedModelArgs]
        self.arg_groups[ArtefactArgs].check_model(ranked.model_path)
        graph = ranked.load_graph()
        ranking = ranked.load_ranking(graph)
        self.arg_groups[ArtefactArgs].check_precision(ranking.precision)
        if graph is not None:
            graph = self.arg_groups[QuantizedModelArgs].ranked_graph(graph, ranking)
        workers = self.arg_groups[WorkerArgs]
        if graph is None:
            workers.refuse_without_model()
            return self._choose(args, ranking, None, None)
        with workers.pool(
            graph,
            ranked.model_path,
            threads=self.arg_groups[ThreadArgs].threads,
            external_data_folder=ranked.external_data_dir,
            on_gpu=self.arg_groups[DeviceArgs].is_gpu,
        ) as pool:
            return self._choose(args, ranking, graph, pool)

    def _choose(
        self,
        args: argparse.Namespace,
        ranking: Ranking,
        graph: Graph | None,
        pool: WorkerPool | None,
    ) -> int:
        """Selects, shows and saves."""
        ranked = self.arg_groups[RankedModelArgs]
        samples = self.arg_groups[SampleArgs]
        takes_recorded = self.arg_groups[SelectionArgs].choose is not None
        outputs = ranking.conditions.outputs or None
        measured = None if takes_recorded else self.measurement(graph, outputs, pool)
        selection = self.choose(ranking, measured)
        if graph is None and not takes_recorded and selection.decision is not None:
            G_LOGGER.info(wrapped(_DECIDED_BEFORE))
        elif (
            measured is not None
            and samples.is_using_random_data()
            and ranking.conditions.inputs == "user"
        ):
            G_LOGGER.warning(wrapped(_MADE_UP))
        self.show(
            ranking,
            selection,
            args,
            hint="" if measured is not None else how_to_choose(ranked.path),
            commands=self.build_commands(
                ranking, selection, ranked.model_path, ranked.external_data_dir
            ),
        )
        reached = self.act_on(
            ranking,
            selection,
            measured,
            model_path=ranked.model_path,
            graph=graph,
            external_data_folder=ranked.external_data_dir,
        )
        return 0 if reached else 1
