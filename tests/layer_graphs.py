"""Rankings of invented layers that read one another, and what hypothesis draws of them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from tests.rankings import make_layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.records import RankedLayer

__all__ = ["all_sets", "chain_of", "layer_graphs", "layer_of", "mask_of"]


def layer_of(name: str, impact: float, **changes: Any) -> RankedLayer:
    """Returns a layer of one floating-point operation that nobody reads, with `changes`."""
    return make_layer(1, name, **{"impact": impact, "flops": 1.0, "outputs": (name,), **changes})


def chain_of(*impacts: float, **changes: Any) -> list[RankedLayer]:
    """Returns layers `a`, `b`, ... of which each reads the one before, with `changes`."""
    names = [chr(ord("a") + index) for index in range(len(impacts))]
    readers = [*(((name, 1.0),) for name in names[1:]), ()]
    return [
        layer_of(name, impact, readers=reads, **changes)
        for name, impact, reads in zip(names, impacts, readers, strict=True)
    ]


def mask_of(layers: Sequence[RankedLayer], names: str) -> npt.NDArray[np.bool_]:
    """Returns the set of the layers whose one-letter names are in `names`."""
    return np.array([layer.name in names for layer in layers], bool)


def all_sets(count: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yields every subset of `count` layers."""
    for members in itertools.product([False, True], repeat=count):
        yield np.array(members, bool)


@st.composite
def layer_graphs(draw: st.DrawFn, *, most: int = 8) -> list[RankedLayer]:
    """Draws layers in a ranking's order, whose readers come later in an order of their own."""
    count = draw(st.integers(1, most))
    execution = draw(st.permutations(range(count)))
    sizes = st.integers(0, 1000)
    layers = []
    for position in range(count):
        later = [other for other in range(count) if execution[other] > execution[position]]
        readers = draw(st.lists(st.sampled_from(later), unique=True)) if later else []
        parts = [draw(st.integers(1, 10)) for _ in readers]
        whole = sum(parts) + draw(st.integers(0, 5))
        layers.append(
            layer_of(
                f"layer{position}",
                draw(sizes) / 1000,
                weight_share=draw(st.integers(0, 10)) / 10,
                readers=tuple(
                    (f"layer{reader}", part / whole)
                    for reader, part in zip(readers, parts, strict=True)
                ),
                flops=float(draw(sizes)),
            )
        )
    return sorted(layers, key=lambda layer: -layer.impact)
