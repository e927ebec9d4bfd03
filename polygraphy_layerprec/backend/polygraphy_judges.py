"""Polygraphy's own comparison functions as judges: the verdict is theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polygraphy
from polygraphy import comparator
from polygraphy.comparator import IterationResult
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.backend.polygraphy_functions import (
    ComparisonFunction,
    comparison_functions,
)
from polygraphy_layerprec.backend.polygraphy_options import PolygraphyOptions
from polygraphy_layerprec.divergence.output_parts import OutputParts
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.records import Criterion, Judgement

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.judges import Judge

__all__ = ["polygraphy_judges"]

Arrays = Mapping[str, np.ndarray[Any, Any]]

_JUST_ABOVE: Final = math.nextafter(1.0, 2.0)


def polygraphy_judges(options: PolygraphyOptions, outputs: Iterable[str]) -> tuple[Judge, ...]:
    """Returns a judge for each comparison function that is asked for.

    Args:
        options: What is asked for.
        outputs: Outputs of the model.

    Raises:
        UserError: If this Polygraphy lacks a function, or the model lacks an output.
    """
    named = tuple(outputs)
    parts = OutputParts(options.outputs, named)
    judged = parts.texts(rest=options.has_unnamed)
    if options.only is not None:
        judged = tuple(name for name in judged if name in options.only)
    return tuple(
        _PolygraphyJudge(function, parts, _criteria_for(function, judged), options, named, place)
        for place, function in enumerate(comparison_functions(options))
    )


def _judge_at(options: PolygraphyOptions, outputs: Sequence[str], place: int) -> Judge:
    return polygraphy_judges(options, outputs)[place]


def _criteria_for(function: ComparisonFunction, judged: Sequence[str]) -> dict[str, Criterion]:
    """By output; beside those of named outputs, the one for all others says which these are."""
    others = tuple(name for name in judged if name not in function.criteria)
    if len(function.criteria) == 1:
        return dict(function.criteria)
    return {
        name: criterion if name else replace(criterion, outputs=others)
        for name, criterion in function.criteria.items()
        if name or others
    }


@dataclass(frozen=True, slots=True)
class _PolygraphyJudge:
    function: ComparisonFunction
    parts: OutputParts
    by_output: Mapping[str, Criterion]
    options: PolygraphyOptions
    outputs: tuple[str, ...]
    place: int

    @property
    def calls_user(self) -> bool:
        return self.options.script is not None

    def __reduce__(self) -> tuple[Callable[..., Judge], tuple[Any, ...]]:
        # Polygraphy's functions cannot be pickled; what they are made of can.
        return _judge_at, (self.options, self.outputs, self.place)

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        return tuple(self.by_output.values())

    def start(self) -> _PolygraphyJudging:
        return _PolygraphyJudging(self)


@dataclass(frozen=True, slots=True)
class _Seen:
    value: float | None
    excess: float
    output: str
    is_bare: bool
    """Whether there is a verdict and no number."""


class _PolygraphyJudging:
    def __init__(self, judge: _PolygraphyJudge) -> None:
        self._judge = judge
        self._worst: dict[str, _Seen] = {}
        self._failed: dict[str, int] = {}

    def add(self, reference: Arrays, candidate: Arrays, sample: Arrays) -> None:
        del sample
        exact = self._prepared(reference)
        found = self._prepared({name: candidate[name] for name in reference if name in candidate})
        results = self._compare(
            IterationResult(exact, runner_name="fp32"),
            IterationResult(found, runner_name="candidate"),
        )
        if not isinstance(results, Mapping):
            raise UserError(
                f"A comparison function must return a mapping from output names to what it found, "
                f"got {results!r:.80}.\nReturn, for example, {{name: True for name in out0}}."
            )
        unknown = [name for name in exact if name not in results]
        if len(unknown) == len(exact):
            raise UserError(
                f"The comparison function says nothing of any output: {unknown!r:.200}.\n"
                f"Note: It returned results for {list(results)!r:.200}."
            )
        for name in exact:
            self._see(name, results.get(name, False), exact, found)

    def _compare(self, exact: IterationResult, found: IterationResult) -> Mapping[str, Any]:
        try:
            with G_LOGGER.verbosity(G_LOGGER.CRITICAL), np.errstate(all="ignore"):
                return self._judge.function.compare(exact, found)
        except AttributeError as error:
            if "NumPy 2" not in str(error):
                raise
            raise UserError(
                f"Polygraphy {polygraphy.__version__} cannot compare outputs with numpy "
                f"{np.__version__}: {error}\nInstall a newer Polygraphy, or numpy<2."
            ) from error

    def merge(self, other: _PolygraphyJudging) -> None:
        for key, failed in other._failed.items():
            self._failed[key] = self._failed.get(key, 0) + failed
        for key, seen in other._worst.items():
            self._keep(key, seen)

    def judgements(self) -> tuple[Judgement, ...]:
        criteria = self._judge.by_output
        return tuple(self._judgement(key, criteria[key]) for key in criteria if key in self._worst)

    def _judgement(self, key: str, criterion: Criterion) -> Judgement:
        worst, failed = self._worst[key], float(self._failed[key])
        if worst.is_bare:  # how often it failed is all there is
            return Judgement(criterion, failed, 1.0 + failed if failed else 0.0, worst.output)
        return Judgement(criterion, worst.value, worst.excess, worst.output)

    def _prepared(self, arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        judged = self._judge
        named = judged.parts.of(arrays, rest=judged.options.has_unnamed)
        parts = {
            name: np.ascontiguousarray(array)
            for name, array in named.items()
            if judged.options.only is None or name in judged.options.only
        }
        if not judged.options.postprocess:
            return parts
        return dict(_top_k(dict(judged.options.postprocess))(IterationResult(parts)))

    def _see(self, name: str, result: Any, exact: Arrays, found: Arrays) -> None:
        criteria = self._judge.by_output
        key = name if name in criteria else ""
        if key not in criteria:
            return
        passed = bool(result)
        self._failed[key] = self._failed.get(key, 0) + (not passed)
        value, excess = math.inf, math.inf
        if name in found and found[name].shape == exact[name].shape:
            value, excess = self._judge.function.measure(result, name, exact, found)
        is_bare = math.isnan(excess)
        if is_bare:
            excess = 0.0 if passed else _JUST_ABOVE
        # The verdict is Polygraphy's, whatever our own arithmetic says of the last bit.
        excess = min(excess, 1.0) if passed else max(excess, _JUST_ABOVE)
        self._keep(key, _Seen(None if math.isnan(value) else value, excess, name, is_bare))

    def _keep(self, key: str, seen: _Seen) -> None:
        if key not in self._worst or seen.excess >= self._worst[key].excess:
            self._worst[key] = seen


def _top_k(k: dict[str, Any]) -> Callable[[Any], Any]:
    newest = getattr(comparator, "TopKPostprocessFunc", None)
    made: Callable[[Any], Any] = (newest or comparator.PostprocessFunc.top_k)(k=k)
    return made
