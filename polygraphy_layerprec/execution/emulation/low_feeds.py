"""What one run of a layer takes in low precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["LowFeeds"]


@dataclass(frozen=True, slots=True)
class LowFeeds:
    """What a layer takes in low precision, by tensor name."""

    weights: Mapping[str, ort.OrtValue]
    """Its constants, rounded where they are."""

    exact: Mapping[str, ort.OrtValue]
    """Its other sources as in the reference, those rounded that no layer made."""

    entering: Mapping[str, ort.OrtValue]
    """The candidate's."""

    are_changed: bool
    """Whether weights or `exact` are not what the reference takes."""

    @property
    def own(self) -> dict[str, ort.OrtValue]:
        """Feeds that make the layer's own error."""
        return {**self.weights, **self.exact}

    @property
    def arriving(self) -> dict[str, ort.OrtValue]:
        """Feeds of the candidate."""
        return {**self.weights, **self.entering}

    @property
    def differ(self) -> bool:
        """Whether errors arrive with the candidate."""
        return any(self.entering[name] is not value for name, value in self.exact.items())
