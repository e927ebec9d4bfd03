"""Polygraphy's own options about comparing outputs, as criteria."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.tools.user_script import load_function

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from polygraphy_layerprec.backend.polygraphy_options import PolygraphyOptions
    from polygraphy_layerprec.divergence.judges import Judge

__all__ = ["COMPARISON_NAMES", "ComparisonArgs"]

_Value = TypeVar("_Value")

COMPARISON_NAMES: Final = (
    *("simple", "indices", "l2", "cosine_similarity", "psnr", "snr"),
    *("distance_metrics", "quality_metrics"),
)
"""What `--compare` takes; numpy is not imported to know them."""

_THRESHOLDS: Final = {
    "l2": ("--l2-threshold", "--l2-tolerance", "largest L2 norm of the error", "1e-3"),
    "cosine_similarity": ("--cosine-similarity-threshold", "", "least cosine similarity", "0.9999"),
    "psnr": ("--psnr-threshold", "--psnr-tolerance", "least PSNR in dB", "40"),
    "snr": ("--snr-threshold", "--snr-tolerance", "least SNR in dB", "60"),
}
"""For each function its option, another name of it, what it bounds, and a value."""

_STATISTICS: Final = ("elemwise", "max", "mean", "median", "quantile")
_TOP_K: Final = re.compile(r"top-(\d+)(?:,axis=(-?\d+))?")


@export()
class ComparisonArgs(BaseArgs):
    """
    Comparison: comparison functions of Polygraphy as criteria, with its options and its verdict.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--compare",
            "--compare-func",
            metavar="NAME",
            help="Polygraphy's function(s) that judge the outputs: "
            f"{', '.join(COMPARISON_NAMES)}. For example: --compare cosine_similarity snr. "
            "Defaults to those that have a threshold below.",
            nargs="+",
            choices=COMPARISON_NAMES,
            default=None,
        )
        for option, example in (("--atol", "1e-3"), ("--rtol", "1e-2")):
            kind = "Absolute" if option == "--atol" else "Relative"
            self._add(
                option,
                f"{kind} tolerance of `simple`, as `polygraphy run` has it. "
                f"For example: {option} {example} boxes:0.5. Defaults to 1e-5.",
            )
        self._add(
            "--check-error-stat",
            f"What `simple` compares with the tolerances: {', '.join(_STATISTICS)}. "
            "For example: --check-error-stat max. Defaults to elemwise.",
        )
        self._add(
            "--error-quantile",
            "Which quantile that is. For example: --error-quantile 0.95. Defaults to 0.99.",
        )
        self._declare_thresholds()
        self.group.add_argument(
            "--compare-func-script",
            metavar="PATH[:FUNCTION]",
            help="Python script with a function that takes two results of an iteration, and "
            "returns for each output whether it passes; instead of all functions above. "
            "For example: --compare-func-script compare.py. The function defaults to "
            "`compare_outputs`.",
            default=None,
        )

    def _declare_thresholds(self) -> None:
        for option, other, what, example in _THRESHOLDS.values():
            names = (option, other) if other else (option,)
            self._add(
                *names, text=f"The {what} that passes. For example: {option} {example} boxes:..."
            )
        self._add(
            "--index-tolerance",
            "By how many places `indices` may differ. For example: --index-tolerance 1. "
            "Defaults to 0.",
        )
        self._add(
            "--postprocess",
            "Compare the indices of the largest values: top-K, or top-K,axis=A, by output or for "
            "all. For example: --postprocess top-1. Selects `indices`.",
        )

    def _add(self, *names: str, text: str | None = None) -> None:
        options = [name for name in names if name.startswith("--")]
        help_text = text or names[-1]
        self.group.add_argument(
            *options, metavar="[OUTPUT:]VALUE", help=help_text, nargs="+", default=None
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            compare (Tuple[str]): Names of comparison functions.
            options (Dict[str, Dict[str, Any]]): What the other options say, by output.
            thresholds (Dict[str, Dict[str, float]]): Thresholds by function and output.
            script (str): Path to a script with a comparison function, or None.
            function_name (str): Name of the function in it.
        """
        self.compare = tuple(args_util.get(args, "compare") or ())
        self.options: dict[str, dict[str, Any]] = {
            "atol": _per_output(args, "atol", _not_negative),
            "rtol": _per_output(args, "rtol", _not_negative),
            "check_error_stat": _per_output(args, "check_error_stat", _statistic),
            "error_quantile": _per_output(args, "error_quantile", partial(_number_within, 0, 1)),
            "index_tolerance": _per_output(args, "index_tolerance", _whole),
            "postprocess": _per_output(args, "postprocess", _top_k),
        }
        self.thresholds = {
            name: _per_output(args, option[2:].replace("-", "_"), _READERS.get(name, _number))
            for name, (option, *_) in _THRESHOLDS.items()
        }
        script, function_name = args_util.parse_script_and_func_name(
            args_util.get(args, "compare_func_script"), default_func_name="compare_outputs"
        )
        self.script = script
        self.function_name = function_name
        if self.script is not None and not os.path.isfile(self.script):
            G_LOGGER.critical(f"No such script to compare with: {self.script!r}.\nCheck the path.")

    @property
    def first_option(self) -> str | None:
        """The first of the options that was given; None if none was."""
        given = [f"--{name.replace('_', '-')}" for name, values in self.options.items() if values]
        given += [_THRESHOLDS[name][0] for name, values in self.thresholds.items() if values]
        given += ["--compare"] * bool(self.compare)
        given += ["--compare-func-script"] * (self.script is not None)
        return given[0] if given else None

    def judges(self, outputs: Sequence[str]) -> tuple[Judge, ...]:
        """Returns judges of what was given.

        Args:
            outputs: Outputs of the model.

        Raises:
            UserError: If Polygraphy lacks a function, or the model an output.
        """
        if self.first_option is None:
            return ()
        from polygraphy_layerprec.backend.polygraphy_judges import polygraphy_judges

        return polygraphy_judges(self._given(), outputs)

    def covered(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """Returns the outputs that are judged, and the parts of others.

        Raises:
            UserError: If the model lacks an output.
        """
        return () if self.first_option is None else self._given().covered(outputs)

    def _given(self) -> PolygraphyOptions:
        from polygraphy_layerprec.backend.polygraphy_options import PolygraphyOptions

        compare = None
        if self.script is not None:
            compare = load_function(self.script, self.function_name, option="--compare-func-script")
        return PolygraphyOptions(
            compare=self.compare, thresholds=self.thresholds, script=compare, **self.options
        )


def _per_output(
    args: argparse.Namespace, name: str, value_of: Callable[[str], _Value]
) -> dict[str, _Value]:
    from polygraphy_layerprec.divergence.output_parts import parse_per_output

    try:
        return parse_per_output(args_util.get(args, name) or (), value_of)
    except UserError as error:
        G_LOGGER.critical(f"`--{name.replace('_', '-')}` {error}.")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise UserError(f"{text} is not finite")
    return value


def _number_within(low: int, high: int, text: str) -> float:
    value = _number(text)
    if not low <= value <= high:
        raise UserError(f"{text} is not in [{low}, {high}]")
    return value


def _not_negative(text: str) -> float:
    value = _number(text)
    if value < 0.0:
        raise UserError(f"{text} is negative")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise UserError(f"{text} is negative")
    return value


def _statistic(text: str) -> str:
    if text not in _STATISTICS:
        raise UserError(f"there are {', '.join(_STATISTICS)}")
    return text


def _top_k(text: str) -> int | tuple[int, int]:
    found = _TOP_K.fullmatch(text)
    if found is None:
        raise UserError("there is top-K, and top-K,axis=A")
    number, axis = found.groups()
    return int(number) if axis is None else (int(number), int(axis))


_READERS: Final[dict[str, Callable[[str], float]]] = {
    "cosine_similarity": partial(_number_within, -1, 1)
}
"""What reads a threshold that not every number can be."""
