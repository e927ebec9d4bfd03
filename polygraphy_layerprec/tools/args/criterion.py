"""Options about what the outputs have to hold."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.terminal_output import wrapped
from polygraphy_layerprec.tools.args.comparison import ComparisonArgs
from polygraphy_layerprec.tools.args.output_path import check_output_path
from polygraphy_layerprec.tools.user_script import load_function

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.records import Judgement, Outcome, SavedVerdict

__all__ = ["CriterionArgs"]

_METRIC_FUNCTION: Final = "metric"
_SURE_COSINE: Final = 1.0 - 1e-6


@export()
class CriterionArgs(BaseArgs):
    """
    Criterion: what the outputs have to hold. No element may become NaN or infinite in any case.

    Depends on:

        - ComparisonArgs
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--tolerance",
            metavar="[OUTPUT:]ERROR",
            help="Largest relative L2 error of any output, sample, and group of channels of like "
            "size, and largest share of integers that differ (1%% if that is more); by output, or "
            "part of one, or for all others. "
            "For example: --tolerance 1e-3, or --tolerance 'output[..., 4:]:1e-2'. "
            "Defaults to 5e-3 for fp16, 4e-2 for bf16 and 0.1 for qdq, for all that no criterion "
            "is about.",
            nargs="+",
            default=None,
        )
        self.group.add_argument(
            "--max-abs",
            metavar="[OUTPUT:]ERROR",
            help="Largest absolute error of any float of the outputs; by output, or part of one, "
            "or for all others. For example: --max-abs 0.01, or --max-abs boxes:0.5.",
            nargs="+",
            default=None,
        )

        self.group.add_argument(
            "--metric-script",
            metavar="PATH[:FUNCTION]",
            help="Python script with a function `metric(outputs, samples)` that is given iterators "
            "over the outputs and the samples of the whole data set, labels included, and returns "
            "a number, higher is better. Sets of layers are judged by how much it drops from FP32. "
            "For example: --metric-script top1.py. The function defaults to `metric`.",
            default=None,
        )
        self.group.add_argument(
            "--max-drop",
            metavar="DROP",
            help="Largest drop of the metric that passes: in its own unit, or in percent of what "
            "FP32 has, less than 100%%. For example: --max-drop 0.01, or --max-drop 1%%. "
            "Defaults to 0.",
            default=None,
        )
        self.group.add_argument(
            "--save-verdict",
            metavar="PATH",
            help="Path to save the verdict as JSON, with all figures, for continuous integration. "
            "For example: --save-verdict verdict.json.",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            tolerances (Dict[str, float]): Largest relative L2 errors by output.
            max_abs (Dict[str, float]): Largest absolute errors by output.
            metric_script (str): Path to a script with a metric, or None.
            metric_name (str): Name of the function in it.
            max_drop (float): Largest drop of the metric that passes.
            is_percent (bool): Whether that is in percent of what FP32 has.
            verdict_path (str): Path to save the verdict, or None.
        """
        self.verdict_path = args_util.get(args, "save_verdict")
        check_output_path(self.verdict_path, option="--save-verdict", suffixes=(".json",))
        self.tolerances = _positive(args, "tolerance")
        self.max_abs = _positive(args, "max_abs")
        metric_script, metric_name = args_util.parse_script_and_func_name(
            args_util.get(args, "metric_script"), default_func_name=_METRIC_FUNCTION
        )
        self.metric_script = metric_script
        self.metric_name = metric_name
        drop = args_util.get(args, "max_drop")
        self.is_percent = str(drop).endswith("%")
        self.max_drop = _drop(drop)
        if drop is not None and metric_script is None:
            G_LOGGER.critical("`--max-drop` is about a metric: give one with `--metric-script`.")
        if metric_script is not None and not os.path.isfile(metric_script):
            G_LOGGER.critical(f"No such script with a metric: {metric_script!r}.\nCheck the path.")

    @property
    def tolerance(self) -> float | None:
        """The largest relative L2 error of outputs that are not named, or None."""
        return self.tolerances.get("")

    @property
    def is_given(self) -> bool:
        """Whether any criterion was given."""
        return bool(self.tolerances) or self.option_for_model is not None

    @property
    def option_for_model(self) -> str | None:
        """The option of a criterion that the forecast does not know; None if none was given."""
        if self.max_abs:
            return "--max-abs"
        if self.metric_script is not None:
            return "--metric-script"
        if any(self.tolerances):
            return "--tolerance OUTPUT:ERROR"
        first: str | None = self.arg_groups[ComparisonArgs].first_option
        return first

    def judges(
        self, precision: str, outputs: Sequence[str], others: Sequence[Judge] = ()
    ) -> tuple[Judge, ...]:
        """Returns judges of the criteria that were given; none where one tolerance alone decides.

        Args:
            precision: Name of the low precision.
            outputs: Outputs of the model.
            others: Judges beside them.
        """
        if self.option_for_model is None and not others:
            return ()
        return (
            *others,
            *self._metric_judges(),
            *self._own_judges(precision, outputs),
            *self.arg_groups[ComparisonArgs].judges(outputs),
            *(() if others else self._judges_of_the_rest(precision, outputs)),
        )

    def warn_of_criteria(self, lowered: Outcome | None) -> None:
        """Warns where a criterion says nothing, as what the lowered model leaves shows."""
        for found in () if lowered is None else lowered.judgements:
            doubt = _doubt_about(found)
            if doubt:
                G_LOGGER.warning(wrapped(doubt))

    def save_verdict(self, make: Callable[[], SavedVerdict]) -> None:
        """Saves the verdict that `make` returns, if a path was given."""
        if self.verdict_path is None:
            return
        from polygraphy_layerprec.files.verdict_file import save_verdict

        save_verdict(make(), self.verdict_path)
        G_LOGGER.info(f"Saved the verdict to {self.verdict_path}")

    def _metric_judges(self) -> list[Judge]:
        if self.metric_script is None:
            return []
        from polygraphy_layerprec.divergence.metric_judge import MetricJudge

        metric = load_function(self.metric_script, self.metric_name, option="--metric-script")
        name = self.metric_name
        if name == _METRIC_FUNCTION:  # which says nothing
            name = os.path.splitext(os.path.basename(self.metric_script))[0]
        return [MetricJudge(metric, name, self.max_drop, self.is_percent)]

    def _own_judges(self, precision: str, outputs: Sequence[str]) -> list[Judge]:
        from polygraphy_layerprec.divergence.judges import max_abs_judge, tolerance_judges
        from polygraphy_layerprec.divergence.output_parts import OutputParts
        from polygraphy_layerprec.precision import precision_named

        parts = OutputParts(filter(None, self.max_abs), outputs)
        judges = [max_abs_judge(limit, name, parts=parts) for name, limit in self.max_abs.items()]
        parts = OutputParts(filter(None, self.tolerances), outputs)
        for name, limit in self.tolerances.items():
            judges += tolerance_judges(precision_named(precision), limit, name, parts=parts)
        return judges

    def _judges_of_the_rest(self, precision: str, outputs: Sequence[str]) -> tuple[Judge, ...]:
        """The default criterion for what no option names, unless one has a value for all."""
        if self.metric_script is not None or "" in self.tolerances or "" in self.max_abs:
            return ()
        from polygraphy_layerprec.divergence.judges import tolerance_judges
        from polygraphy_layerprec.divergence.output_parts import OutputParts
        from polygraphy_layerprec.precision import precision_named

        compared = self.arg_groups[ComparisonArgs].covered(outputs)
        parts = OutputParts([*self.tolerances, *self.max_abs, *compared], outputs)
        return tolerance_judges(precision_named(precision), parts=parts) if parts.rest else ()


def _doubt_about(found: Judgement) -> str:
    """Why a judgement may say nothing, in words; empty where it does."""
    criterion = found.criterion
    if found.is_blind:
        return (
            f"The {criterion.metric} says nothing, unless 0 is the best that the metric can be: it "
            f"is 0 in FP32, and 0 with every layer lowered.\n"
            f"See whether it finds the labels and outputs that it expects."
        )
    if criterion.metric == "cosine similarity" and criterion.threshold > _SURE_COSINE:
        error = max(math.sqrt(2.0 * max(1.0 - criterion.threshold, 0.0)), 1e-6)
        return (
            f"Polygraphy computes the cosine similarity in FP32, which is sure of six digits: "
            f"{criterion.threshold:.8g} may fail for outputs that are equal, and hold for others.\n"
            f"`--tolerance {error:.2g}` asks for the same and is computed in FP64."
        )
    return ""


def _positive(args: argparse.Namespace, name: str) -> dict[str, float]:
    from polygraphy_layerprec.divergence.output_parts import parse_per_output

    option = f"--{name.replace('_', '-')}"
    try:
        limits = parse_per_output(args_util.get(args, name) or (), float)
    except UserError as error:
        G_LOGGER.critical(f"`{option}` {error}.")
    for limit in limits.values():
        if not 0 < limit < float("inf"):  # NaN as well
            G_LOGGER.critical(f"`{option}` must be positive, got: {limit}.")
    return limits


def _drop(text: str | None) -> float:
    try:
        drop = float((text or "0").removesuffix("%"))
    except ValueError:
        drop = float("nan")
    if not 0.0 <= drop < float("inf"):
        G_LOGGER.critical(f"`--max-drop` must be like 0.01 or 1%, got: {text}.")
    if drop >= 100.0 and str(text).endswith("%"):
        G_LOGGER.critical(
            f"`--max-drop` must be less than 100%, got: {text}: what FP32 has could be lost as a "
            f"whole.\nGive a smaller one, or a drop in the metric's own unit, like 0.01."
        )
    return drop
