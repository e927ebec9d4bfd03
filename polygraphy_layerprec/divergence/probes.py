"""Where errors are judged, and the random probes from which the backward sweep starts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.divergence.powers import sum_of_squares
from polygraphy_layerprec.precision import is_floating

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "Target",
    "merge_targets",
    "output_scales",
    "output_seeds",
    "probe_count",
    "spanning_seeds",
    "sweep_work",
    "target_of",
    "target_seeds",
]

_MOST_PROBES: Final = 4
_ENOUGH_ROWS: Final = 16
_MOST_CHEAP_PROBES: Final = 16
_CHEAP_WORK: Final = 1 << 25
"""Elements that sweeps may pass without being felt."""
_STEP_WORK: Final = 20_000
"""What one node costs beside its elements."""


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor at which errors are judged: an output, or what decides an integer one."""

    shape: tuple[int, ...]
    """Its shape."""

    dtype: np.dtype[Any]
    """Type of the gradients at it: float64 for double values, float32 for any other."""

    power: float
    """Sum of squares of its finite elements."""

    finite: npt.NDArray[np.bool_] | None = None
    """Which elements are finite; None where all are."""

    weight: float = 1.0
    """How many outputs it stands for; less than 1 where several tensors decide one."""

    decision: str = ""
    """The operator that makes an integer output of it; empty for an output itself."""

    @property
    def is_usable(self) -> bool:
        """Whether relative errors exist."""
        return 0.0 < self.power < np.inf


def target_of(values: npt.NDArray[Any]) -> Target:
    """Returns the target that a tensor is: floats of any width, or integers."""
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    everywhere = bool(finite.all())
    if not everywhere:
        wide = np.where(finite, wide, 0.0)
    with np.errstate(over="ignore"):  # such a target is not usable
        power = sum_of_squares(wide.ravel())
    return Target(
        shape=values.shape,
        dtype=np.dtype(np.float64 if values.dtype == np.float64 else np.float32),
        power=power,
        finite=None if everywhere else finite,
    )


def merge_targets(targets: Iterable[tuple[str, Target]]) -> dict[str, Target]:
    """Returns the targets by tensor name; the weights of those that occur twice add up."""
    merged: dict[str, Target] = {}
    for name, target in targets:
        weight = merged[name].weight if name in merged else 0.0
        merged[name] = replace(target, weight=weight + target.weight)
    return merged


def target_seeds(
    targets: Mapping[str, Target], *, rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Returns a random probe of +-1 for each target, scaled by the norm of the tensor.

    The squared impacts that follow from it are mean squares of relative L2 errors over the
    outputs. Elements that are not finite have no probe, and targets without power are left out.

    Args:
        targets: By tensor name.
        rng: Where the signs come from.
    """
    scales = output_scales(targets)
    seeds = {}
    for name, scale in scales.items():
        target = targets[name]
        signs = rng.choice(np.array([-1, 1], target.dtype), size=target.shape)
        seed = np.asarray(signs * target.dtype.type(np.sqrt(scale)))
        seeds[name] = seed if target.finite is None else seed * target.finite
    return seeds


def spanning_seeds(
    targets: Mapping[str, Target], *, most: int
) -> list[dict[str, npt.NDArray[Any]]]:
    """Returns orthogonal probes for outputs of few numbers: see `Tape.sweep`; else none.

    The mean square of what all of them see of an error is that of the whole error, exactly.

    Args:
        targets: By tensor name.
        most: How many probes there may be.
    """
    scales = output_scales(targets)
    total = sum(math.prod(targets[name].shape) for name in scales)
    count = 1 << (total - 1).bit_length() if total else 0
    if not 0 < count <= most:
        return []
    probes = []
    for row in range(count):
        # The rows of a Hadamard matrix.
        signs = np.array([(-1.0) ** (row & column).bit_count() for column in range(total)])
        seeds = {}
        for name, scale in scales.items():
            target = targets[name]
            own, signs = np.split(signs, [math.prod(target.shape)])
            seed = own.reshape(target.shape).astype(target.dtype) * target.dtype.type(
                np.sqrt(scale)
            )
            seeds[name] = seed if target.finite is None else seed * target.finite
        probes.append(seeds)
    return probes


def output_scales(targets: Mapping[str, Target]) -> dict[str, float]:
    """Returns the squared factor by which the error of each usable target counts."""
    usable = {name: target for name, target in targets.items() if target.is_usable}
    total = sum(target.weight for target in usable.values())
    return {name: t.weight / (total * t.power) for name, t in usable.items()}


def output_seeds(
    outputs: Mapping[str, npt.NDArray[Any]], *, rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Returns a random probe for each float output: see `target_seeds`.

    Args:
        outputs: Reference outputs by name.
        rng: Where the signs come from.
    """
    floats = {name: y for name, y in outputs.items() if is_floating(y.dtype)}
    return target_seeds({name: target_of(y) for name, y in floats.items()}, rng=rng)


def probe_count(shapes: Iterable[tuple[int, ...]], *, work: float = np.inf) -> int:
    """Returns how many probes tell the impacts apart, from 1 to 16.

    Every row of an output is probed on its own, and their squares average out. An output of a
    single row leaves a single square, which is as uncertain as it is large; so does a layer of few
    elements, whatever the output is, for which more probes are taken where they cost next to
    nothing.

    Args:
        shapes: Shapes of the outputs.
        work: What one sweep costs: see `sweep_work`.
    """
    rows = max((int(np.prod(shape[:-1])) for shape in shapes if shape), default=1)
    needed = min(_MOST_PROBES, -(-_ENOUGH_ROWS // max(rows, 1)))
    return max(needed, int(min(_MOST_CHEAP_PROBES, _CHEAP_WORK / max(work, 1.0))))


def sweep_work(element_counts: Iterable[int]) -> int:
    """Returns what one sweep costs, in elements, from the sizes of what each node makes."""
    return sum(_STEP_WORK + count for count in element_counts)
