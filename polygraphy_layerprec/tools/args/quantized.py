"""Options about quantised models."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.records.numbers import count_of

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["QDQ_NAME", "QuantizedModelArgs"]

QDQ_NAME: Final = "qdq"
"""The precision whose layers are what takes something through a pair."""


@export()
class QuantizedModelArgs(BaseArgs):
    """
    Quantised Models: comparing a quantised model with the float model that it was made of.
    """

    _untold = ""

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--reference",
            metavar="PATH",
            help="With `--precision qdq`: path to the float model that was quantised, which is "
            "what outputs are compared with. For example: --reference float.onnx. Defaults to the "
            "quantised model with its pairs passed by; what quantisation did to constants that are "
            "stored in integers is then not known.",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            reference_path (str): Path to the float model, or None.
        """
        self.reference_path = args_util.get(args, "reference")

    def ranked_graph(self, graph: Graph, ranking: Ranking) -> Graph:
        """Returns what a ranking on file is about, as `graph_for`.

        Raises:
            UserError: If it is about another model, or compares with another reference.
        """
        from polygraphy_layerprec.matching.constraint_matching import check_ranked_model

        found = self.graph_for(graph, ranking.precision)
        if found is not graph:
            check_ranked_model(found, ranking, made="The ranking")
        return found

    def graph_for(self, graph: Graph, precision: str) -> Graph:
        """Returns what is ranked of a model: of a quantised one, its float graph and its pairs.

        Args:
            graph: The model.
            precision: Name of the low precision.

        Raises:
            ModelError: If it has no pairs that can be ranked, or the reference is another model.
        """
        if precision != QDQ_NAME:
            if self.reference_path is not None:
                G_LOGGER.critical(
                    "`--reference` is what a quantised model is compared with, by "
                    "`--precision qdq`.\nLeave it out, or rank what the pairs of a Q/DQ model do."
                )
            return graph
        from polygraphy_layerprec.model import load_graph
        from polygraphy_layerprec.model.quantized import pass_pairs_by

        reference = None if self.reference_path is None else load_graph(self.reference_path)
        found = pass_pairs_by(graph, reference, reference_path=self.reference_path)
        where = self.reference_path or "the same model with its pairs passed by"
        self._untold = (
            f"Quantised model: {count_of(len(found.pairs), 'pair')}, "
            f"{count_of(len(found.units), 'layer')} | Compared with {os.fspath(where)}"
        )
        return found

    def tell_pairs(self) -> None:
        """Logs what is ranked of a quantised model, if it is one: once, and behind the verdict."""
        if self._untold:
            G_LOGGER.info(self._untold)
        self._untold = ""
