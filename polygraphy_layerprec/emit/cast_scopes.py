"""Where a cast may be shared, given the conditionals of a network.

This text is also part of every emitted script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec.emit.network_view import predecessors_of

if TYPE_CHECKING:
    from polygraphy_layerprec.emit.network_view import LayerView, NetworkView

__all__ = ["find_scopes"]


def find_scopes(view: NetworkView) -> dict[LayerView, frozenset[tuple[LayerView, int]]]:
    """Returns for each layer the branches it works for: (end of the conditional, input of it).

    TensorRT takes everything that only one branch needs into that branch, so that a cast which two
    branches share, or a branch and the graph around it, belongs to neither.
    """
    branches: dict[LayerView, set[tuple[LayerView, int]]] = {}
    for end in view.layers:
        if end.kind != "CONDITIONAL_OUTPUT":
            continue
        for index, result in enumerate(end.producers):
            for layer in _with_ancestors(result):
                branches.setdefault(layer, set()).add((end, index))
    return {layer: frozenset(scope) for layer, scope in branches.items()}


def _with_ancestors(layer: LayerView) -> dict[LayerView, None]:
    found = {layer: None}
    for member in (pending := [layer]):  # grows on the way
        # The back edge of a loop would lead into both branches of a conditional in its body.
        for producer in predecessors_of(member):
            if producer not in found:
                found[producer] = None
                pending.append(producer)
    return found
