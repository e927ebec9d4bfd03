"""How engines are made, whatever their precision; knows no TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.execution.errors import ExecutionError

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engine_spec import Sample

__all__ = ["EngineOptions", "ShapeProfile", "choose_profile"]

ShapeProfile = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]
"""Smallest, best and largest shape of inputs, by name."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Everything about a build but the precision and the outputs."""

    load_network: Callable[[], Any]
    """Returns a builder, a network and a parser, as Polygraphy's network loaders do."""

    make_config: Callable[[str | None], Any]
    """Returns a loader of builder configurations, given the path of a timing cache or None."""

    profiles: tuple[ShapeProfile, ...] = ()
    """The optimization profiles, in order; none where shapes are fixed."""

    allows_tf32: bool = False
    """Whether FP32 layers may compute in TF32."""

    load_debug_network: Callable[[], Any] | None = None
    """As `load_network`, with all tensors that are not fused away as debug tensors; None unless
    that was asked for."""

    identity: Mapping[str, Any] = field(default_factory=dict)
    """What decides the builds beside the model, as JSON values."""


def choose_profile(profiles: Sequence[ShapeProfile], sample: Sample) -> int:
    """Returns the index of the first profile that takes the shapes of `sample`.

    Raises:
        ExecutionError: If none does.
    """
    for index, profile in enumerate(profiles):
        if all(_takes(profile[name], sample[name].shape) for name in profile if name in sample):
            return index
    if not profiles:
        return 0
    shapes = {name: list(values.shape) for name, values in sample.items()}
    raise ExecutionError(
        f"No optimization profile takes a sample of shapes {shapes!r}.\n"
        f"Note: The profiles are: {[_as_lists(profile) for profile in profiles]!r}.\n"
        f"Widen one with `--trt-min-shapes` and `--trt-max-shapes`, or add one by giving these "
        f"options again."
    )


def _takes(
    limits: tuple[Sequence[int], Sequence[int], Sequence[int]], shape: Sequence[int]
) -> bool:
    low, _, high = limits
    return len(low) == len(shape) and all(
        least <= extent <= most for least, extent, most in zip(low, shape, high, strict=True)
    )


def _as_lists(profile: ShapeProfile) -> dict[str, list[list[int]]]:
    return {name: [list(shape) for shape in shapes] for name, shapes in profile.items()}
