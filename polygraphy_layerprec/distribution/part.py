"""A part of a ranking: what some of the samples said, and how they were measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.execution.kernels.device import device_name
from polygraphy_layerprec.execution.kernels.sessions import session_threads
from polygraphy_layerprec.model import identify
from polygraphy_layerprec.model.digest import reference_digest
from polygraphy_layerprec.ranking.assembly import installed_versions
from polygraphy_layerprec.records import ImpactMethod, ModelIdentity

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.side_by_side import Comparison
    from polygraphy_layerprec.model import Graph

__all__ = ["Part", "PartConditions", "Shard", "conditions_of", "digest_of_script"]


@dataclass(frozen=True, slots=True)
class Shard:
    """Every `count`-th sample of a data set, from the `number`-th on."""

    number: int
    """Which one, from 1."""

    count: int
    """How many there are."""

    def __post_init__(self) -> None:
        """Raises ValueError unless `1 <= number <= count`."""
        if not 1 <= self.number <= self.count:
            raise UserError(f"a shard must be from 1/N to N/N, got {self}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, sample: int) -> bool:
        """Returns whether a sample, by its index from 0, belongs to it."""
        return sample % self.count == self.number - 1

    def size_of(self, data_set_size: int) -> int:
        """Returns how many samples of a data set belong to it."""
        return len(range(self.number - 1, data_set_size, self.count))


@dataclass(frozen=True, slots=True)
class PartConditions:
    """What must be equal in all parts of a ranking."""

    model: ModelIdentity
    """The model."""

    precision: str
    """Name of the low precision."""

    impact: ImpactMethod
    """How impacts are found."""

    outputs: tuple[str, ...]
    """Names of the outputs that count; none where all do."""

    loss: str
    """Digest of the script with the user's own loss, empty without one."""

    threads: int
    """Threads of each ONNX-Runtime session."""

    versions: tuple[tuple[str, str], ...]
    """Package names and versions, sorted by name."""

    inputs: Literal["generated", "user"]
    """Where the samples come from."""

    shard_count: int
    """How many parts there are."""

    data_set_size: int
    """Samples in all parts together."""

    reference: str = ""
    """Digest of the float model that a quantised one is compared with; empty without one."""

    device: str = ""
    """Name of the GPU that nodes ran on; empty for the CPU."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the samples of one shard said."""

    shard: Shard
    """Which one."""

    conditions: PartConditions
    """How it was measured."""

    comparison: Comparison
    """What its samples said."""


def conditions_of(
    graph: Graph,
    *,
    precision: str,
    impact: ImpactMethod,
    outputs: Sequence[str] | None,
    loss: str = "",
    generated_inputs: bool,
    shard_count: int,
    data_set_size: int,
) -> PartConditions:
    """Returns how a part is measured here and now, with the threads that sessions have.

    Args:
        graph: The whole model.
        precision: Name of the low precision.
        impact: How impacts are found.
        outputs: Names of the outputs that count, all by default.
        loss: Digest of the script with a loss.
        generated_inputs: Whether the samples are made up.
        shard_count: How many parts there are.
        data_set_size: Samples in all of them.
    """
    return PartConditions(
        model=identify(graph),
        precision=precision,
        impact=impact,
        outputs=tuple(outputs or ()),
        loss=loss,
        threads=session_threads(),
        versions=installed_versions(),
        inputs="generated" if generated_inputs else "user",
        shard_count=shard_count,
        data_set_size=data_set_size,
        reference=reference_digest(graph),
        device=device_name(),
    )


def digest_of_script(path: str, function_name: str) -> str:
    """Returns the digest of a script's content and the function that is meant, in hex.

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.sha256(function_name.encode() + b"\0" + file.read()).hexdigest()
