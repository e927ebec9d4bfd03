"""Options about which file is shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.model import Graph

__all__ = ["InspectionArgs"]

_DEFAULT_TOP: Final = 20
_SUFFIXES: Final = (".json", ".py")


@export()
class InspectionArgs(BaseArgs):
    """
    Inspection: which file is shown, and which model it should be about.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "path",
            metavar="FILE",
            help="Path of a ranking (`.json`) or of a script (`.py`).",
        )
        self.group.add_argument(
            "--model",
            metavar="PATH",
            help="Path of the ONNX model that the file should be about. "
            "For example: --model model.onnx.",
            default=None,
        )
        self.group.add_argument(
            "--external-data-dir",
            metavar="PATH",
            help="Path to a directory containing external data for the model. Defaults to the "
            "directory of the model.",
            default=None,
        )
        self.group.add_argument(
            "--top",
            metavar="NUM",
            help="How many layers of a ranking to list. For example: --top 50. Defaults to 20.",
            type=int,
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            path (str): Path of the ranking or script.
            is_ranking (bool): Whether it is a ranking.
            model (str): Path of the model it should be about, or None.
            external_data_dir (str): Path to a directory with external data, or None.
            top (int): How many layers of a ranking to list.
        """
        self.path = args_util.get(args, "path")
        self.model = args_util.get(args, "model")
        self.external_data_dir = args_util.get(args, "external_data_dir")
        top = args_util.get(args, "top")
        self.top = _DEFAULT_TOP if top is None else top
        suffix = os.path.splitext(self.path)[1].lower()
        self.is_ranking = suffix == ".json"
        if suffix not in _SUFFIXES:
            G_LOGGER.critical(
                f"Cannot inspect {self.path!r}: its name must end in {' or '.join(_SUFFIXES)}."
            )
        if not os.path.isfile(self.path):
            G_LOGGER.critical(f"No such file: {self.path!r}.\nCheck the path.")
        if self.top < 1:
            G_LOGGER.critical(f"`--top` must be at least 1, got: {self.top}.")

    def load_graph(self) -> Graph:
        """Returns the model, its weights left on disk."""
        from polygraphy_layerprec.model import load_graph

        return load_graph(self.model, external_data_folder=self.external_data_dir)
