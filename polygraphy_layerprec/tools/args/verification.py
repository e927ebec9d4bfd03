"""Options about what is verified, and against what."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.tools.args.precision_name import read_precision_name
from polygraphy_layerprec.tools.args.quantized import QDQ_NAME

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import RequestedPrecisions

__all__ = ["VerificationArgs"]


@export()
class VerificationArgs(BaseArgs):
    """
    Verification: which layers stay in FP32, and what error is allowed.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        source = self.group.add_mutually_exclusive_group()
        source.add_argument(
            "--script",
            metavar="PATH",
            help="Verify what this script of `rank --save-script` keeps in FP32. Its data are read "
            "without running it. For example: --script constraints.py.",
            default=None,
        )
        source.add_argument(
            "--mixed-onnx",
            metavar="PATH",
            help="Verify what this mixed-precision form of the model keeps in FP32. "
            "For example: --mixed-onnx mixed.onnx.",
            default=None,
        )
        source.add_argument(
            "--ranking",
            metavar="PATH",
            help="Verify what this ranking of `rank --save-ranking` proposes to keep in FP32: by "
            "default, and with the same `--tolerance`, the set that was chosen when it was made; "
            "with another one the fewest layers that are forecast to meet it. "
            "For example: --ranking ranking.json.",
            default=None,
        )
        self.group.add_argument(
            "--top-k",
            metavar="NUM",
            help="Of the ranking, keep this many layers in FP32, the worst first. "
            "For example: --top-k 10.",
            type=int,
            default=None,
        )
        self._add_judging_options()

    def _add_judging_options(self) -> None:
        self.group.add_argument(
            "--precision",
            metavar="NAME",
            help="The low precision: fp16 (float16, half), bf16 (bfloat16), or qdq, the pairs that "
            "stand in a quantised model, all but those of the layers that are kept. "
            "For example: --precision bf16. "
            "Defaults to that of the script, ranking or model, else fp16.",
            default=None,
        )
        self.group.add_argument(
            "--outputs",
            metavar="NAME",
            help="Name(s) of the model output(s) that count. For example: --outputs logits. "
            "Defaults to all outputs.",
            nargs="+",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            script (str): Path of a script to verify, or None.
            mixed_onnx (str): Path of a mixed-precision model to verify, or None.
            ranking (str): Path of a ranking to verify, or None.
            top_k (int): How many layers of the ranking to keep in FP32, or None.
            precision (str): Name of the low precision, or None.
            outputs (Tuple[str]): Names of the outputs that count, or None for all.
        """
        self.script = args_util.get(args, "script")
        self.mixed_onnx = args_util.get(args, "mixed_onnx")
        self.ranking = args_util.get(args, "ranking")
        self.top_k = args_util.get(args, "top_k")
        self.precision = args_util.get(args, "precision")
        outputs = args_util.get(args, "outputs")
        self.outputs = None if outputs is None else tuple(outputs)
        self._check()

    def _check(self) -> None:
        if self.precision is not None:
            self.precision = read_precision_name(
                self.precision, option="--precision", also=(QDQ_NAME,)
            )
        source = self.script or self.mixed_onnx
        if self.precision == QDQ_NAME and source is not None:
            G_LOGGER.critical(
                f"`--precision qdq` is about the pairs of a quantised model, and {source!r} about "
                f"FP16 and BF16.\nGive `--ranking`, or alone the model with fewer pairs that was "
                f"saved."
            )
        if self.top_k is not None and self.ranking is None:
            G_LOGGER.critical(
                "`--top-k` chooses layers of a ranking, but there is none.\n"
                "Add `--ranking ranking.json`."
            )
        if self.top_k is not None and self.top_k < 0:
            G_LOGGER.critical(f"`--top-k` must be at least 0, got: {self.top_k}.")
        options = {"script": self.script, "mixed-onnx": self.mixed_onnx, "ranking": self.ranking}
        for option, path in options.items():
            if path is not None and not os.path.isfile(path):
                G_LOGGER.critical(f"No such file for `--{option}`: {path!r}.\nCheck the path.")

    def low_precision(self) -> str:
        """Returns the name of the precision that is verified, `qdq` where pairs are.

        Raises:
            UserError: If the ranking cannot be read.
        """
        if self.ranking is None:
            return self.precision or "fp16"
        from polygraphy_layerprec.files.ranking_file import load_ranking

        return load_ranking(self.ranking).precision

    def load_asked(self, graph: Graph, tolerance: float | None) -> RequestedPrecisions:
        """Returns which layers stay in FP32.

        Raises:
            UserError: If a file is not what it should be, or is about another model.
        """
        from polygraphy_layerprec.matching import requested_precisions
        from polygraphy_layerprec.selection import SelectionRequest

        if self.script is not None:
            asked = requested_precisions.requested_by_script(self.script, graph)
        elif self.mixed_onnx is not None:
            asked = requested_precisions.requested_by_mixed_onnx(self.mixed_onnx, graph)
        elif self.ranking is not None:
            wanted = tolerance if self.top_k is None else None
            request = SelectionRequest(tolerance=wanted, top_k=self.top_k)
            asked = requested_precisions.requested_by_ranking(self.ranking, graph, request)
        else:
            return requested_precisions.all_lowered(self.precision or "fp16")
        if self.precision not in (None, asked.precision):
            raise UserError(
                f"`--precision` is {self.precision}, but {asked.source} is for {asked.precision}.\n"
                f"Leave out `--precision`."
            )
        return asked
