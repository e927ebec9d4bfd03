"""The verdict: what was measured before and after, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.precision import lowered_to
from polygraphy_layerprec.records import HeldOut, Outcome
from polygraphy_layerprec.records.numbers import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import VerdictKind

__all__ = ["KeptInWords", "verdict_of"]

_NAMES_SHOWN: Final = 2


@dataclass(frozen=True, slots=True)
class KeptInWords:
    """The layers that stay in FP32, as a verdict tells of them."""

    count: int
    """How many there are."""

    layer_count: int
    """How many layers there are in all."""

    to_blame: Sequence[str] = ()
    """Names of those that break the outputs, the worst first; none where that is not known."""

    @property
    def text(self) -> str:
        """Their number in words: `3 of 40 layers`."""
        return f"{self.count} of {count_of(self.layer_count, 'layer')}"


def verdict_of(
    lowered: Outcome,
    outcome: Outcome,
    kept: KeptInWords,
    *,
    precision: str,
    was_searched: bool,
    held_out: HeldOut | None = None,
) -> tuple[VerdictKind, str]:
    """Returns the verdict and its sentence.

    Args:
        lowered: What is left with every layer lowered.
        outcome: What is left with some in FP32.
        kept: Which.
        precision: Name of the low precision.
        was_searched: Whether the set is the best that was found, and not one that was asked for.
        held_out: What other samples say.
    """
    verdict = _verdict(lowered, outcome, kept, was_searched=was_searched)
    text = _SENTENCES[verdict](precision.upper(), lowered, outcome, kept)
    if held_out is not None:
        text += f"; {_held_out(held_out, outcome)}"
    return verdict, f"{text}."


def _verdict(
    lowered: Outcome, outcome: Outcome, kept: KeptInWords, *, was_searched: bool
) -> VerdictKind:
    if lowered.passed:
        return "fine"
    if was_searched and not outcome.passed:
        return "unreachable"
    if kept.count == kept.layer_count:
        return "fp32"
    return "broken" if lowered.headline.criterion.finiteness else "inaccurate"


def _fine(low: str, lowered: Outcome, _: Outcome, kept: KeptInWords) -> str:
    aside = f", the {kept.text} that were asked for aside" if kept.count else ""
    return f"{low} is fine, no layer needs to stay in FP32{aside}: {lowered.headline.text}"


def _broken(low: str, lowered: Outcome, outcome: Outcome, kept: KeptInWords) -> str:
    more = len(kept.to_blame) - _NAMES_SHOWN
    names = ", ".join(kept.to_blame[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    start = f"{low} is broken by {names}" if names else f"{low} breaks the outputs"
    return f"{start}: {lowered.headline.text}{_brought(lowered, outcome, kept)}"


def _inaccurate(low: str, lowered: Outcome, outcome: Outcome, kept: KeptInWords) -> str:
    return f"{low} loses accuracy: {lowered.headline.text}{_brought(lowered, outcome, kept)}"


def _fp32(low: str, lowered: Outcome, _: Outcome, kept: KeptInWords) -> str:
    return (
        f"An FP32 build, {kept.text} in FP32: with every layer {lowered_to(low)} "
        f"{lowered.headline.text}"
    )


def _unreachable(low: str, lowered: Outcome, outcome: Outcome, kept: KeptInWords) -> str:
    best = "an FP32 build" if kept.count == kept.layer_count else f"{kept.text} in FP32"
    return (
        f"No set of layers meets {outcome.headline.criterion.text!r}: with every layer "
        f"{lowered_to(low)} {lowered.headline.text}; the best that was found, {best}, leaves "
        f"{outcome.headline.text}"
    )


_SENTENCES: Final = {
    "fine": _fine,
    "broken": _broken,
    "inaccurate": _inaccurate,
    "fp32": _fp32,
    "unreachable": _unreachable,
}


def _brought(lowered: Outcome, outcome: Outcome, kept: KeptInWords) -> str:
    """What the layers in FP32 change; nothing where there are none."""
    if not kept.count:
        return ""
    short = "" if outcome.passed else ", which is not enough"
    before, after = lowered.headline, outcome.headline
    if outcome.passed and not before.criterion.finiteness:
        after = outcome.of(before.criterion)
    if before.criterion == after.criterion and not before.criterion.finiteness:
        verb = "brings" if kept.count == 1 else "bring"
        return f"; {kept.text} in FP32 {verb} it to {after.number}{short}"
    return f"; with {kept.text} in FP32 {after.text}{short}"


def _held_out(held_out: HeldOut, outcome: Outcome) -> str:
    shown = held_out.chosen.of(outcome.headline.criterion)
    if not held_out.chosen.passed:
        shown = held_out.chosen.headline
    samples = count_of(held_out.sample_count, "held-out sample")
    return f"on {samples} {shown.text}"
