"""What a ranking may cost, and whether it does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.isolated import Measurement

__all__ = ["Figures", "goal_table"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured on one model."""

    name: str
    """Name on the command line."""

    title: str
    """What the table calls it."""

    size_bytes: int
    """Size of the model on disk, external weights included."""

    layers: int
    """Layers that were ranked."""

    forward_seconds: float
    """Median time of one plain FP32 forward."""

    gain: Measurement
    """Ranking one sample by gain."""

    adjoint: Measurement
    """Ranking one sample by adjoint."""

    graph_seconds: float
    """Reading the model and its topology."""

    marked: Measurement | None
    """Polygraphy with every tensor an output; None where left out."""

    many_samples: Measurement | None
    """Ranking many samples by gain; None where left out."""

    first_seconds: float
    """The first sample of a ranking by adjoint, set-up included."""

    later_seconds: float
    """Each later one of the same shape."""

    choice_seconds: float
    """Choosing layers for half of the error, after the ranking."""

    sets: int
    """How many sets that measured."""

    @property
    def set_in_forwards(self) -> float:
        """One measured set, as a multiple of the plain forward; not a number if there was none."""
        return self.choice_seconds / self.sets / self.forward_seconds if self.sets else math.nan

    def in_forwards(self, measured: Measurement) -> float:
        """Returns the time as a multiple of the plain forward."""
        return measured.seconds / self.forward_seconds

    def in_sizes(self, measured: Measurement) -> float:
        """Returns the peak memory as a multiple of the model's size."""
        return measured.peak_bytes / self.size_bytes


@dataclass(frozen=True, slots=True)
class _Goal:
    model: str
    what: str
    figure: Callable[[Figures], float]
    limit: float | None = None
    at_least: bool = False
    limit_on_many: float | None = None
    """The limit on 16 cores or more, where it is another one."""


_MANY_CORES = 16

_GOALS = (
    _Goal(
        "bert-base",
        "forwards, adjoint",
        lambda f: f.in_forwards(f.adjoint),
        10.0,
        limit_on_many=15.0,
    ),
    _Goal("bert-base", "later sample / first", lambda f: f.later_seconds / f.first_seconds, 0.6),
    _Goal("bert-base", "forwards of a measured set", lambda f: f.set_in_forwards, 1.5),
    _Goal("bert-base", "forwards, gain", lambda f: f.in_forwards(f.gain), 8.0),
    _Goal(
        "bert-base",
        "forwards that the adjoint adds",
        lambda f: f.in_forwards(f.adjoint) - f.in_forwards(f.gain),
        3.0,
    ),
    _Goal("bert-base", "peak memory / size, adjoint", lambda f: f.in_sizes(f.adjoint), 1.0),
    _Goal("bert-base", "peak memory / size, gain", lambda f: f.in_sizes(f.gain), 0.4),
    _Goal(
        "bert-base",
        "times faster than marking all",
        lambda f: f.marked.seconds / f.adjoint.seconds if f.marked else math.nan,
        10.0,
        at_least=True,
    ),
    _Goal(
        "bert-base",
        "times less memory than marking all",
        lambda f: f.marked.peak_bytes / f.adjoint.peak_bytes if f.marked else math.nan,
        5.0,
        at_least=True,
    ),
    _Goal(
        "bert-large",
        "forwards, adjoint",
        lambda f: f.in_forwards(f.adjoint),
        8.0,
        limit_on_many=12.0,
    ),
    _Goal("bert-large", "forwards, gain", lambda f: f.in_forwards(f.gain), 6.0),
    _Goal("bert-large", "peak memory / size, adjoint", lambda f: f.in_sizes(f.adjoint), 0.4),
    _Goal("bert-large", "peak memory / size, gain", lambda f: f.in_sizes(f.gain), 0.2),
    _Goal(
        "resnet50",
        "forwards, adjoint",
        lambda f: f.in_forwards(f.adjoint),
        12.0,
        limit_on_many=25.0,
    ),
    _Goal(
        "resnet50",
        "memory for 32 samples / for 1",
        lambda f: f.many_samples.peak_bytes / f.gain.peak_bytes if f.many_samples else math.nan,
        1.1,
    ),
    _Goal("mlp", "peak memory / size, gain", lambda f: f.in_sizes(f.gain), 0.2),
    _Goal("small-ops", "seconds of graph work", lambda f: f.graph_seconds, 2.0),
    _Goal("small-ops", "seconds of the whole ranking, gain", lambda f: f.gain.seconds),
    _Goal("small-ops", "seconds of the whole ranking, adjoint", lambda f: f.adjoint.seconds),
)


def goal_table(figures: Sequence[Figures], *, cores: int) -> list[str]:
    """Returns the lines of a Markdown table: each goal, the figure beside it, yes or no.

    Args:
        figures: What was measured.
        cores: How many cores the process could use.
    """
    measured = {case.name: case for case in figures}
    rows = ["| model | what | goal | measured | reached |", "|---|---|---|---|---|"]
    for goal in _GOALS:
        case = measured.get(goal.model)
        figure = goal.figure(case) if case else math.nan
        if case is not None and not math.isnan(figure):
            verdict = _verdict(_for_cores(goal, cores), figure)
            rows.append(f"| {case.title} | {goal.what} | {verdict} |")
    return rows


def _for_cores(goal: _Goal, cores: int) -> _Goal:
    if cores < _MANY_CORES or goal.limit_on_many is None:
        return goal
    return replace(goal, limit=goal.limit_on_many)


def _verdict(goal: _Goal, figure: float) -> str:
    if goal.limit is None:
        return f"- | {figure:.2f} | -"
    reached = figure >= goal.limit if goal.at_least else figure <= goal.limit
    sign = "≥" if goal.at_least else "≤"
    return f"{sign} {goal.limit:g} | {figure:.2f} | {'yes' if reached else 'no'}"
