"""Options about a ranking on file, and the model that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import export

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["RankedModelArgs", "declare_ranked_model"]


def declare_ranked_model(group: Any, purpose: str = "") -> None:
    """Declares the options of the model that a file is about.

    Args:
        group: Where argparse lists them.
        purpose: What the model is for, a sentence and a space.
    """
    group.add_argument(
        "--model",
        metavar="PATH",
        help=f"Path to the model that was ranked. {purpose}For example: --model model.onnx.",
        default=None,
    )
    group.add_argument(
        "--external-data-dir",
        help="Path to a directory containing external data for the model. Generally, this is "
        "only required if the external data is not stored in the model directory.",
        default=None,
    )


@export()
class RankedModelArgs(BaseArgs):
    """
    Ranking: loading a ranking, and the model that it is about.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "ranking",
            metavar="RANKING",
            help="Path to a ranking that `rank` saved with `--save-ranking`, as JSON.",
        )
        declare_ranked_model(
            self.group,
            "With it, sets of layers are measured; without it, the forecast decides. ",
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            path (str): Path to the ranking.
            model_path (str): Path to the model, or None.
            external_data_dir (str): Path to a directory with its external data, or None.
        """
        self.path = args_util.get(args, "ranking")
        self.model_path = args_util.get(args, "model")
        self.external_data_dir = args_util.get(args, "external_data_dir")

    def load_ranking(self, graph: Graph | None) -> Ranking:
        """Returns the ranking, its layers under the names that they have in the model."""
        from polygraphy_layerprec.files.ranking_file import load_ranking
        from polygraphy_layerprec.matching.earlier_versions import ranking_of_today

        ranking = load_ranking(self.path)
        return ranking if graph is None else ranking_of_today(graph, ranking)

    def load_graph(self) -> Graph | None:
        """Returns the model, its weights left on disk; None if it was not named."""
        from polygraphy_layerprec.model import load_graph

        if self.model_path is None:
            return None
        return load_graph(self.model_path, external_data_folder=self.external_data_dir)
