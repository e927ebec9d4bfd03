"""What an impact does not see, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["Caveat", "CaveatTrail", "describe_caveats", "of_layer"]

_MOST_OPERATORS: Final = 3


@dataclass(frozen=True, slots=True, order=True)
class Caveat:
    """One thing between a layer and the outputs by which its impact may be off."""

    kind: Literal["gain", "quantized", "narrowed", "decides", "output", "few", "unconnected"]
    """`gain`: an operator without a rule, where a measured gain stood in. `quantized`, `narrowed`:
    steps, taken as the straight line through them: an error below a step shows rarely, and whole.
    `decides`: no gradient tells what a decision within the model does. `output`: an output is a
    decision, and the errors in front of it count. `few`: only a handful of numbers tell the impact.
    `unconnected`: no error gets from here to an output that counts."""

    op: str = ""
    """The operator."""


class CaveatTrail:
    """Follows errors back from the outputs, and gathers what no gradient says on the way."""

    def __init__(self) -> None:
        self._noted: dict[str, frozenset[Caveat]] = {}

    def start(self, name: str, decision: str) -> None:
        """Starts at a tensor at which errors are judged.

        Args:
            name: The tensor.
            decision: The operator that makes an integer output of it; empty for an output itself.
        """
        self._note(name, frozenset({Caveat("output", decision)} if decision else ()))

    def arrive(self, outputs: Iterable[str]) -> frozenset[Caveat] | None:
        """Returns what was noted behind a node; None if no error gets on from it."""
        noted = [self._noted.pop(name) for name in outputs if name in self._noted]
        return frozenset[Caveat]().union(*noted) if noted else None

    def leave(
        self, caveats: frozenset[Caveat], names: Iterable[str], decided: Mapping[str, str]
    ) -> None:
        """Goes on to what a node takes.

        Args:
            caveats: What was noted behind it and at it.
            names: Tensors that bring errors.
            decided: Tensors that decide integers it takes, with the operator that decides.
        """
        for name in names:
            self._note(name, caveats)
        for name, op in decided.items():
            self._note(name, caveats | {Caveat("decides", op)})

    def _note(self, name: str, caveats: frozenset[Caveat]) -> None:
        self._noted[name] = self._noted.get(name, caveats) | caveats


def of_layer(caveats: frozenset[Caveat] | None) -> frozenset[Caveat]:
    """Returns the caveats of a layer from what `CaveatTrail.arrive` said at it."""
    return frozenset({Caveat("unconnected")}) if caveats is None else caveats


def describe_caveats(caveats: Iterable[Caveat], *, judged: bool) -> str:
    """Returns what to know about an impact, without a stop at the end; empty if there is nothing.

    Args:
        caveats: All that hold.
        judged: Whether there is an impact at all.
    """
    operators: dict[str, list[str]] = {}
    for caveat in sorted(caveats):
        operators.setdefault(caveat.kind, []).append(caveat.op)
    if not judged and "decides" in operators:
        names = _listed(operators["decides"])
        return f"not judged: it reaches the outputs only by what {names} decides"
    if not judged and "unconnected" in operators:
        return "not judged: no error gets from here to an output that counts"
    return ", ".join(
        _WORDS[kind].format(_listed(names)) for kind, names in operators.items() if kind in _WORDS
    )


_WORDS: Final = {
    "decides": "without what {} decides",
    "few": "from few numbers",
    "gain": "by a measured gain: no rule for {}",
    "narrowed": "through {} to narrower floats",
    "output": "judged in front of {}",
    "quantized": "through the steps of {}",
}


def _listed(names: list[str]) -> str:
    shown = names[:_MOST_OPERATORS]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
