"""Polygraphy's own comparison functions, in every version as far as it has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polygraphy
from polygraphy import comparator

from polygraphy_layerprec.backend.polygraphy_options import ALIASES, Compare, PolygraphyOptions
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.records import Criterion

__all__ = ["COMPARISONS", "ComparisonFunction", "comparison_functions"]

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class ComparisonFunction:
    """One function with what it judges by."""

    compare: Compare
    """Compares two results of an iteration."""

    criteria: Mapping[str, Criterion]
    """By output, an empty name for all others."""

    measure: Callable[[Any, str, Arrays, Arrays], tuple[float, float]]
    """Gives value and excess, of Polygraphy's result, the output, and the outputs of both."""


def comparison_functions(options: PolygraphyOptions) -> tuple[ComparisonFunction, ...]:
    """Returns the functions that are asked for.

    Raises:
        UserError: If this Polygraphy lacks one.
    """
    if options.script is not None:
        criterion = Criterion("outputs that the comparison script fails", 0.0)
        return (ComparisonFunction(options.script, {"": criterion}, _no_number),)
    return tuple(_FUNCTIONS[name](options) for name in options.functions)


def _simple(options: PolygraphyOptions) -> ComparisonFunction:
    given: dict[str, dict[str, Any]] = {
        "atol": {"": 1e-5, **options.atol},
        "rtol": {"": 1e-5, **options.rtol},
        "check_error_stat": {"": "elemwise", **options.check_error_stat},
        "error_quantile": {"": 0.99, **options.error_quantile},
    }

    def limit(option: str, output: str) -> Any:
        return given[option].get(output, given[option][""])

    def measure(result: Any, name: str, exact: Arrays, found: Arrays) -> tuple[float, float]:
        stat = limit("check_error_stat", name)
        if stat == "elemwise":
            absolute, relative = _errors(exact[name], found[name])
        else:
            absolute = getattr(result, f"{stat}_absdiff")
            relative = getattr(result, f"{stat}_reldiff")
        ratios = np.fmin(
            _ratio(absolute, limit("atol", name)), _ratio(relative, limit("rtol", name))
        )
        worst = float(np.max(ratios, initial=0.0))
        return worst, worst

    def criterion(output: str) -> Criterion:
        stat = limit("check_error_stat", output)
        return Criterion(
            f"{stat} error over atol {limit('atol', output):g} or rtol {limit('rtol', output):g}",
            1.0,
            outputs=(output,) if output else (),
        )

    named = {name: None for values in given.values() for name in values}
    compare = _made("SimpleCompareFunc", "simple")(**given)
    return ComparisonFunction(compare, {name: criterion(name) for name in named}, measure)


def _made(class_name: str, earlier: str) -> Callable[..., Compare]:
    """What makes a function: a class in newer versions."""
    newest: Callable[..., Compare] | None = getattr(comparator, class_name, None)
    return newest or getattr(comparator.CompareFunc, earlier)


def _errors(
    exact: np.ndarray[Any, Any], found: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    wide, other = exact.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        absolute = np.abs(wide - other)
        relative = absolute / np.where(other == 0.0, np.finfo(np.float64).eps, np.abs(other))
    lost = np.isnan(absolute)
    return np.where(lost, np.inf, absolute), np.where(lost, np.inf, relative)


def _ratio(errors: Any, limit: float) -> Any:
    errors = np.asarray(errors, np.float64)
    if limit > 0.0:
        return errors / limit
    return np.where(errors > 0.0, np.inf, 0.0)


def _indices(options: PolygraphyOptions) -> ComparisonFunction:
    tolerance = {"": 0, **options.index_tolerance}
    criterion = Criterion("outputs whose indices differ", 0.0, detail=f"beyond {tolerance['']}")
    compare = _made("IndicesCompareFunc", "indices")(index_tolerance=tolerance)
    return ComparisonFunction(compare, {"": criterion}, _no_number)


def _no_number(*_: object) -> tuple[float, float]:
    return math.nan, math.nan


@dataclass(frozen=True, slots=True)
class _Metric:
    """A comparison function of one number."""

    words: str
    field: str
    default: float
    class_name: str
    option: str
    earlier: tuple[str, str, str, float]
    """Name of the function that older versions have instead, its option, that of the other metric
    in it, and a threshold of that which everything passes."""

    higher_is_better: bool = True
    unit: str = ""


_METRICS: Final = {
    "l2": _Metric(
        *("L2 norm of the error", "l2_norm", 1e-5, "L2CompareFunc", "l2_threshold"),
        ("distance_metrics", "l2_tolerance", "cosine_similarity_threshold", -math.inf),
        higher_is_better=False,
    ),
    "cosine_similarity": _Metric(
        *("cosine similarity", "cosine_similarity", 0.997),
        *("CosineSimilarityCompareFunc", "cosine_similarity_threshold"),
        ("distance_metrics", "cosine_similarity_threshold", "l2_tolerance", math.inf),
    ),
    "psnr": _Metric(
        *("PSNR", "psnr", 30.0, "PsnrCompareFunc", "psnr_threshold"),
        ("quality_metrics", "psnr_tolerance", "snr_tolerance", -math.inf),
        unit=" dB",
    ),
    "snr": _Metric(
        *("SNR", "snr", 20.0, "SnrCompareFunc", "snr_threshold"),
        ("quality_metrics", "snr_tolerance", "psnr_tolerance", -math.inf),
        unit=" dB",
    ),
}


def _of_metric(name: str) -> Callable[[PolygraphyOptions], ComparisonFunction]:
    def make(options: PolygraphyOptions) -> ComparisonFunction:
        metric = _METRICS[name]
        limits = {"": metric.default, **options.thresholds.get(name, {})}

        def measure(result: Any, output: str, *_: object) -> tuple[float, float]:
            value = float(getattr(result, metric.field))
            return value, _excess(name, value, limits.get(output, limits[""]))

        criteria = {
            output: Criterion(
                metric.words,
                limit,
                metric.higher_is_better,
                metric.unit,
                outputs=(output,) if output else (),
            )
            for output, limit in limits.items()
        }
        return ComparisonFunction(_metric_function(name, metric, limits), criteria, measure)

    return make


def _metric_function(name: str, metric: _Metric, limits: Mapping[str, float]) -> Compare:
    newest = getattr(comparator, metric.class_name, None)
    if newest is not None:
        function: Compare = newest(**{metric.option: dict(limits)})
        return function
    earlier, option, other, passes = metric.earlier
    both = getattr(comparator.CompareFunc, earlier, None)
    if both is None:
        raise UserError(
            f"This Polygraphy, {polygraphy.__version__}, has no {name!r} to compare with.\n"
            f"Install a newer one, or give a tolerance that it has, like `--atol`."
        )
    older: Compare = both(**{option: dict(limits), other: passes})
    return older


def _excess(name: str, value: float, limit: float) -> float:
    """The error as a multiple of the one that just passes; infinite where there is no number."""
    if math.isnan(value):
        return math.inf
    if name == "l2":
        return float(_ratio(value, limit))
    if name == "cosine_similarity":  # 1 - cosine goes with the square of the error
        return math.sqrt(float(_ratio(max(1.0 - value, 0.0), max(1.0 - limit, 0.0))))
    return float(10.0 ** min((limit - value) / 20.0, 300.0))  # decibels of power


_FUNCTIONS: Final[Mapping[str, Callable[[PolygraphyOptions], ComparisonFunction]]] = {
    "simple": _simple,
    "indices": _indices,
    **{name: _of_metric(name) for name in _METRICS},
}

COMPARISONS: Final = (*_FUNCTIONS, *ALIASES)
"""Names that `--compare` takes."""
