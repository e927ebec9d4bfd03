"""Options about which layers stay in FP32."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.tools.args.output_path import check_output_path
from polygraphy_layerprec.tools.args.quantized import QDQ_NAME

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.selection import SelectionRequest
    from polygraphy_layerprec.selection.groups import GroupKind
    from polygraphy_layerprec.selection.prices import CostKind

__all__ = ["SelectionArgs"]


@export()
class SelectionArgs(BaseArgs):
    """
    Selection: choosing the layers that stay in FP32.
    """

    def __init__(self, *, allow_choose: bool = False) -> None:
        """Declares what is declared.

        Args:
            allow_choose: Whether a set may be taken from a list that was saved.
        """
        super().__init__()
        self._allow_choose = allow_choose

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self._declare_sizes()
        self._declare_names()
        self._declare_costs()
        self.group.add_argument(
            "--by",
            help="What to keep in FP32 as one: {'layer': single layers, 'block': whole parts of "
            "the model, by the names of their nodes, 'operator': all layers of an operator}. "
            "Defaults to layer.",
            choices=["layer", "block", "operator"],
            default=None,
        )
        self.group.add_argument(
            "--save-curve",
            metavar="PATH",
            help="Path to save the output error against the number of layers in FP32, at a handful "
            "of points: a table if it ends in `.csv`, a picture if it ends in `.png` or `.svg`. "
            "For example: --save-curve curve.csv.",
            default=None,
        )

    def _declare_sizes(self) -> None:
        size = self.group.add_mutually_exclusive_group()
        size.add_argument(
            "--top-k",
            metavar="NUM",
            help="Keep this many layers in FP32, the worst first. For example: --top-k 10.",
            type=int,
            default=None,
        )
        size.add_argument(
            "--fp32-fraction",
            metavar="SHARE",
            help="Keep this share of the layers in FP32, the worst first. "
            "For example: --fp32-fraction 0.1.",
            type=float,
            default=None,
        )
        if self._allow_choose:
            size.add_argument(
                "--choose",
                metavar="NUM",
                help="Take the set of this number from the list that `rank` showed and saved, "
                "without measuring again. For example: --choose 2.",
                type=int,
                default=None,
            )

    def _declare_names(self) -> None:
        self.group.add_argument(
            "--keep",
            metavar="REGEX",
            help="Keep layers whose name matches in FP32 in any case. "
            "For example: --keep 'layer\\.0/.*norm'.",
            nargs="+",
            default=None,
        )
        self.group.add_argument(
            "--allow",
            metavar="REGEX",
            help="Keep no layers in FP32 but those whose name matches. "
            "For example: --allow '/encoder/'. Defaults to any layer.",
            nargs="+",
            default=None,
        )

    def _declare_costs(self) -> None:
        self.group.add_argument(
            "--cost",
            help="What to save among sets that meet the criterion: {'time': an estimate of it, by "
            "operations and bytes; 'count': layers in FP32, 'flops': operations in FP32, 'casts': "
            "borders between FP32 and low precision}. Defaults to time, and to flops for the pairs "
            "of a quantised model.",
            choices=["time", "count", "flops", "casts"],
            default=None,
        )
        self.group.add_argument(
            "--fp16-speedup",
            metavar="RATIO",
            help="For the estimate of time: how much faster products are in low precision than in "
            "FP32. For example: --fp16-speedup 4. Defaults to 8.",
            type=float,
            default=None,
        )
        self.group.add_argument(
            "--flops-per-byte",
            metavar="RATIO",
            help="For the estimate of time: FP32 operations in the time that a byte of memory "
            "takes. For example: --flops-per-byte 50. Defaults to 12.",
            type=float,
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            top_k (int): How many layers to keep in FP32, or None.
            fp32_fraction (float): Share of the layers to keep in FP32, or None.
            choose (int): Which of the sets that were saved, or None.
            keep (Tuple[str]): Expressions for layers to keep in any case.
            allow (Tuple[str]): Expressions for layers that may be kept; none for any.
            cost (str): What to save, or None.
            fp16_speedup (float): How much faster products are in low precision, or None.
            flops_per_byte (float): Operations in the time of a byte, or None.
            by (str): What to keep as one.
            save_curve (str): Path to save the curve of errors, or None.
        """
        self.top_k = args_util.get(args, "top_k")
        self.fp32_fraction = args_util.get(args, "fp32_fraction")
        self.choose = args_util.get(args, "choose")
        self.keep = tuple(args_util.get(args, "keep") or ())
        self.allow = tuple(args_util.get(args, "allow") or ())
        self.cost: CostKind | None = args_util.get(args, "cost")
        self.fp16_speedup = args_util.get(args, "fp16_speedup")
        self.flops_per_byte = args_util.get(args, "flops_per_byte")
        for option, ratio in (
            ("--fp16-speedup", self.fp16_speedup),
            ("--flops-per-byte", self.flops_per_byte),
        ):
            if ratio is not None and not 0 < ratio < float("inf"):  # NaN as well
                G_LOGGER.critical(f"`{option}` must be positive, got: {ratio}.")
        self.by: GroupKind = args_util.get(args, "by") or "layer"
        self.save_curve = args_util.get(args, "save_curve")
        check_output_path(self.save_curve, option="--save-curve", suffixes=(".csv", ".png", ".svg"))
        for expression in self.keep:
            _check_expression("--keep", expression)
        for expression in self.allow:
            _check_expression("--allow", expression)
        if self.top_k is not None and self.top_k < 0:
            G_LOGGER.critical(f"`--top-k` must be at least 0, got: {self.top_k}.")
        if self.fp32_fraction is not None and not 0 <= self.fp32_fraction <= 1:
            G_LOGGER.critical(f"`--fp32-fraction` must lie in [0, 1], got: {self.fp32_fraction}.")

    @property
    def is_size_given(self) -> bool:
        """Whether the number of layers was given, or their share."""
        return self.top_k is not None or self.fp32_fraction is not None

    def request(self, tolerance: float | None, *, precision: str | None = None) -> SelectionRequest:
        """Returns what the options ask to keep in FP32.

        Args:
            tolerance: Largest relative L2 error, if one was given; a size goes before it.
            precision: Name of the low precision, where the default of `--cost` depends on it.
        """
        from polygraphy_layerprec.selection import SelectionRequest
        from polygraphy_layerprec.selection.prices import Hardware

        ratios = {"fp16_speedup": self.fp16_speedup, "flops_per_byte": self.flops_per_byte}
        return SelectionRequest(
            tolerance=None if self.is_size_given else tolerance,
            top_k=self.top_k,
            fp32_fraction=self.fp32_fraction,
            keep=self.keep,
            allow=self.allow,
            cost=self.cost or ("flops" if precision == QDQ_NAME else "time"),
            hardware=Hardware(**{name: ratio for name, ratio in ratios.items() if ratio}),
            by=self.by,
            choose=self.choose,
        )


def _check_expression(option: str, expression: str) -> None:
    """Stops, before any work begins, at what is no regular expression."""
    try:
        re.compile(expression)
    except re.error as error:
        G_LOGGER.critical(
            f"`{option}`: {expression!r} is not a regular expression: {error}.\n"
            f"Write a backslash before characters that stand for themselves."
        )
