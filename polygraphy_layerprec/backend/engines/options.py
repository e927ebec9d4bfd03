"""How engines are made, whatever their precision; knows no TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.execution.errors import ExecutionError

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engines.specs import Sample

__all__ = ["EngineOptions", "ShapeProfile", "choose_profile"]

ShapeProfile = Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]]
"""Smallest, best and largest shape of inputs, by name."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Everything about a build but the precision and the outputs."""

    model_path: str
    """The model in FP32."""

    load_network: Callable[..., Any]
    """Returns a builder, a network and a parser, as Polygraphy's network loaders do, given the path
    of a model; by the keyword `strongly_typed`, types decide in any case; by `with_debug_tensors`,
    all tensors that are not fused away are debug tensors."""

    make_config: Callable[[str | None], Any]
    """Returns a loader of builder configurations, given the path of a timing cache or None."""

    profiles: tuple[ShapeProfile, ...] = ()
    """The optimization profiles, in order; none where shapes are fixed."""

    allows_tf32: bool = False
    """Whether FP32 layers may compute in TF32."""

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
