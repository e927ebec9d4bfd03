"""Options about the model file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy.tools.args import ModelArgs
from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import export

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.model import Graph

__all__ = ["OnnxGraphArgs"]


# Not Polygraphy's `OnnxLoadArgs`: it loads all weights at once, and offers to change the model.
@export()
class OnnxGraphArgs(BaseArgs):
    """
    ONNX Model Loading: loading ONNX models.

    Depends on:

        - ModelArgs
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--external-data-dir",
            "--load-external-data",
            "--ext",
            dest="external_data_dir",
            help="Path to a directory containing external data for the model. Generally, this is "
            "only required if the external data is not stored in the model directory.",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            external_data_dir (str): Path to a directory from which to load external data.
        """
        self.external_data_dir = args_util.get(args, "external_data_dir")

    @property
    def path(self) -> str:
        """The path of the model, as Polygraphy understood it."""
        model_args = self.arg_groups[ModelArgs]
        # Polygraphy takes what follows a colon for a function in a script; ONNX models have none.
        parts = [model_args.path, model_args.extra_model_info]
        return ":".join(part for part in parts if part is not None)

    def load_graph(self) -> Graph:
        """Returns the model, its weights left on disk."""
        from polygraphy_layerprec.model import load_graph

        return load_graph(self.path, external_data_folder=self.external_data_dir)
