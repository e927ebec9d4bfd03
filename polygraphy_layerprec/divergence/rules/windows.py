"""Where the taps of a sliding window (convolution, pooling) fall on the spatial axes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.arrays import namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polygraphy_layerprec.divergence.rules.registry import Application, Array

__all__ = ["Windows", "windows"]

Places = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """A sliding window over spatial axes, from the narrow positions to the padded wide ones.

    For a convolution or pooling the narrow side is the output; for its transpose, the input.
    """

    kernel: tuple[int, ...]
    """Taps along each spatial axis."""

    strides: tuple[int, ...]
    """Wide positions between neighbouring windows."""

    dilations: tuple[int, ...]
    """Wide positions between neighbouring taps."""

    begins: tuple[int, ...]
    """Padding before the wide side, at least 0."""

    ends: tuple[int, ...]
    """Padding after the wide side as the node declares it."""

    narrow: tuple[int, ...]
    """Number of windows along each spatial axis."""

    wide: tuple[int, ...]
    """Size of the wide side without padding."""

    @property
    def padded(self) -> tuple[int, ...]:
        """Size of the wide side that holds padding and the last window, which may stand out."""
        return tuple(
            max(wide + begin + max(end, 0), (narrow - 1) * stride + (kernel - 1) * dilation + 1)
            for wide, begin, end, narrow, stride, kernel, dilation in zip(
                self.wide,
                self.begins,
                self.ends,
                self.narrow,
                self.strides,
                self.kernel,
                self.dilations,
                strict=True,
            )
        )

    @property
    def is_pointwise(self) -> bool:
        """Whether each window is one position, in order, without padding."""
        return (
            all(size == 1 for size in self.kernel + self.strides)
            and self.narrow == self.wide == self.padded
        )

    def taps(self) -> Iterator[Places]:
        """Yields the index of each tap's positions `(..., *padded)`, in the kernel's order."""
        for tap in product(*map(range, self.kernel)):
            places = (
                slice(index * dilation, index * dilation + (narrow - 1) * stride + 1, stride)
                for index, dilation, narrow, stride in zip(
                    tap, self.dilations, self.narrow, self.strides, strict=True
                )
            )
            yield (Ellipsis, *places)

    def pad(self, values: Array, fill: float) -> Array:
        """Returns values `(..., *wide)` as `(..., *padded)`, with `fill` around them."""
        if self.padded == self.wide:
            return values
        leading = values.shape[: values.ndim - len(self.wide)]
        padded: Array = namespace_of(values).full(leading + self.padded, fill, values.dtype)
        self.crop(padded)[...] = values
        return padded

    def crop(self, padded: Array) -> Array:
        """Returns the view `(..., *wide)` of values `(..., *padded)`."""
        inner = (slice(b, b + w) for b, w in zip(self.begins, self.wide, strict=True))
        places: Places = (Ellipsis, *inner)
        return padded[places]

    def coverage(self, *, includes_padding: bool) -> list[Array]:
        """Returns, for each spatial axis, how many taps of each window `(narrow,)` count."""
        counts = []
        for axis, narrow in enumerate(self.narrow):
            first = 0 if includes_padding else self.begins[axis]
            last = self.begins[axis] + self.wide[axis]
            last += self.ends[axis] if includes_padding else 0
            places = np.arange(narrow)[:, None] * self.strides[axis]
            places = places + np.arange(self.kernel[axis]) * self.dilations[axis]
            counts.append(((places >= first) & (places < last)).sum(axis=1))
        return counts


def windows(
    application: Application,
    kernel: tuple[int, ...],
    *,
    narrow: tuple[int, ...],
    wide: tuple[int, ...],
) -> Windows:
    """Returns the windows that a node's `strides`, `dilations`, `pads` and `auto_pad` describe."""
    rank = len(kernel)
    attributes = application.attributes
    strides = tuple(attributes.get("strides") or [1] * rank)
    dilations = tuple(attributes.get("dilations") or [1] * rank)
    automatic = attributes.get("auto_pad", "NOTSET")
    pads = tuple(attributes.get("pads") or [0] * (2 * rank))
    if automatic != "NOTSET":
        totals = [
            max((n - 1) * s + (k - 1) * d + 1 - w, 0)
            for n, s, k, d, w in zip(narrow, strides, kernel, dilations, wide, strict=True)
        ]
        if automatic == "VALID":
            totals = [0] * rank
        small = tuple(total // 2 for total in totals)
        large = tuple(total - total // 2 for total in totals)
        pads = large + small if automatic == "SAME_LOWER" else small + large
    return Windows(kernel, strides, dilations, pads[:rank], pads[rank:], narrow, wide)
