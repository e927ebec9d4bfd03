"""What a report about a ranking is made of."""

from __future__ import annotations

from dataclasses import dataclass

from polygraphy_layerprec.records import CurvePoint, Ranking, Selection

__all__ = ["Command", "RankingReport"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command to copy into a shell."""

    purpose: str
    """What it is for, in words."""

    line: str
    """The command, quoted for a shell."""


@dataclass(frozen=True, slots=True)
class RankingReport:
    """A ranking with what was chosen from it."""

    ranking: Ranking
    """What was measured."""

    selection: Selection
    """What stays in FP32."""

    curve: tuple[CurvePoint, ...]
    """Output error against the number of layers in FP32."""

    commands: tuple[Command, ...] = ()
    """What to run next."""
