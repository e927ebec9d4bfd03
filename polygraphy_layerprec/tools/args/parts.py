"""Options about the parts of a ranking, and the model that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.tools.args.ranked_model import declare_ranked_model

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.distribution.partial_file import PartialFile
    from polygraphy_layerprec.model import Graph

__all__ = ["PartArgs"]


@export()
class PartArgs(BaseArgs):
    """
    Parts: loading the parts of a ranking, and the model that they are about.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "parts",
            metavar="PART",
            help="Paths to all parts that `rank` saved with `--save-partial`, in any order.",
            nargs="+",
        )
        declare_ranked_model(self.group)

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            paths (List[str]): Paths to the parts.
            model_path (str): Path to the model.
            external_data_dir (str): Path to a directory with its external data, or None.
        """
        self.paths = args_util.get(args, "parts")
        self.model_path = args_util.get(args, "model")
        self.external_data_dir = args_util.get(args, "external_data_dir")
        if self.model_path is None:
            G_LOGGER.critical(
                "The parts hold numbers of the model's layers, not their names.\n"
                "Name the model, for example: --model model.onnx."
            )

    def open_parts(self) -> list[PartialFile]:
        """Returns the parts, of one ranking and complete."""
        from polygraphy_layerprec.distribution.merging import check_parts
        from polygraphy_layerprec.distribution.partial_file import open_partial

        parts = [open_partial(path) for path in self.paths]
        check_parts(parts)
        return parts

    def load_graph(self) -> Graph:
        """Returns the model, its weights left on disk."""
        from polygraphy_layerprec.model import load_graph

        return load_graph(self.model_path, external_data_folder=self.external_data_dir)
