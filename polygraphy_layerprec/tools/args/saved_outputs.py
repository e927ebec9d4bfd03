"""Options about results that `polygraphy run` saved."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.tools.progress import progress_bar

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.backend.saved_results import SavedComparison
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["SavedOutputsArgs"]


@export()
class SavedOutputsArgs(BaseArgs):
    """
    Saved Outputs: taking divergences from results that `polygraphy run` saved.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--load-outputs",
            metavar="PATH",
            help="Paths of results that `polygraphy run --save-outputs` wrote, best with every "
            "tensor marked as an output: those of the reference, then those of the candidate; or "
            "one path that holds both. Each is a file, or a directory with a file for each "
            "iteration. Divergences are then those of the results; impacts are still emulated, on "
            "the inputs of `--load-inputs`, which should be those of the results. "
            "For example: --load-outputs fp32.json fp16.json.",
            nargs="+",
            default=None,
            dest="load_outputs_paths",
        )
        self.group.add_argument(
            "--reference-runner",
            metavar="NAME",
            help="Name of the runner to take as the reference where results are of several, or a "
            "part of the name. For example: --reference-runner onnxrt. Defaults to the first.",
            default=None,
        )
        self.group.add_argument(
            "--candidate-runner",
            metavar="NAME",
            help="Name of the runner to take as the candidate where results are of several, or a "
            "part of the name. For example: --candidate-runner trt. Defaults to the first of "
            "another name than the reference.",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            paths (Tuple[str]): Paths of results: none, one, or the reference's and the candidate's.
            reference_runner (str): Name of the reference, or a part of it, or None.
            candidate_runner (str): Name of the candidate, or a part of it, or None.
        """
        self.paths = tuple(args_util.get(args, "load_outputs_paths") or ())
        self.reference_runner = args_util.get(args, "reference_runner")
        self.candidate_runner = args_util.get(args, "candidate_runner")
        if len(self.paths) > 2:
            G_LOGGER.critical(
                f"`--load-outputs` takes the reference and the candidate, but got "
                f"{len(self.paths)} paths.\nGive the iterations of a run as one directory."
            )
        for path in self.paths:
            if not os.path.exists(path):
                G_LOGGER.critical(f"No such results: {path!r}.\nCheck the path.")
        if not self.paths and (self.reference_runner or self.candidate_runner):
            G_LOGGER.critical(
                "`--reference-runner` and `--candidate-runner` choose among saved results, but "
                "there are none.\nAdd `--load-outputs fp32.json fp16.json`."
            )

    def refuse_beside(self, option: str) -> None:
        """Stops with a critical error if results were given beside an option that excludes them."""
        if self.paths:
            G_LOGGER.critical(
                f"`--load-outputs` and `{option}` both say where divergences come from.\n"
                f"Leave one of them out."
            )

    def compare(self, graph: Graph, precision: str) -> SavedComparison | None:
        """Returns how far the saved results are apart; None if none were given.

        Args:
            graph: The model that they are to be of.
            precision: Name of the low precision.
        """
        if not self.paths:
            return None
        from polygraphy_layerprec.backend.saved_results import compare_saved_results
        from polygraphy_layerprec.matching.tensor_matching import check_tensors_of_model
        from polygraphy_layerprec.precision import PRECISIONS

        with progress_bar() as progress:
            saved = compare_saved_results(
                self.paths,
                PRECISIONS[precision],
                reference_runner=self.reference_runner,
                candidate_runner=self.candidate_runner,
                progress=progress,
            )
        # Before the emulation, which takes longer.
        check_tensors_of_model(graph, saved.tensors.names)
        G_LOGGER.info(
            f"Saved results: {count_of(len(saved.tensors.names), 'tensor')} of "
            f"{saved.tensors.sample_count} iterations | reference: {saved.reference!r}, candidate: "
            f"{saved.candidate!r}"
        )
        if saved.unused:
            G_LOGGER.warning(
                f"These runners are in the saved results as well: {list(saved.unused)!r}.\n"
                f"Choose with `--reference-runner` and `--candidate-runner`."
            )
        return saved

    def put_into(self, ranking: Ranking, graph: Graph, saved: SavedComparison) -> Ranking:
        """Returns an emulated ranking with the divergences of the saved results."""
        from polygraphy_layerprec.ranking.measured_divergence import with_measured_divergences

        origin = (
            f"Divergences are those of saved results: {saved.candidate!r} against "
            f"{saved.reference!r}. Impacts and introduced errors are emulated."
        )
        if ranking.conditions.inputs == "generated":
            origin += (
                " They come from made-up inputs, the divergences do not: give the inputs of the "
                "saved results with `--load-inputs`."
            )
        return with_measured_divergences(
            ranking,
            saved.tensors,
            backend="saved-outputs",
            model_tensors={*graph.producers, *graph.weights},
            warnings=[origin],
        )
