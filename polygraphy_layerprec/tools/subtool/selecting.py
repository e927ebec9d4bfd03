"""What `rank` and `constrain` share: selecting layers, and saving what keeps them in FP32."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.terminal_output import log_width, wrapped
from polygraphy_layerprec.tools.args import (
    ArtefactArgs,
    CriterionArgs,
    RankingReportArgs,
    SampleArgs,
    SelectionArgs,
)
from polygraphy_layerprec.tools.args.report_files import ReportFileArgs
from polygraphy_layerprec.tools.measurement import Measurement
from polygraphy_layerprec.tools.progress import progress_bar
from polygraphy_layerprec.tools.subtool.base import own_arguments
from polygraphy_layerprec.tools.subtool.choice_output import (
    explain_failure,
    is_refuted,
    lines_of_files,
    refuse_verdict,
    show_in_one_look,
    show_markdown,
    show_tables,
)
from polygraphy_layerprec.tools.subtool.reporting import ReportingSubtool

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from polygraphy_layerprec.distribution.worker_pool import WorkerPool
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking, Selection

__all__ = ["SelectingSubtool", "model_arguments"]

_NO_VERDICT: Final = (
    "Verdict: none, for nothing was measured: what follows is what the ranking forecasts. Measure "
    "it, with your inputs:"
)


class SelectingSubtool(ReportingSubtool):
    """Base of the subtools that subscribe to `SelectionArgs` and `ArtefactArgs`."""

    def measurement(
        self,
        graph: Graph | None,
        outputs: Sequence[str] | None,
        pool: WorkerPool | None = None,
    ) -> Measurement | None:
        """Returns what sets of layers are measured with; None without a model.

        Args:
            graph: The model.
            outputs: Names of the outputs that count; None for all.
            pool: Workers to measure on; None for this process.
        """
        if graph is None:
            return None
        return Measurement(graph, list(self.arg_groups[SampleArgs].samples(graph)), outputs, pool)

    def choose(self, ranking: Ranking, measured: Measurement | None) -> Selection:
        """Chooses layers, and logs the verdict on them."""
        from polygraphy_layerprec.report.summary import format_verdict_line

        selection = self._select(ranking, measured)
        if selection.decision is None:
            command = shlex.join(["polygraphy", "layerprec", *self.measuring_arguments(ranking)])
            G_LOGGER.info(f"{wrapped(_NO_VERDICT)}\n    {command}")
            self.tell_what_ran()
            return selection
        G_LOGGER.info(format_verdict_line(selection.decision, width=log_width()))
        self.tell_what_ran()
        self.arg_groups[CriterionArgs].warn_of_criteria(selection.decision.lowered)
        return selection

    def measuring_arguments(self, ranking: Ranking) -> list[str]:
        """Returns the arguments of the command that measures what was forecast alone."""
        return ["constrain", "ranking.json", *model_arguments(ranking)]

    def show(
        self,
        ranking: Ranking,
        selection: Selection,
        args: argparse.Namespace,
        *,
        hint: str,
        commands: Sequence[str] = (),
    ) -> None:
        """Shows the culprits, the choice and what else there is, or tables where these are wanted.

        Args:
            ranking: The ranked layers.
            selection: What was chosen of them.
            args: The options, which say how many files will be saved.
            hint: How to take another set of the list.
            commands: Lines that will be shown below.
        """
        refuted = is_refuted(ranking, selection)
        report = self.arg_groups[RankingReportArgs]
        if self.arg_groups[ReportFileArgs].is_markdown:
            show_markdown(ranking, selection, report, self.arg_groups[ReportFileArgs])
        if report.is_table:
            show_tables(ranking, selection, report, hint=hint, refuted=refuted)
            return
        others = lines_of_files(args) + len(commands)
        show_in_one_look(ranking, selection, hint=hint, refuted=refuted, others=others)

    def judges(self) -> Sequence[Judge]:
        """Returns judges beside those of `CriterionArgs`."""
        return ()

    def act_on(
        self,
        ranking: Ranking,
        selection: Selection,
        measured: Measurement | None,
        *,
        model_path: str | None,
        graph: Graph | None,
        external_data_folder: str | None = None,
    ) -> bool:
        """Saves what was asked for, and says what to do next.

        Args:
            ranking: The ranked layers.
            selection: What was chosen of them.
            measured: What sets are measured with, as `measurement` gives it.
            model_path: Path of the model, if it is known.
            graph: The model, if it was read.
            external_data_folder: Where its data files are, if not beside it.

        Returns:
            Whether what was asked for is met.
        """
        if selection.decision is None:
            refuse_verdict(
                self.arg_groups[CriterionArgs],
                self.arg_groups[ReportFileArgs],
                was_tried=measured is not None,
            )
        self.arg_groups[ArtefactArgs].save(
            ranking,
            selection,
            model_path,
            graph=graph,
            external_data_folder=external_data_folder,
        )
        self._save_verdict(ranking, selection)
        files = self.arg_groups[ReportFileArgs]
        curve = self._save_curve(ranking, measured)
        if files.is_wanted:
            report = self._ranking_report(
                ranking,
                selection,
                curve or self._curve(ranking, self._worth_measuring(measured)),
                model_path=model_path,
                external_data_dir=external_data_folder,
                arguments=own_arguments(self.name),
            )
            files.save_ranking(report)
        if selection.reached:
            commands = self.build_commands(ranking, selection, model_path, external_data_folder)
            if commands:
                G_LOGGER.info("\n".join(commands))
            return True
        is_saved = self.arg_groups[ArtefactArgs].is_wanted
        G_LOGGER.error(explain_failure(ranking, selection, is_saved=is_saved))
        return False

    def _save_verdict(self, ranking: Ranking, selection: Selection) -> None:
        from polygraphy_layerprec.files.verdict_file import format_verdict_json, verdict_on_choice

        verdict = partial(verdict_on_choice, self.name, ranking, selection)
        self.arg_groups[CriterionArgs].save_verdict(verdict)
        self.arg_groups[ReportFileArgs].show_json(lambda: format_verdict_json(verdict()))

    def _select(self, ranking: Ranking, measured: Measurement | None) -> Selection:
        from polygraphy_layerprec.execution.errors import ExecutionError, WorkersError
        from polygraphy_layerprec.pipeline import select_constraints

        criterion = self.arg_groups[CriterionArgs]
        if criterion.option_for_model is not None and measured is None:
            G_LOGGER.critical(
                f"`{criterion.option_for_model}` needs the model: the forecast knows relative L2 "
                f"errors only.\n"
                "Name it, for example: --model model.onnx."
            )
        request = self.arg_groups[SelectionArgs].request(
            criterion.tolerance, precision=ranking.precision
        )
        if measured is None:
            return select_constraints(ranking, request)
        judges = criterion.judges(ranking.precision, measured.counted, self.judges())
        try:
            model = measured.of(ranking, judges=judges, tolerance=criterion.tolerance)
            with progress_bar() as progress:
                return select_constraints(ranking, request, model=model, progress=progress)
        except ExecutionError as error:
            if criterion.is_given or isinstance(error, WorkersError):
                raise
            G_LOGGER.warning(f"No set of layers was measured: the forecast decides.\nNote: {error}")
            return select_constraints(ranking, request)


def model_arguments(ranking: Ranking) -> list[str]:
    """Returns the options that `constrain` measures with, for the model of a ranking."""
    reference = ["--reference", "float.onnx"] if ranking.conditions.reference else []
    model = ranking.model.name or "model.onnx"
    return ["--model", model, *reference, "--load-inputs", "inputs.npz"]
