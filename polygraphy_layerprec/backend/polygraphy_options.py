"""What Polygraphy's options about comparing outputs say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from polygraphy_layerprec.divergence.output_parts import OutputParts

__all__ = ["ALIASES", "Compare", "PolygraphyOptions"]

Compare = Callable[[Any, Any], Mapping[str, Any]]
"""Compares two results of an iteration, and says of each output whether it passes."""

ALIASES: Final = {
    "distance_metrics": ("l2", "cosine_similarity"),
    "quality_metrics": ("psnr", "snr"),
}
"""Names of earlier versions that stand for two functions."""


@dataclass(frozen=True, slots=True)
class PolygraphyOptions:
    """What Polygraphy's comparison options say; values by output, an empty name for all others."""

    compare: tuple[str, ...] = ()
    """Names of comparison functions, as `--compare` has them."""

    atol: Mapping[str, float] = field(default_factory=dict)
    """Absolute tolerances of `simple`."""

    rtol: Mapping[str, float] = field(default_factory=dict)
    """Relative tolerances of `simple`."""

    check_error_stat: Mapping[str, str] = field(default_factory=dict)
    """What `simple` checks: `elemwise`, `max`, `mean`, `median` or `quantile`."""

    error_quantile: Mapping[str, float] = field(default_factory=dict)
    """Which quantile that is."""

    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Those of `l2`, `cosine_similarity`, `psnr` and `snr`, by function."""

    index_tolerance: Mapping[str, int] = field(default_factory=dict)
    """By how many places `indices` may differ."""

    postprocess: Mapping[str, Any] = field(default_factory=dict)
    """Number of largest values whose indices are compared, or number and axis."""

    script: Compare | None = None
    """A function of the user's own, which replaces all others."""

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions to compare with: those that were named, and those that have a threshold."""
        named = [function for name in self.compare for function in ALIASES.get(name, (name,))]
        if self.atol or self.rtol or self.check_error_stat or self.error_quantile:
            named.append("simple")
        if self.index_tolerance or (self.postprocess and not named):
            named.append("indices")
        named += [function for function, given in self.thresholds.items() if given]
        return tuple(dict.fromkeys(named))

    @property
    def _given(self) -> list[Mapping[str, Any]]:
        return [
            *(self.atol, self.rtol, self.check_error_stat, self.error_quantile),
            *(*self.thresholds.values(), self.index_tolerance, self.postprocess),
        ]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs that are named, or parts of them."""
        return tuple(dict.fromkeys(name for values in self._given for name in values if name))

    @property
    def has_unnamed(self) -> bool:
        """Whether a value is given for what is not named."""
        return self.script is not None or any("" in values for values in self._given)

    @property
    def only(self) -> tuple[str, ...] | None:
        """What alone is compared; None for all outputs, as Polygraphy does.

        The best indices of some outputs say nothing of others, whose floats are no indices.
        """
        others = [values for values in self._given if values is not self.postprocess]
        if not self.postprocess or "" in self.postprocess or self.compare or any(others):
            return None
        return tuple(self.postprocess)

    def covered(self, outputs: Sequence[str]) -> tuple[str, ...]:
        """Returns the outputs that are compared, and the parts of others, as the options say it."""
        if not self.functions and self.script is None:
            return ()
        if self.has_unnamed or self.only is not None:
            return tuple(outputs) if self.only is None else self.only
        sliced = OutputParts(self.outputs, outputs).sliced
        return *self.outputs, *(name for name in outputs if name not in sliced)
